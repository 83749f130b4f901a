"""Further attempts without an answer: a few find out whether anything answers, so that an outage is not multiplied.

The first attempt of a request is always its own. Everything after it (another model, the other path, the same model
again) is worth sending as long as something answers. If nothing has answered since a few attempts failed, only so many
further attempts are let through; the next ones wait for what comes of these. One answer, and all go on. If all of
these came to nothing, a model that was not among them is still asked, one at a time: it may be the one that answers.
"""

from __future__ import annotations

from math import inf
from typing import Final

from rollout.domain.flag import Path

HARMLESS: Final = 2
"""Failures in a row that hold nothing up: they happen all day."""

FORGOTTEN_SECONDS: Final = 60.0
"""How long failures in a row are remembered; whatever they showed may be over by then."""

ASK_AGAIN_SECONDS: Final = 0.1
"""How soon one that waits asks again: a fraction of what any answer takes."""


class Run:
    """Failures in a row, on whichever path, and the further attempts since the last answer; not locked.

    Args:
        most: further attempts that are let through without an answer.
    """

    __slots__ = ("_failed_at", "_further", "_most", "_out", "_row", "_tried")

    def __init__(self, most: int) -> None:
        self._most = most
        self._row = self._further = self._out = 0
        self._tried: set[tuple[Path, str]] = set()
        self._failed_at = -inf

    def holds(self, path: Path, model: str, now: float) -> bool:
        """Tell whether a further attempt is held up now."""
        if self._row < HARMLESS or self._further < self._most:
            return False
        if now - self._failed_at < FORGOTTEN_SECONDS:
            return self._out > 0 or (path, model) in self._tried
        self.answered()
        return False

    @property
    def is_waiting(self) -> bool:
        """Whether a further attempt is on its way, so that more is known soon."""
        return self._out > 0

    def enter(self, path: Path, model: str) -> None:
        """Let a further attempt through."""
        self._tried.add((path, model))
        self._further += 1
        self._out += 1

    def leave(self) -> None:
        """Note that a further attempt came back, with whatever."""
        self._out = max(0, self._out - 1)

    def failed(self, now: float) -> None:
        """Note an attempt without an answer."""
        self._row += 1
        self._failed_at = now

    def answered(self) -> None:
        """Note an answer."""
        if self._row or self._further:
            self._row = self._further = 0
            self._tried.clear()
