"""A process on a leash, seen from asyncio."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rollout.gateway import leash

# The leash itself gives the command leash.GRACE_SECONDS; only a leash that hangs needs more.
_PATIENCE_SECONDS: Final = leash.GRACE_SECONDS + 3


class Child:
    """Runs a command while the `async with` block lasts; afterwards its whole process group is gone.

    Attributes:
        pid: The command's process id.
        ended: Done when the command has ended, with how ("exit code 3", "signal SIGKILL").
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        folder: Path,
        output: Callable[[bytes], None],
    ) -> None:
        self._command = command
        self._environ = environ
        self._folder = folder
        self._output = output
        self.pid: int | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        reported, reports = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", leash.__file__, "--report", str(reports.fileno()), "--", *self._command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(self._environ),  # uvloop takes no other mapping
                cwd=self._folder,
                pass_fds=(reports.fileno(),),
                start_new_session=True,  # Ctrl-C reaches us, and we decide
            )
        except BaseException:
            reported.close()
            raise
        finally:
            reports.close()
        self._reading = asyncio.ensure_future(self._read())
        self._waiting = asyncio.ensure_future(self._wait())
        try:
            self.pid = await _process_id(reported)
        except BaseException:
            await self._let_go()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._let_go()

    async def _let_go(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        await asyncio.wait({self._waiting}, timeout=_PATIENCE_SECONDS)
        if not self._waiting.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._waiting
        # Something that left the group may still hold the pipe: its last words are not waited for long.
        await asyncio.wait({self._reading}, timeout=1)
        self._reading.cancel()

    async def _wait(self) -> None:
        code = await self._process.wait()
        if not self.ended.done():
            self.ended.set_result(_how(code))

    async def _read(self) -> None:
        if self._process.stdout is None:
            raise AssertionError("asyncio gives a pipe where one was asked for")
        while chunk := await self._process.stdout.read(65536):
            with contextlib.suppress(OSError):  # a full disk costs the log, not the gateway
                self._output(chunk)


async def _process_id(reported: socket.socket) -> int | None:
    """Read the process id the leash writes; None where the command could not be started.

    No transport of the event loop reads it: uvloop's would close the file a second time, a moment after it was
    closed here, and with it a connection that was accepted under the same number in between.
    """
    with reported:
        reported.setblocking(False)
        line = await asyncio.get_running_loop().sock_recv(reported, 32)  # written at once, and shorter
    return int(line) if line.strip().isdigit() else None


def _how(code: int) -> str:
    number = -code if code < 0 else code - 128
    if number > 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(number).name}"
    return f"exit code {code}"
