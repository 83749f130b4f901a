"""Write a file whole: whoever reads it sees the old content or the new, never half of either.

    a regular file, or none yet    written beside its place and moved there
    a link                         followed: what it points at is written, the link stays
    a device, a pipe, a socket     written to; it is never replaced by a file

What lies in `/dev` and `/proc` stands for something that is open already (`/dev/stdout`), so it is written to as well.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

_IN_PLACE: Final = frozenset({errno.EBUSY, errno.EXDEV})
"""How a rename fails onto a file that is mounted by itself, as containers do it."""

_OPEN_ALREADY: Final = ("/dev/", "/proc/")


def write_whole(path: Path, content: bytes, *, forced: bool = False, wait: bool = False) -> None:
    """Put content in a file's place, for its owner alone (mode 0600).

    Args:
        path: where; its folder has to be there.
        content: what.
        forced: wait until the content is on the disk, so that it survives a loss of power.
        wait: wait for the reader of a pipe; else a pipe without one is an error.

    Raises:
        OSError: it cannot be written; what was there stays as it was.
        ValueError: the path holds a NUL.
    """
    if _is_written_to(path):
        _write_to(path, content, wait=wait)
        return
    place = Path(os.path.realpath(path))
    descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name[:50]}.", suffix=".new")  # mode 0600
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if forced:
                os.fsync(descriptor)
        try:
            beside.replace(place)
        except OSError as error:
            if error.errno not in _IN_PLACE or not place.is_file():
                raise
            place.write_bytes(content)
            beside.unlink()
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _is_written_to(path: Path) -> bool:
    try:
        mode = path.stat().st_mode  # of what a link points at
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return not stat.S_ISREG(mode) or str(path.absolute()).startswith(_OPEN_ALREADY)


def _write_to(path: Path, content: bytes, *, wait: bool) -> None:
    """Write to something that is there; nothing of it is cut off."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | (0 if wait else os.O_NONBLOCK))
    with os.fdopen(descriptor, "wb") as file:
        os.set_blocking(descriptor, True)
        file.write(content)
