"""The retry budget: retries stay under a share of requests, with a small floor for times of little traffic.

A retry asks a model again that the same request has asked on the same path. Another model, or the other path, is none.

A tenth of the requests may be retried (Google's SRE book, chapter 21, "Handling Overload": growth by 1.1
instead of 3 when everything fails). The floor earns one retry every ten seconds, because at twenty requests a
minute a tenth alone would be one retry in half a minute; it saves up two, so that a request that comes alone can
make all of its attempts at the only model.
"""

from __future__ import annotations

from typing import Final

RATIO: Final = 0.1
FLOOR_PER_SECOND: Final = 0.1
FLOOR_MOST: Final = 2.0
MOST: Final = 10.0


class RetryBudget:
    """A bucket of retries; not locked, its owner is. Times are monotonic seconds.

    Args:
        now: the moment it begins.
        ratio: retries earned by each request.
        floor: retries earned by each second, `FLOOR_MOST` at the most while nothing is asked.
        most: retries that can be saved up.
    """

    __slots__ = ("_earned_at", "_floor", "_most", "_ratio", "_tokens")

    def __init__(
        self, now: float, *, ratio: float = RATIO, floor: float = FLOOR_PER_SECOND, most: float = MOST
    ) -> None:
        self._ratio, self._floor, self._most = ratio, floor, most
        self._tokens = min(FLOOR_MOST, most)
        self._earned_at = now

    def deposit(self) -> None:
        """Note a request: it earns a part of a retry."""
        if self._tokens < self._most:
            self._tokens = min(self._most, self._tokens + self._ratio)

    def level(self, now: float) -> float:
        """Return how many retries are in it; below 1 nothing is tried again."""
        if self._tokens >= FLOOR_MOST:
            return self._tokens
        passed = max(0.0, now - self._earned_at)
        return min(FLOOR_MOST, self._most, self._tokens + passed * self._floor)

    def withdraw(self, now: float) -> bool:
        """Take one retry out; say whether there was one."""
        self._tokens = self.level(now)
        self._earned_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
