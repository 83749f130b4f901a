"""The account's free quota: so many requests a minute, so many a day, one bucket for both paths.

Every attempt counts, failed ones and probes too, so one is reserved before anything is sent. What the upstream
says of its own count corrects ours. The day ends at 00:00 UTC. Wall-clock seconds since the epoch everywhere:
both limits are the upstream's, kept by its clock.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DAY_SECONDS: Final = 86_400
MINUTE_SECONDS: Final = 60.0

SHORTEST_CAP: Final = 1.0
"""Seconds; an upstream that refuses and names no time, or one that is over, is not asked again at once."""

FURTHER_SHARE: Final = 0.5
"""The part of the minute that further attempts may use (other models, the other path, retries); the rest is kept for
first attempts. Half: if every request needs one further attempt nobody misses the other half, and if all of them need
more, as many requests are begun as are continued."""

TURNING_SECONDS: Final = 120.0
"""How long after midnight what the upstream says may still be about yesterday: its count is cached for a minute."""


@dataclass(frozen=True, slots=True)
class QuotaLimits:
    """Requests a minute and a day; 0 is no limit, None is not known."""

    per_minute: int = 20
    per_day: int | None = None


NO_LIMITS: Final = QuotaLimits(0, 0)
"""For an upstream that counts nothing."""


class Cap(StrEnum):
    """Which of the two limits nothing gets past."""

    MINUTE = "minute"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class QuotaStatus:
    """The quota at one moment.

    `used_this_minute` is None where the minute has no limit: then nobody counts by the minute. `left_today` and
    `per_day` are None where the day has no limit or it is not known. `resets_at` is the next 00:00 UTC. Until
    `blocked_until` nothing is sent, because of the limit in `blocked_by`: the upstream named a cap, or the day is used
    up by our own count. A minute that is full by our own count is none: room in it comes with every second. Both
    moments are in seconds since the epoch.
    """

    used_this_minute: int | None
    per_minute: int
    used_today: int
    per_day: int | None
    left_today: int | None
    resets_at: float
    blocked_until: float | None
    blocked_by: Cap | None


@dataclass(frozen=True, slots=True)
class QuotaRecord:
    """What has to outlive a restart: the day (its number since the epoch), its count, the last minute's moments."""

    day: int
    used: int
    moments: tuple[float, ...] = ()
    blocked_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Reserved:
    """A reservation's answer: `wait` seconds until there is room in the minute (0: it was taken).

    `until` is when the day's cap ends, in seconds since the epoch; None where the day is not the problem. `kept` says
    that the room there is in the minute is kept for first attempts.
    """

    wait: float = 0.0
    until: float | None = None
    kept: bool = False

    @property
    def taken(self) -> bool:
        """Whether the request may be sent."""
        return self.until is None and self.wait <= 0


