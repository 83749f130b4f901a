"""A circuit breaker: trips on failures in a row or on a bad share of the last few, and lets one probe through.

              TRIPPED               COOLED                PROBE_OK
    CLOSED ------------> OPEN ------------> HALF_OPEN ------------> CLOSED
                          ^                     |
                          +---- PROBE_FAILED ---+        RESET: from anywhere to CLOSED
                                                         PRESSED_OK: from OPEN or HALF_OPEN to CLOSED

Traffic on free models is low, so windows count calls, not seconds: percentages over a minute with a minimum of
a hundred calls would never trip. Exactly one caller probes at a time; the others fail fast meanwhile. A probe that
never comes back is given up after a while, so that a lost one does not keep a breaker open for good. Probes are
numbered: one that was given up, or that a reset overtook, comes back as a call like any other.

A failure that the body of one request may have brought about carries a mark of who asked and what. Failures with the
same mark count for half of what trips a breaker, however many there are: so one caller, or one body, never opens a
breaker that others share, and two are enough.

A call that was let through although the breaker is open (`pressed`) closes it if it goes well: the rest was wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rollout.resilience.source import Mark


class BreakerState(StrEnum):
    """Whether calls pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerEvent(StrEnum):
    """What can happen to a breaker."""

    TRIPPED = "tripped"
    COOLED = "cooled"
    PROBE_OK = "probe_ok"
    PROBE_FAILED = "probe_failed"
    PRESSED_OK = "pressed_ok"
    RESET = "reset"


_S, _E = BreakerState, BreakerEvent
TRANSITIONS: Final[Mapping[BreakerState, Mapping[BreakerEvent, BreakerState]]] = {
    _S.CLOSED: {_E.TRIPPED: _S.OPEN, _E.RESET: _S.CLOSED},
    _S.OPEN: {_E.TRIPPED: _S.OPEN, _E.COOLED: _S.HALF_OPEN, _E.PRESSED_OK: _S.CLOSED, _E.RESET: _S.CLOSED},
    _S.HALF_OPEN: {
        _E.TRIPPED: _S.OPEN,
        _E.PROBE_OK: _S.CLOSED,
        _E.PROBE_FAILED: _S.OPEN,
        _E.PRESSED_OK: _S.CLOSED,
        _E.RESET: _S.CLOSED,
    },
}
"""What is not in the table changes nothing."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker trips, and for how long.

    `consecutive` failures in a row trip it, or `ratio` of the last `window` calls once there are `minimum` (None:
    only failures in a row). A model that fails every other time is still worth asking: resting it would leave its
    share of answers to nobody. It opens for `first_open` seconds, twice as long after each failed probe,
    `longest_open` at the most, whatever time an upstream names. A probe that nothing was heard of for
    `probe_seconds` is given up: longer than any attempt takes.
    """

    consecutive: int = 4
    window: int = 20
    minimum: int = 10
    ratio: float | None = 0.8
    first_open: float = 30.0
    longest_open: float = 300.0
    probe_seconds: float = 300.0


USUAL: Final = BreakerRules()


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """A breaker at one moment. `opens_in` is in seconds until it lets a probe through, None where it is closed."""

    state: BreakerState
    opens_in: float | None
    failures: int
    why: str | None


_CLOSED: Final = BreakerState.CLOSED  # asked for several times in each request, where an enumeration's lookup counts


