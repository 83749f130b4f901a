"""The terminal. The entry point reads the process's environment once and hands it on as a mapping."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from types import FrameType

_MISSING = "rollout: the command line needs more than the client: pip install 'llm-rollout[server]'"
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main() -> int:
    """Run the command line of this process; return the exit code: 0 done, 1 refused or failed, 2 usage."""
    _open_what_is_closed()
    try:
        _end_on_sigterm()
        try:
            from rollout.cli.root import rollout
        except ModuleNotFoundError as error:
            if error.name != "click":
                raise
            print(_MISSING, file=sys.stderr)
            return 1
        _prepare_streams()
        rollout.main(sys.argv[1:], "rollout", obj=os.environ)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit as end:
        return _flushed(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)
    return _flushed(0)


def _flushed(code: int) -> int:
    """Write what is left to standard output; a reader that left is nothing to speak of."""
    try:
        sys.stdout.flush()
    except OSError:
        # Python writes the rest once more at its end, and would complain then
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _open_what_is_closed() -> None:
    """Give a process that was started without one of its three streams an empty one.

    Else the next file that is opened gets its number, a database perhaps, and whatever is said there goes into it.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            stream = os.fdopen(number, "r" if number == 0 else "w", closefd=False)
            setattr(sys, name, stream)


def _end_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does: as process 1 of a container it would not end it at all."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _ended)


def _ended(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # as shells count


def _prepare_streams() -> None:
    from rollout.logs import set_up_logging

    for stream in (sys.stdout, sys.stderr):
        # what the terminal cannot show is escaped; it never ends a command halfway
        with contextlib.suppress(io.UnsupportedOperation):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    if sys.stderr is not None:
        set_up_logging(json=False, stream=sys.stderr, level="WARNING")
