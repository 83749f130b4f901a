"""The terminal. The entry point reads the process's environment once and hands it on as a mapping."""

from __future__ import annotations

import contextlib
import io
import os
import sys

_MISSING = "rollout: the command line needs more than the client: pip install 'llm-rollout[server]'"
_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main() -> int:
    """Run the command line of this process; return the exit code: 0 done, 1 refused or failed, 2 usage."""
    try:
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
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _prepare_streams() -> None:
    from rollout.logs import set_up_logging

    for stream in (sys.stdout, sys.stderr):
        # what the terminal cannot show is escaped; it never ends a command halfway
        with contextlib.suppress(io.UnsupportedOperation):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    if sys.stderr is not None:
        set_up_logging(json=False, stream=sys.stderr, level="WARNING")
