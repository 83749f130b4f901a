"""Run a command that must not outlive us.

    python -I leash.py [--report FD] -- command...

Law: the command's whole process group is gone when standard input (a pipe whose other end our parent holds)
reaches its end, whatever ended the parent, `kill -9` included; when we are asked to stop; and when the command
itself ends. On Linux the kernel also ends the command should we ourselves be killed with -9 (its direct process
only, as the kernel offers no more).

Asked to stop, the group gets SIGTERM, and SIGKILL `GRACE_SECONDS` later. With `--report` the command's process
id is written to that file descriptor as one line. The exit code is the command's; 128 + n after signal n; 127
where it could not be started; 2 for wrong usage.

Standard library only, and run by path: it starts before anything else, and fast.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

GRACE_SECONDS: Final = 5.0
_USAGE: Final = "usage: leash.py [--report FD] -- command..."
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# A lost SIGCHLD would otherwise leave us waiting for ever.
_LOOK_SECONDS: Final = 1.0


def main(arguments: Sequence[str]) -> int:
    """Run the command after `--` and return the exit code."""
    report, command = _parse(arguments)
    if not command:
        print(_USAGE, file=sys.stderr)
        return 2
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    for number in (*_STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # arrives as a byte on the socket; the loop decides
    try:
        child = subprocess.Popen(  # noqa: S603 - the command is our parent's, that is the point
            command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_tie_to(os.getpid())
        )
    except OSError as error:
        print(f"cannot start {command[0]!r}: {error.strerror}", file=sys.stderr)
        return 127
    if report is not None:
        with contextlib.suppress(OSError):  # nobody wants to know any more: no reason to stop
            os.write(report, f"{child.pid}\n".encode())
            os.close(report)
    code = _hold(child, ours)
    return code if code >= 0 else 128 - code


def _parse(arguments: Sequence[str]) -> tuple[int | None, list[str]]:
    match list(arguments):
        case ["--report", number, "--", *command] if number.isdecimal():
            return int(number), command
        case ["--", *command]:
            return None, command
        case _:
            return None, []


def _tie_to(parent: int) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork, where little is safe

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # we were killed between the fork and the line above
            os._exit(128 + signal.SIGKILL)

    return tie


def _hold(child: "subprocess.Popen[bytes]", signals: socket.socket) -> int:
    """Wait for the command's end, or bring it about; return its code as `Popen` counts it."""
    watched: list[int] = [sys.stdin.fileno(), signals.fileno()]
    kill_at: float | None = None
    while not _ended(child):
        now = time.monotonic()
        if kill_at is not None and now >= kill_at:
            _signal_group(child.pid, signal.SIGKILL)
        patience = _LOOK_SECONDS if kill_at is None else min(_LOOK_SECONDS, max(0.05, kill_at - now))
        readable, _, _ = select.select(watched, [], [], patience)
        stop = False
        if signals.fileno() in readable:
            stop = any(number in _STOP_SIGNALS for number in signals.recv(4096))
        if sys.stdin.fileno() in readable and not _more_input():
            watched.remove(sys.stdin.fileno())
            stop = True
        if stop and kill_at is None:
            kill_at = time.monotonic() + GRACE_SECONDS
            _signal_group(child.pid, signal.SIGTERM)
    # Before the command's process id is given back: until then nobody else's group can have it.
    _signal_group(child.pid, signal.SIGKILL)
    return child.wait()


def _more_input() -> bool:
    try:
        return bool(os.read(sys.stdin.fileno(), 4096))
    except OSError:
        return False


def _ended(child: "subprocess.Popen[bytes]") -> bool:
    if hasattr(os, "waitid"):
        # WNOWAIT leaves the process id taken until we have dealt with its group.
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return child.poll() is not None


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # already gone
        os.killpg(group, number)


def run() -> NoReturn:
    """Run as a program."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
