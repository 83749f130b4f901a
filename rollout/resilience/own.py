"""The breakers of single callers and bodies: what only one of them brings about stands in nobody else's way.

Kept only for those that failed with something that their body may have brought about, and only for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from rollout.resilience.breaker import BreakerRules
from rollout.resilience.scope import LONGEST_REST, Scope
from rollout.resilience.source import Mark, Source

MOST: Final = 256
"""Callers and bodies that are kept, a few kilobytes each; if more fail, it is not one caller's doing."""

FURTHER: Final = 3
"""Further attempts without an answer of one caller or body: fewer than of all together, so that others keep some."""


class OwnScopes:
    """The breakers of single callers and bodies; not locked, its owner is.

    Args:
        rules: when breakers trip; the usual ones if None.
    """

    __slots__ = ("_kept", "_rules")

    def __init__(self, rules: BreakerRules | None) -> None:
        self._rules = rules
        self._kept: OrderedDict[tuple[str, int], Scope] = OrderedDict()

    def mark_of(self, source: Source | None) -> Mark | None:
        """Return a request's mark, None if nobody failed lately and nothing has to be looked up; needs no lock."""
        return source.mark() if source is not None and self._kept else None

    def known(self, mark: Mark | None, now: float) -> list[Scope]:
        """Return the breakers of a request's caller and body, as far as they failed before."""
        if mark is None:
            return []
        self._forget(now)
        return [kept for key in _keys(mark) if (kept := self._kept.get(key)) is not None]

    def of(self, mark: Mark, now: float) -> list[Scope]:
        """Return the breakers of a caller and a body that fail just now."""
        self._forget(now)
        found = []
        for key in _keys(mark):
            kept = self._kept.get(key)
            if kept is None:
                kept = self._kept[key] = Scope(self._rules, further=FURTHER)
                if len(self._kept) > MOST:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(key)
            kept.failed_at = now
            found.append(kept)
        return found

    def clear(self) -> None:
        """Forget all of them."""
        self._kept.clear()

    def _forget(self, now: float) -> None:
        while self._kept and now - next(iter(self._kept.values())).failed_at > LONGEST_REST:
            self._kept.popitem(last=False)


def _keys(mark: Mark) -> tuple[tuple[str, int], ...]:
    body = ("body", mark.body)
    return (body,) if mark.caller == mark.body else (("caller", mark.caller), body)
