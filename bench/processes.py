"""Servers in processes of their own that end with us, whatever ends us."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bench.report import CannotMeasure
from rollout.gateway import leash

ROOT: Final = Path(__file__).resolve().parent.parent
_LAST_WORDS: Final = 1500


def free_port() -> int:
    """Return a port of this machine that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def request(method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """Return an HTTP/1.1 request as bytes."""
    lines = {"Host": "127.0.0.1", **(headers or {})}
    if method == "POST":
        lines = {"Content-Type": "application/json", "Content-Length": str(len(body)), **lines}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def status_of(port: int, asked: bytes, *, patience: float = 10.0) -> int | None:
    """Ask once on a connection of its own; return the HTTP status, None where nobody answered."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
            connection.sendall(asked)
            answer = connection.recv(4096)
    except OSError:
        return None
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) == 3 and words[1].isdigit() else None


class Server:
    """A server while the `with` block lasts; afterwards its whole process group is gone.

    Args:
        name: what it is called in errors.
        command: what to run.
        port: where it listens.
        environ: its whole environment.
    """

    def __init__(self, name: str, command: Sequence[str], *, port: int, environ: Mapping[str, str]) -> None:
        self.name, self.port = name, port
        self._command, self._environ = command, environ
        self.pid = 0
        self._began = 0.0

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        report, told = os.pipe()
        command = [sys.executable, "-I", leash.__file__, "--report", str(told), "--", *self._command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=dict(self._environ),
            cwd=ROOT,
            pass_fds=(told,),
            start_new_session=True,
        )
        os.close(told)
        with os.fdopen(report, "rb") as file:
            line = file.readline()
        self._began = time.perf_counter()  # the command's start, without the leash's
        if not line.strip().isdigit():
            self._end()
            raise CannotMeasure(f"{self.name} could not be started: {self._last_words()}")
        self.pid = int(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._log.close()

    def wait(self, asked: bytes, *, patience: float = 30.0) -> float:
        """Ask until the answer is 200; return seconds since the command was started.

        Raises:
            CannotMeasure: it ended, or did not answer in time; with its last words.
        """
        while (status := status_of(self.port, asked)) != 200:
            if self._process.poll() is not None:
                raise CannotMeasure(f"{self.name} ended by itself: {self._last_words()}")
            if time.perf_counter() - self._began > patience:
                raise CannotMeasure(
                    f"{self.name} did not answer 200 within {patience:g} s (last status: {status}): "
                    f"{self._last_words()}"
                )
            time.sleep(0.005)
        return time.perf_counter() - self._began

    def resident_mb(self) -> float:
        """Return the megabytes its process holds in memory now."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise CannotMeasure(f"{self.name} is gone: {self._last_words()}")

    def _end(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(leash.GRACE_SECONDS + 3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LAST_WORDS))
        return self._log.read().decode("utf-8", "replace").strip() or "it said nothing"


def python_server(name: str, module: str, *, environ: Mapping[str, str] | None = None) -> Server:
    """Return a server that is a module of ours, given its port as argument; not started yet."""
    port = free_port()
    kept = {variable: os.environ[variable] for variable in ("PATH", "HOME", "LANG", "TMPDIR") if variable in os.environ}
    return Server(
        name, [sys.executable, "-m", *module.split(), str(port)], port=port, environ={**kept, **(environ or {})}
    )
