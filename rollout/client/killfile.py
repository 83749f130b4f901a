"""The kill switch that needs no network and no restart: while a file exists, this process is killed.

    touch data/kill     all direct within half a second
    rm data/kill        back to what was decided before

The file is looked for when somebody is evaluated, at most every 0.2 s, so no thread watches it. A path that
cannot be looked at counts as killed: whoever made it unreadable cannot have meant "carry on". So does a folder, a
device or a pipe in its place, and a place that depends on a working folder which is gone.
"""

from __future__ import annotations

import logging
import os
import stat
from math import inf
from pathlib import Path
from typing import Final

_log: Final = logging.getLogger("rollout.client")

EVERY: Final = 0.2
"""Seconds between two looks; with the evaluation's own time well within half a second."""


class KillFile:
    """A file whose existence kills; a dangling link counts, its content does not matter.

    Args:
        path: where it would lie, a relative one taken from the folder the process is in now; None for nowhere.
        named: whether a person named this path; its folder should be there then, and it is a problem if it is not.
    """

    __slots__ = ("_lost", "_named", "_path", "due", "exists", "looked", "problem")

    exists: bool
    """What the last look saw."""
    problem: str | None
    """What is wrong with the path, None if nothing is."""
    looked: float
    """When the last look was; a clock before it was set back, and a look is due too."""
    due: float
    """When the next look is due. Whoever is in a hurry compares `looked <= now < due` before calling `look`."""

    def __init__(self, path: Path | None, *, named: bool = False) -> None:
        self._path, self._named, self._lost = path, named, False
        if path is not None:
            try:
                self._path = path.absolute()
            except OSError:  # the working folder itself is gone
                self._lost = True
        self.looked, self.due = (-inf, inf) if path is None else (inf, -inf)
        self.exists, self.problem = False, None

    def look(self, now: float) -> bool:
        """Tell whether the file exists, looking at most every `EVERY` seconds; never raises.

        Args:
            now: seconds of any clock, always the same one; it may be set forward and back.
        """
        if self._path is None or self.looked <= now < self.due:
            return self.exists
        self.looked, self.due = now, now + EVERY  # first, so that of many threads hardly more than one looks
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            if self._named and not self._lost and not os.path.isdir(self._path.parent):  # noqa: PTH112 - it never raises
                # no doubt about a kill: nobody can have made a file there
                self.exists = False
                self._say(
                    f"the folder of the kill file {str(self._path)!r} is not there, so nobody can make the file; make "
                    "the folder, or correct ROLLOUT_KILL_FILE"
                )
            else:
                self._saw("the working folder is gone" if self._lost else None, exists=False)
        except (OSError, ValueError) as error:
            self._saw(getattr(error, "strerror", None) or str(error), exists=True)
        else:
            self._saw(_doubt(found.st_mode), exists=True)
        return self.exists

    def _saw(self, doubt: str | None, *, exists: bool) -> None:
        problem = doubt and (
            f"the kill file {str(self._path)!r} cannot be looked at ({doubt}): until that is put right this "
            "process is killed, all goes direct"
        )
        self.exists = exists or doubt is not None
        self._say(problem)

    def _say(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem


def _doubt(mode: int) -> str | None:
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        return None
    return "it is a folder" if stat.S_ISDIR(mode) else "it is a device, a pipe or a socket"
