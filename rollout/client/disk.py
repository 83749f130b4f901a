"""The last good snapshot on disk, so that a process that starts while the control plane is away still knows it.

It is written whole, for the owner alone (mode 0600: it holds user ids). Many processes may share one; a copy that
cannot be read is left aside and said.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from rollout.domain.errors import InvalidRequest
from rollout.domain.snapshot import Snapshot
from rollout.files import write_whole
from rollout.wire.snapshot import decode

_log: Final = logging.getLogger("rollout.client")


class DiskCopy:
    """The copy of one control plane's snapshot in a folder.

    Args:
        folder: made where it is missing.
        url: the control plane's; a digest of it names the file, so that two never share one.
    """

    def __init__(self, folder: Path, url: str) -> None:
        digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
        with suppress(OSError):  # the working folder itself may be gone
            folder = folder.absolute()
        self.path = folder / f"snapshot-{digest[:12]}.json"
        self.problem: str | None = None

    def load(self) -> tuple[Snapshot, float] | None:
        """Return the snapshot and when it was written (seconds since the epoch); None where there is no good one."""
        try:
            with self.path.open("rb") as file:
                written = os.fstat(file.fileno()).st_mtime
                snapshot = decode(file.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, MemoryError) as error:
            self._say(f"the snapshot on disk {str(self.path)!r} cannot be read ({_why(error)}); it is left aside")
            return None
        except InvalidRequest as error:
            self._say(f"the snapshot on disk {str(self.path)!r} is damaged and left aside: {error.message}")
            return None
        self.problem = None
        return snapshot, written

    def save(self, document: bytes) -> None:
        """Put a document in place of the copy; what goes wrong stands in `problem`, the old copy stays."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self.path, document, forced=True)
        except (OSError, ValueError) as error:
            self._say(
                f"the snapshot cannot be written to {str(self.path)!r} ({_why(error)}): a restart while the control "
                "plane is away would know nothing newer; make the folder writable or set ROLLOUT_DATA_DIR"
            )
        else:
            self.problem = None

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
