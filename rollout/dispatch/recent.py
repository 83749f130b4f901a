"""What became of the last requests of this process, path by path: counts, times, and when each was last seen.

An observer of exchanges that the pages and the preflight read. It holds a bounded number of requests and nothing
of what they said; noting one costs a few hundred nanoseconds.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from rollout.dispatch.decision import Exchange
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path

WINDOW_SECONDS: Final = 300.0
"""How far back a summary looks."""

KEPT: Final = 500
"""Requests that are kept of each path; a busy process's window is shorter than `WINDOW_SECONDS` therefore."""

ENOUGH: Final = 10
"""Requests below which a rate or a median says nothing."""

MOST_FAILING: Final = 0.10
"""The share of requests that may fail or be rescued; the plan goes back above 10 %."""

MOST_SLOWER: Final = 0.5
"""Seconds that answers may take longer; the plan goes back at 500 ms."""

IN_A_ROW: Final = 3
"""Requests in a row that end in an error before a path with few requests counts as failing."""

_LITELLM: Final = Path.LITELLM  # asked for in each request, where an enumeration's lookup counts

_OF_THE_CALLER: Final = frozenset({FailureKind.CANCELLED, FailureKind.REJECTED})
"""Ends of a request that say nothing of a path."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The last failure of an attempt on a path: when, in seconds since the epoch, and why."""

    at: float
    why: FailureKind


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the requests that the decision sent to one path.

    Attributes:
        requests: how many there were in the window.
        rescued: those that the direct path answered after the gateway had failed.
        failed: those that nobody answered.
        seconds: the median time to the answer (a stream: to its first token); None without an answer.
        lately: the same of the last `ENOUGH` answers, None with too few of them.
        before: the same of those before, None with too few of them.
        errors_in_a_row: how many of the last requests nobody answered.
        well_in_a_row: how many of the last requests their own path answered.
        last_failure: the last attempt on this path that failed, whatever request it belonged to.
        last_served: when an attempt on this path last served, in seconds since the epoch.
    """

    requests: int = 0
    rescued: int = 0
    failed: int = 0
    seconds: float | None = None
    lately: float | None = None
    before: float | None = None
    errors_in_a_row: int = 0
    well_in_a_row: int = 0
    last_failure: Seen | None = None
    last_served: float | None = None

    @property
    def is_enough(self) -> bool:
        """Whether rates and times mean something."""
        return self.requests >= ENOUGH

    @property
    def is_over_the_limit(self) -> bool:
        """Whether too many of its requests failed or had to be rescued."""
        unwell = self.failed + self.rescued
        return self.errors_in_a_row >= IN_A_ROW or (self.is_enough and unwell > self.requests * MOST_FAILING)

    @property
    def is_unwell(self) -> bool:
        """Whether that goes on: the window remembers trouble for minutes after the path has recovered."""
        return self.is_over_the_limit and self.well_in_a_row < ENOUGH


NOTHING: Final = Summary()


class _Lane:
    """One path's requests: when (seconds since the epoch), how long, whether failed, whether rescued."""

    __slots__ = ("failure", "noted", "served")

    def __init__(self) -> None:
        # appending to a deque is atomic, so no request waits for another one here
        self.noted: deque[tuple[float, float, bool, bool]] = deque(maxlen=KEPT)
        self.failure: Seen | None = None
        self.served: float | None = None


class Recent:
    """Notes exchanges, from any thread.

    Args:
        wall: seconds since the epoch.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._gateway, self._direct = _Lane(), _Lane()

    def note(self, exchange: Exchange) -> None:
        """Note what became of a request."""
        decision, failure, now = exchange.decision, exchange.failure, self._wall()
        for attempt in decision.attempts:
            lane = self._lane(attempt.path)
            if attempt.failure is None:
                lane.served = now
            elif attempt.failure not in _OF_THE_CALLER:
                lane.failure = Seen(now, attempt.failure)
        if exchange.wrapped or (failure is not None and failure in _OF_THE_CALLER):
            return
        rescued = failure is None and decision.rescued_from is not None
        self._lane(decision.path).noted.append((now, decision.latency, failure is not None, rescued))

    def summary(self, path: Path) -> Summary:
        """Say what became of a path's requests in the last minutes."""
        since, lane = self._wall() - WINDOW_SECONDS, self._lane(path)
        noted = [one for one in lane.noted.copy() if one[0] >= since]
        times = [seconds for _, seconds, failed, _ in noted if not failed]
        lately, before = times[-ENOUGH:], times[:-ENOUGH]
        return Summary(
            requests=len(noted),
            rescued=sum(rescued for *_, rescued in noted),
            failed=sum(failed for _, _, failed, _ in noted),
            seconds=statistics.median(times) if times else None,
            lately=statistics.median(lately) if len(lately) >= ENOUGH else None,
            before=statistics.median(before) if len(before) >= ENOUGH else None,
            errors_in_a_row=_in_a_row(failed for _, _, failed, _ in reversed(noted)),
            well_in_a_row=_in_a_row(not (failed or rescued) for _, _, failed, rescued in reversed(noted)),
            last_failure=lane.failure,
            last_served=lane.served,
        )

    def _lane(self, path: Path) -> _Lane:
        return self._gateway if path is _LITELLM else self._direct  # a mapping would hash an enumeration each time


def _in_a_row(each: Iterable[bool]) -> int:
    return sum(1 for _ in takewhile(bool, each))
