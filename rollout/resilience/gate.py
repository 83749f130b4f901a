"""What one process knows of how its paths, models and account are, and whether an attempt may be made now.

Three breakers stand on an attempt's way: of the path, of the model on that path, and the account's quota. All of
it is shared by every request of the process, from any thread; the lock is held for a few comparisons and never
while anything is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from rollout.domain.failure import (
    MODEL_FAULTS,
    MODEL_LIVES,
    PATH_FAULTS,
    PATH_LIVES,
    PERHAPS_THE_MODEL,
    FailureKind,
)
from rollout.domain.flag import Path
from rollout.resilience.breaker import Breaker, BreakerRules, BreakerState, BreakerStatus
from rollout.resilience.budget import RetryBudget
from rollout.resilience.permit import BreakerLine, GateStatus, Permit, QuotaStore, Refusal
from rollout.resilience.quota import NO_LIMITS, Quota, QuotaLimits, QuotaRecord

MODEL_GONE_SECONDS: Final = 300.0
"""How long a model that the upstream says is gone is left alone; the watcher of the model list knows more by then."""

LONGEST_REST: Final = 300.0
"""Seconds a breaker stays open at the most, whatever an upstream says."""

SHORTEST_REST: Final = 1.0
"""Seconds a breaker stays open at the least, whatever an upstream says: every probe costs quota."""

PATH_RULES: Final[Mapping[Path, BreakerRules]] = {
    # a gateway that was started again should not be waited for much longer than that takes
    Path.LITELLM: BreakerRules(ratio=None, first_open=10.0, longest_open=120.0),
    # nothing comes after the direct path: it rests late, and just long enough for an outage not to eat the quota.
    # So no upstream's Retry-After makes it rest longer either: a probe is cheaper than minutes without an answer
    Path.OPENROUTER: BreakerRules(consecutive=8, ratio=None, first_open=5.0, longest_open=30.0),
}

SUSPECTS: Final[Mapping[Path, int]] = {Path.LITELLM: 2, Path.OPENROUTER: 3}
"""Models in a row that time out or answer 5xx before it is their path that is suspected. More where nothing comes
after: one bad model, asked by many at once, must not take the good ones with it."""


class Gate:
    """One process's breakers, retry budget and quota.

    Args:
        limits: the account's quota.
        clock: monotonic seconds.
        wall: seconds since the epoch.
        chance: a number in [0, 1).
        rules: when breakers trip; the usual ones where None.
        record: the quota as a run before this one left it.
        store: where the quota's record is kept.
    """

    def __init__(
        self,
        limits: QuotaLimits,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        chance: Callable[[], float],
        rules: BreakerRules | None = None,
        record: QuotaRecord | None = None,
        store: QuotaStore | None = None,
    ) -> None:
        self._clock, self._wall, self._chance = clock, wall, chance
        self._rules = rules or BreakerRules()
        self._lock = threading.Lock()
        self._quota = Quota(limits, record)
        self._budget = RetryBudget(clock())
        self._store = store
        self._paths = {path: Breaker(rules or PATH_RULES[path]) for path in Path}
        self._suspects: dict[Path, set[str]] = {path: set() for path in Path}
        self._models: dict[tuple[Path, str], Breaker] = {}
        self._not_free: frozenset[str] = frozenset()
        self._quarantined: frozenset[str] = frozenset()

    def begin(self) -> None:
        """Note a request of a caller; it earns a part of a retry."""
        with self._lock:
            self._budget.deposit()

    def may_retry(self) -> bool:
        """Take one retry out of the budget; say whether there was one."""
        with self._lock:
            return self._budget.withdraw(self._clock())

    def jitter(self) -> float:
        """Return a number in [0, 1)."""
        return self._chance()

    def admit(self, path: Path, model: str) -> Permit | Refusal:
        """Ask for leave to attempt a model on a path; granting it takes one request out of the quota."""
        with self._lock:
            now, wall = self._clock(), self._wall()
            whole, one = self._paths[path], self._models.get((path, model))
            refusal = self._in_the_way(path, model, whole, one, now, wall)
            if refusal is not None:
                return refusal
            self._quota.take(wall)
            if self._quota.limits != NO_LIMITS:  # else nobody asks how many there were
                self._keep()
            return Permit(path, model, whole.enter(now), 0 if one is None else one.enter(now), wall)

    def refusal(self, path: Path, model: str) -> Refusal | None:
        """Say what `admit` would refuse now, None where it would grant; asking takes nothing."""
        with self._lock:
            whole, one = self._paths[path], self._models.get((path, model))
            return self._in_the_way(path, model, whole, one, self._clock(), self._wall())

    def settle(
        self,
        permit: Permit,
        failure: FailureKind | None,
        retry_after: float | None = None,
        *,
        sent: bool = True,
    ) -> None:
        """Take a permit back with what came of it.

        Args:
            permit: what `admit` granted; settled or released once.
            failure: why it did not serve, None where it did.
            retry_after: seconds, as the upstream named it.
            sent: False where no byte of it can have reached an upstream; it is put back into the quota then.
        """
        with self._lock:
            one = self._models.get((permit.path, permit.model))
            if failure is not None:
                self._failed(permit, one, failure, retry_after, sent=sent)
                return
            self._suspects[permit.path].clear()
            self._paths[permit.path].succeeded(probe=permit.path_probe)
            if one is not None:
                one.succeeded(probe=permit.model_probe)

    def broke(self, path: Path, model: str, failure: FailureKind) -> None:
        """Note that an attempt failed after it was settled as a success: a stream that broke off."""
        with self._lock:
            now = self._clock()
            if failure in PATH_FAULTS:
                self._note_path(Permit(path, model), failure, None, now)
            if failure in MODEL_FAULTS:
                one = self._models.get((path, model))
                if one is None:
                    one = self._models[path, model] = Breaker(self._rules)
                one.failed(now, str(failure), probe=0, jitter=self._spread())

    def limit(self, limits: QuotaLimits) -> None:
        """Take other limits of the account; what was counted stays."""
        with self._lock:
            self._quota.limit(limits)

    def release(self, permit: Permit, *, sent: bool = True) -> None:
        """Take a permit back that came to nothing: the caller left, or it could not be sent at all (`sent` False)."""
        with self._lock:
            if not sent:
                self._quota.give_back(permit.at)
                self._keep()
            if permit.path_probe:
                self._paths[permit.path].leave(permit.path_probe)
            if permit.model_probe and (one := self._models.get((permit.path, permit.model))) is not None:
                one.leave(permit.model_probe)

    def charged(self, model: str) -> bool:
        """Note that an answer of a model cost money: it is not asked again; say whether that is news."""
        with self._lock:
            news = model not in self._quarantined
            self._quarantined |= {model}
            return news

    def forgive(self, models: Iterable[str]) -> None:
        """Lift the quarantine of models; a person decided it."""
        with self._lock:
            self._quarantined -= set(models)

    def not_free(self, models: Iterable[str]) -> None:
        """Take over which models the upstream's list shows as not free, or no longer shows."""
        with self._lock:
            self._not_free = frozenset(models)

    def told_of_use(self, *, used: int, per_day: int | None) -> None:
        """Take over the upstream's own count of today's requests."""
        with self._lock:
            self._quota.told_of_use(self._wall(), used=used, per_day=per_day)
            self._keep()

    def reset(self, which: str | None = None) -> list[str]:
        """Close breakers and forget caps; return what was reset.

        Args:
            which: a path, a model, `path/model`, or `quota`; None for everything.
        """
        with self._lock:
            done = []
            for path, whole in self._paths.items():
                if which in (None, str(path)) and _marked(whole):
                    whole.reset()
                    self._suspects[path].clear()
                    done.append(str(path))
            for (path, model), one in self._models.items():
                if which in (None, model, f"{path}/{model}") and _marked(one):
                    one.reset()
                    done.append(f"{path}/{model}")
            if which in (None, "quota") and self._quota.forget_caps(self._wall()):
                self._keep()
                done.append("quota")
            return done

    def status(self) -> GateStatus:
        """Return everything at this moment."""
        with self._lock:
            now = self._clock()
            lines = [BreakerLine(path, None, whole.status(now)) for path, whole in self._paths.items()]
            lines += [BreakerLine(*key, one.status(now)) for key, one in self._models.items() if _marked(one)]
            quota, retries = self._quota.status(self._wall()), self._budget.level(now)
            return GateStatus(tuple(lines), quota, tuple(sorted(self._quarantined)), retries)

    def rest(self, path: Path, why: str, seconds: float) -> None:
        """Leave a path that is known not to answer alone, for so many seconds at the most; `reset` ends that."""
        with self._lock:
            self._paths[path].trip(self._clock(), why, seconds)

    def _in_the_way(
        self, path: Path, model: str, whole: Breaker, one: Breaker | None, now: float, wall: float
    ) -> Refusal | None:
        if model in self._not_free or model in self._quarantined:
            why = "has cost money" if model in self._quarantined else "is not free today"
            return Refusal(FailureKind.NOT_FREE, LONGEST_REST, f"{model!r} {why}, so it is not asked")
        room = self._quota.look(wall)
        if room.until is not None:  # before the breakers: "in five seconds" would be untrue
            detail = "the account's free requests of today are used up"
            return Refusal(FailureKind.DAY_CAP, room.until - wall, detail)
        if not whole.allows(now):
            return _resting(FailureKind.UNREACHABLE, f"the path {path}", whole.status(now))
        if one is not None and not one.allows(now):
            return _resting(FailureKind.RESTING, f"{model!r} on {path}", one.status(now))
        if room.wait > 0:
            detail = "the account's free requests of this minute are used up"
            return Refusal(FailureKind.MINUTE_CAP, room.wait, detail)
        return None

    def _failed(
        self, permit: Permit, one: Breaker | None, failure: FailureKind, retry_after: float | None, *, sent: bool
    ) -> None:
        now = self._clock()
        self._correct_quota(permit, failure, retry_after, sent=sent)
        self._note_path(permit, failure, retry_after, now)
        if one is None and failure in MODEL_FAULTS:
            one = self._models[permit.path, permit.model] = Breaker(self._rules)
        if one is None:
            return
        if failure in MODEL_LIVES:
            one.succeeded(probe=permit.model_probe)
        elif failure in MODEL_FAULTS:
            why, rest = str(failure), _sane(retry_after)
            one.failed(now, why, probe=permit.model_probe, jitter=self._spread(), retry_after=rest)
        elif permit.model_probe:
            one.leave(permit.model_probe)
        if failure is FailureKind.MODEL_GONE:
            one.trip(now, "the upstream says that this model is gone", MODEL_GONE_SECONDS)

    def _correct_quota(self, permit: Permit, failure: FailureKind, retry_after: float | None, *, sent: bool) -> None:
        if not sent:
            self._quota.give_back(permit.at)
        if failure is FailureKind.MINUTE_CAP:
            self._quota.told_of_minute(self._wall(), retry_after if retry_after is not None else 60.0)
        elif failure is FailureKind.DAY_CAP:
            wall = self._wall()
            self._quota.told_of_day(wall, wall + retry_after if retry_after is not None else None)
        elif sent:
            return
        self._keep()

    def _note_path(self, permit: Permit, failure: FailureKind, retry_after: float | None, now: float) -> None:
        whole, suspects = self._paths[permit.path], self._suspects[permit.path]
        if failure in PATH_LIVES:
            suspects.clear()
            whole.succeeded(probe=permit.path_probe)
        elif failure in PATH_FAULTS:
            suspects.add(permit.model)
            trips = failure not in PERHAPS_THE_MODEL or len(suspects) >= SUSPECTS[permit.path]
            # a time named with what one model may have caused is that model's, and says nothing of the path
            why, probe, rest = str(failure), permit.path_probe, _sane(retry_after) if trips else None
            whole.failed(now, why, probe=probe, jitter=self._spread(), retry_after=rest, trips=trips)
        elif permit.path_probe:
            whole.leave(permit.path_probe)

    def _spread(self) -> float:
        return 0.5 + self._chance() / 2

    def _keep(self) -> None:
        if self._store is not None:
            self._store.save(self._quota.record())


def _sane(retry_after: float | None) -> float | None:
    # not a number, nothing or less than nothing: as if it had not been said
    if retry_after is None or not retry_after > 0:
        return None
    return min(max(retry_after, SHORTEST_REST), LONGEST_REST)


def _resting(kind: FailureKind, what: str, status: BreakerStatus) -> Refusal:
    wait = status.opens_in or 1.0  # a probe is on its way: soon
    return Refusal(kind, wait, f"{what} is left alone for {wait:.0f} s more ({status.why or 'it is being probed'})")


def _marked(breaker: Breaker) -> bool:
    return breaker.state is not BreakerState.CLOSED or breaker.failures > 0
