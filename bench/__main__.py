"""Measure beside peers: `python -m bench [evaluator] [endpoint] [library] [streams] [snapshot] [--write]`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Final

from bench.report import CannotMeasure, Part, between_marks

PARTS: Final = ("evaluator", "endpoint", "library", "streams", "snapshot")
_RESULTS: Final = Path(__file__).parent.parent / "docs" / "performance.md"
_ROUNDS: Final = 5


def main(arguments: Sequence[str]) -> int:
    """Run as a program; return 1 where a benchmark could not run, else 0, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}; all by default")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, metavar="N", help=f"rounds, {_ROUNDS} by default")
    parser.add_argument("--write", action="store_true", help=f"write docs/{_RESULTS.name} too, if every part could run")
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.part if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    if options.write and options.part:
        parser.error(f"{_RESULTS.name} holds every part; leave out the names of parts, or --write")
    if options.rounds < 1:
        parser.error("--rounds needs at least 1")
    try:
        return measure(options.part or PARTS, options.rounds, write=options.write)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def measure(parts: Sequence[str], rounds: int, *, write: bool) -> int:
    """Run parts in turn, printing each when it is there; return the exit code."""
    written = [f"{_machine(rounds)}\n"]
    failed = False
    for name in parts:
        began = monotonic()
        print(f"{name}: {rounds} rounds ...", file=sys.stderr, flush=True)
        run: Callable[[int], Part] = import_module(f"bench.{name}").run
        try:
            part = run(rounds)
        except CannotMeasure as problem:
            print(f"error: {name} could not be measured: {problem}", file=sys.stderr, flush=True)
            failed = True
            continue
        written.append(part.markdown())
        print(f"{written[-1]}\n({name} took {monotonic() - began:.0f} s)\n", flush=True)
    if write and failed:
        print(f"{_RESULTS.name} was left as it is, because a part is missing", file=sys.stderr)
    elif write:
        page = _RESULTS.read_text(encoding="utf-8")
        _RESULTS.write_text(between_marks(page, "\n".join(written)), encoding="utf-8")
        print(f"written to {_RESULTS}")
    return int(failed)


def _machine(rounds: int) -> str:
    load = os.getloadavg()[1]
    return (
        f"Measured on {datetime.now(UTC).date().isoformat()}: {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}; "
        f"medians of {rounds} rounds in which the contenders take turns. In the five minutes before, "
        f"{load:.1f} other processes were at work on average, and other work may have run beside it. "
        "Single times move with the machine; the ratios are what to compare."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