class Breaker:
    """One breaker; not locked, its owner is. Times are monotonic seconds."""

    __slots__ = (
        "_bodies",
        "_callers",
        "_failures",
        "_probe",
        "_probe_ends",
        "_probes",
        "_recent",
        "_rules",
        "_sure",
        "_times_open",
        "_until",
        "_why",
        "state",
    )

    def __init__(self, rules: BreakerRules = USUAL) -> None:
        self._rules = rules
        self._recent: deque[bool] = deque(maxlen=rules.window)
        self._failures = self._sure = 0
        self._callers: dict[int, int] = {}  # how often each of them failed in this row
        self._bodies: dict[int, int] = {}
        self._times_open = 0
        self._until = self._probe_ends = 0.0
        self._why: str | None = None
        self._probes = self._probe = 0  # how many there were, and the number of the one that is out (0: none)
        self.state = BreakerState.CLOSED

    @property
    def failures(self) -> int:
        """How many calls in a row went badly."""
        return self._failures

    def allows(self, now: float) -> bool:
        """Tell whether a call may pass now; asking changes nothing."""
        if self.state is _CLOSED:
            return True
        return now >= self._until and (not self._probe or now >= self._probe_ends)

    def enter(self, now: float) -> int:
        """Let a call pass that `allows` allowed; return its number if it is the probe, 0 if it is not."""
        if self.state is _CLOSED:
            return 0
        if now >= self._until:
            self._happened(BreakerEvent.COOLED)
        self._probes += 1
        self._probe, self._probe_ends = self._probes, now + self._rules.probe_seconds
        return self._probe

    def leave(self, probe: int) -> None:
        """Note that a probe came to nothing, neither well nor badly; the next caller probes."""
        if probe == self._probe:
            self._probe = 0

    def succeeded(self, *, probe: int, pressed: bool = False) -> None:
        """Note a call that went well; `probe` is the number it entered with, `pressed` if it was let through anyway."""
        if self._failures:
            self._begin_row()
        if self._rules.ratio is not None:
            self._recent.append(True)
        if probe and probe == self._probe:  # else it was reset or tripped, or given up, while the probe was out
            self._closed(BreakerEvent.PROBE_OK)
        elif pressed and self.state is not _CLOSED:
            self._closed(BreakerEvent.PRESSED_OK)

    def failed(
        self,
        now: float,
        why: str,
        *,
        probe: int,
        jitter: float = 1.0,
        retry_after: float | None = None,
        trips: bool = True,
        mark: Mark | None = None,
        pressed: bool = False,
    ) -> None:
        """Note a call that went badly.

        Args:
            now: when.
            why: a sentence for people.
            probe: the number it entered with.
            jitter: a number in [0.5, 1]; part of the opening time that is used, so that many do not probe at once.
            retry_after: seconds the upstream named, used instead of our own where given, `longest_open` at the most.
            trips: whether this one may trip it; it is counted anyway. The probe's failure always does.
            mark: who asked and what, if the request may have brought it about; None counts whoever asked.
            pressed: whether it was let through although the breaker is open; it then rests for as long as at first.
        """
        self._failures += 1
        self._count(mark)
        self._recent.append(False)
        if probe and probe == self._probe:
            self._probe = 0
            self._open(now, why, BreakerEvent.PROBE_FAILED, jitter, retry_after)
        elif trips and self.state is _CLOSED and self._is_too_much(alone=mark is not None):
            self._open(now, why, BreakerEvent.TRIPPED, jitter, retry_after)
        elif pressed and self.state is BreakerState.OPEN:
            self._until = max(self._until, now + self._rules.first_open * jitter)

    def trip(self, now: float, why: str, seconds: float) -> None:
        """Open at once for so many seconds, whatever was counted."""
        self._probe = 0
        self._why, self._until = why, max(self._until, now + seconds)
        self._happened(BreakerEvent.TRIPPED)

    def reset(self) -> None:
        """Close, and forget."""
        self._until = 0.0
        self._closed(BreakerEvent.RESET)

    def status(self, now: float) -> BreakerStatus:
        """Return what it is like now."""
        waiting = self.state is not _CLOSED
        return BreakerStatus(self.state, max(0.0, self._until - now) if waiting else None, self._failures, self._why)

    def _begin_row(self) -> None:
        self._failures = self._sure = 0
        self._callers.clear()
        self._bodies.clear()

    def _count(self, mark: Mark | None) -> None:
        if mark is None:
            self._sure += 1
            return
        for counts, key in ((self._callers, mark.caller), (self._bodies, mark.body)):
            if key in counts or len(counts) < self._rules.consecutive:  # more of them change nothing
                counts[key] = counts.get(key, 0) + 1

    def _counted(self) -> int:
        """Return how many failures of the row count: of one caller, or one body, at most half of what trips it."""
        most = max(1, self._rules.consecutive // 2)
        of_callers = sum(min(most, count) for count in self._callers.values())
        return self._sure + min(of_callers, sum(min(most, count) for count in self._bodies.values()))

    def _is_too_much(self, *, alone: bool) -> bool:
        rules, seen = self._rules, len(self._recent)
        if self._failures >= rules.consecutive and self._counted() >= rules.consecutive:
            return True
        if alone and min(len(self._callers), len(self._bodies)) + self._sure < 2:
            return False
        return rules.ratio is not None and seen >= rules.minimum and seen - sum(self._recent) >= rules.ratio * seen

    def _closed(self, event: BreakerEvent) -> None:
        self._begin_row()
        self._recent.clear()
        self._times_open = self._probe = 0
        self._why = None
        self._happened(event)

    def _open(self, now: float, why: str, event: BreakerEvent, jitter: float, retry_after: float | None) -> None:
        rules = self._rules
        ours = min(rules.longest_open, rules.first_open * 2.0 ** min(self._times_open, 16)) * jitter
        self._times_open += 1
        self._why, self._until = why, now + (ours if retry_after is None else min(rules.longest_open, retry_after))
        self._happened(event)

    def _happened(self, event: BreakerEvent) -> None:
        self.state = TRANSITIONS[self.state].get(event, self.state)