class Quota:
    """The account's quota in one process; not locked, its owner is."""

    __slots__ = ("_blocked_until", "_day", "_further", "_limits", "_minute_until", "_moments", "_used")

    def __init__(self, limits: QuotaLimits, record: QuotaRecord | None = None) -> None:
        self._limits = limits
        self._day, self._used = (record.day, record.used) if record else (0, 0)
        self._moments: deque[float] = deque(record.moments if record else ())
        self._further: deque[float] = deque()  # those of the moments that were further attempts
        self._blocked_until = record.blocked_until if record else 0.0
        self._minute_until = 0.0

    @property
    def limits(self) -> QuotaLimits:
        """What counts now."""
        return self._limits

    def limit(self, limits: QuotaLimits) -> None:
        """Take other limits."""
        self._limits = limits

    def reserve(self, wall: float) -> Reserved:
        """Take one request out of both buckets, or say what is in the way; nothing is taken then."""
        answer = self.look(wall)
        if answer.taken:
            self.take(wall)
        return answer

    def look(self, wall: float, *, further: bool = False) -> Reserved:
        """Say what is in the way of one request; asking takes nothing.

        Args:
            wall: now, in seconds since the epoch.
            further: whether the same caller's request was sent before; then only a part of the minute is its.
        """
        self._turn(wall)
        if wall < self._blocked_until:
            return Reserved(until=min(self._blocked_until, _midnight(wall)))
        per_day = self._limits.per_day
        if per_day and self._used >= per_day:
            return Reserved(until=_midnight(wall))
        wait = self._minute_until - wall
        per_minute = self._limits.per_minute
        if per_minute and len(self._moments) >= per_minute:
            wait = max(wait, self._moments[len(self._moments) - per_minute] + MINUTE_SECONDS - wall)
        if further and per_minute and len(self._further) >= (share := max(1, int(per_minute * FURTHER_SHARE))):
            later = self._further[len(self._further) - share] + MINUTE_SECONDS - wall
            if later > max(0.0, wait):
                return Reserved(wait=later, kept=True)
        return Reserved(wait=wait) if wait > 0 else _ROOM

    def take(self, wall: float, *, further: bool = False) -> None:
        """Take one request out of both buckets; `look` found room at that moment."""
        if self._limits.per_minute:
            self._moments.append(wall)
            if further:
                self._further.append(wall)
        self._used += 1

    def give_back(self, moment: float, *, further: bool = False) -> None:
        """Put back what was taken at a moment: it was never sent."""
        if int(moment // DAY_SECONDS) == self._day:
            self._used = max(0, self._used - 1)
        for moments in (self._moments, self._further) if further else (self._moments,):
            with suppress(ValueError):  # older than a minute by now
                moments.remove(moment)

    def told_of_minute(self, wall: float, seconds: float) -> None:
        """Note that the upstream refused for the minute, for so many seconds."""
        self._minute_until = max(self._minute_until, wall + min(max(seconds, SHORTEST_CAP), MINUTE_SECONDS))

    def told_of_day(self, wall: float, until: float | None) -> None:
        """Note that the upstream refused for the day, until a moment it may have named."""
        midnight, since = _midnight(wall), wall % DAY_SECONDS
        if until is None or not wall < until <= midnight:
            # an absurd moment is none: no daily cap lasts longer than its day; right after midnight it is yesterday's
            until = wall - since + TURNING_SECONDS if since < TURNING_SECONDS else midnight
        self._blocked_until = until

    def told_of_use(self, wall: float, *, used: int, per_day: int | None) -> None:
        """Take over the upstream's own count where it is ahead of ours, and its limit."""
        self._turn(wall)
        if wall % DAY_SECONDS >= TURNING_SECONDS:
            self._used = max(self._used, used)
        if per_day is not None:
            self._limits = QuotaLimits(self._limits.per_minute, per_day)

    def forget_caps(self, wall: float) -> bool:
        """Forget what the upstream said about caps, an operator knows better; say whether there was one."""
        there_was = self._ends(wall)[1] is not None
        self._blocked_until = self._minute_until = 0.0
        if self._is_used_up():
            self._used = 0
        return there_was

    def record(self) -> QuotaRecord:
        """Return what has to outlive a restart."""
        return QuotaRecord(self._day, self._used, tuple(self._moments), self._blocked_until)

    def status(self, wall: float) -> QuotaStatus:
        """Return what it is like now."""
        until, cap = self._ends(wall)
        per_day = self._limits.per_day or None
        return QuotaStatus(
            used_this_minute=len(self._moments) if self._limits.per_minute else None,
            per_minute=self._limits.per_minute,
            used_today=self._used,
            per_day=per_day,
            left_today=None if per_day is None else max(0, per_day - self._used),
            resets_at=_midnight(wall),
            blocked_until=until,
            blocked_by=cap,
        )

    def _is_used_up(self) -> bool:
        per_day = self._limits.per_day
        return bool(per_day) and self._used >= (per_day or 0)

    def _ends(self, wall: float) -> tuple[float | None, Cap | None]:
        """Return until when nothing is sent and which cap ends last then, None where nothing is in the way."""
        self._turn(wall)
        midnight = _midnight(wall)
        day = midnight if self._is_used_up() else min(self._blocked_until, midnight)
        until, cap = max((day, Cap.DAY), (self._minute_until, Cap.MINUTE))
        return (until, cap) if wall < until else (None, None)

    def _turn(self, wall: float) -> None:
        """Begin a new day where one has begun; drop what is older than a minute; bound what a jump left behind."""
        day = int(wall // DAY_SECONDS)
        if day > self._day:  # a clock that went back begins no new day: it would be counted twice
            self._day, self._used = day, 0
        elif day < self._day - 1:  # it was days ahead and was put right: what was counted counts for today
            self._day = day
        if self._blocked_until > (day + 2) * DAY_SECONDS:
            self._blocked_until = _midnight(wall)
        if self._minute_until > wall + MINUTE_SECONDS:
            self._minute_until = wall + MINUTE_SECONDS
        if self._moments:
            self._moments = _of_this_minute(self._moments, wall)
            self._further = _of_this_minute(self._further, wall)


_ROOM: Final = Reserved()


def _of_this_minute(moments: deque[float], wall: float) -> deque[float]:
    if moments and moments[-1] > wall:
        # the clock went back: as if they were sent just now, so that nothing is granted twice or refused for long
        moments = deque(min(moment, wall) for moment in moments)
    while moments and wall - moments[0] >= MINUTE_SECONDS:
        moments.popleft()
    return moments


def _midnight(wall: float) -> float:
    return float((int(wall // DAY_SECONDS) + 1) * DAY_SECONDS)
