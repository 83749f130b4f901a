"""What LiteLLM needs of the machine: a free port, a master key, a log of bounded size."""

import contextlib
import functools
import os
import re
import secrets
import socket
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from rollout.files import write_whole

_KEY: Final = re.compile(r"sk-[\w-]{20,200}", re.ASCII)
_LONGEST_LINE: Final = 16 * 1024
_STAR: Final = b"***"


def port_is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there now.

    Raises:
        ValueError: The port is not in [1, 65535], or the host is unknown.
    """
    if not 0 < port < 65536:
        raise ValueError(f"a port lies between 1 and 65535, not {port!r}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ValueError(f"the host {host!r} is unknown: {error.strerror}") from error
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of an earlier one that are still being closed do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError:
            return False
    return True


def ensure_master_key(path: Path) -> str:
    """Return LiteLLM's master key, made at first run; only its owner may read the file.

    Raises:
        OSError: The folder cannot be written to.
    """
    known = _read_key(path)
    if known is not None:
        with contextlib.suppress(
            OSError
        ):  # a volume of somebody else's knows no modes, and its key is good all the same
            path.chmod(0o600)
        return known
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600 from the start
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"sk-{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a file is: of two processes at first run one wins, and both read its key.
        with contextlib.suppress(OSError):  # there is one already, or the volume knows no links
            os.link(name, path)
        known = _read_key(path)
        if known is None:  # no link was made, or what lay there was no key: half written, or emptied
            write_whole(path, Path(name).read_bytes(), forced=True)
            known = _read_key(path)
    finally:
        Path(name).unlink(missing_ok=True)
    if known is None:
        raise OSError(f"{path} cannot be kept as LiteLLM's master key; check that the folder can be written to")
    return known


def _read_key(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if _KEY.fullmatch(text) else None


def _private(path: Path) -> IO[bytes]:
    file = open(path, "ab", opener=functools.partial(os.open, mode=0o600))  # noqa: SIM115 - its owner closes it
    regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)  # never a device: /dev/null is everybody's
    if regular:
        with contextlib.suppress(OSError):  # not every volume knows modes
            os.fchmod(file.fileno(), 0o600)  # one that was there before
    return file


class BoundedLog:
    """A log file that holds at most `limit` bytes, with one predecessor (`.1`), and none of the secrets.

    Only its owner may read it.
    """

    def __init__(self, path: Path, *, secret_values: Iterable[str] = (), limit: int = 2_000_000) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._limit = limit
        self._secrets = tuple(value.encode() for value in secret_values if value)
        self._file = _private(path)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Add output; whole lines go to the file, so that no secret is split across two writes."""
        self._rest += chunk
        end = self._rest.rfind(b"\n") + 1
        if not end and len(self._rest) > _LONGEST_LINE:
            # What may be a secret's beginning stays behind.
            self._rest = self._without_secrets(self._rest)
            end = len(self._rest) - max(map(len, self._secrets), default=0)
        if end > 0:
            self._put(self._rest[:end])
            self._rest = self._rest[end:]

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._rest:
            self._put(self._rest + b"\n")
            self._rest = b""
        self._file.close()

    def _without_secrets(self, text: bytes) -> bytes:
        for value in self._secrets:
            text = text.replace(value, _STAR)
        return text

    def _put(self, lines: bytes) -> None:
        lines = self._without_secrets(lines)[-self._limit :]
        if self._file.tell() and self._file.tell() + len(lines) > self._limit:
            self._file.close()
            place = self.path.resolve()  # a link stays where it is, and so does a device
            if place.is_file():
                place.replace(place.with_name(f"{place.name}.1"))
            self._file = _private(self.path)
        self._file.write(lines)
        self._file.flush()
