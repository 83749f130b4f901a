"""What one process knows of how its paths, models and account are, and whether an attempt may be made now.

In an attempt's way stand the breakers that all requests share (`scope.py`), those of its own caller and body if these
failed before (`own.py`), and the account's quota. If it is not its request's first attempt, something must have
answered lately (`run.py`), and it leaves half of the account's minute to the first attempts of others. All of it is
shared by every request of the process, from any thread; the lock is held for a few comparisons and never while anything
is sent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

from rollout.domain.failure import LEADS_ON, PERHAPS_THE_BODY, FailureKind
from rollout.domain.flag import Path
from rollout.resilience.breaker import BreakerRules
from rollout.resilience.budget import RetryBudget
from rollout.resilience.own import OwnScopes
from rollout.resilience.permit import ALONE, NO_PROBES, Asking, GateStatus, Permit, Probes, QuotaStore, Refusal
from rollout.resilience.quota import NO_LIMITS, Quota, QuotaLimits, QuotaRecord
from rollout.resilience.run import ASK_AGAIN_SECONDS
from rollout.resilience.scope import LONGEST_REST, Failed, Scope
from rollout.resilience.source import Mark, Source

FURTHER: Final = 4
"""Further attempts, of all requests together, that may be without an answer at once. With it sixty requests that meet
an outage all at once stay at 1.2 attempts each: these, and one for each model on each path that is not among them."""


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

    Attributes:
        streams_say_cost: whether a stream of the gateway ever said what it cost, to this process. Plain answers teach
            nothing about that: old releases of LiteLLM keep the cost in those and lose it in streams.
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
        self._lock = threading.Lock()
        self._quota = Quota(limits, record)
        self._budget = RetryBudget(clock())
        self._store = store
        self._shared = Scope(rules, further=FURTHER)
        self._own = OwnScopes(rules)
        self._not_free: frozenset[str] = frozenset()
        self._quarantined: frozenset[str] = frozenset()
        self.streams_say_cost = False

    def begin(self) -> None:
        """Note a request of a caller; it earns a part of a retry."""
        with self._lock:
            self._budget.deposit()

    def has_retry(self) -> bool:
        """Tell whether there is a retry in the budget; asking takes nothing."""
        with self._lock:
            return self._budget.level(self._clock()) >= 1.0

    def may_retry(self) -> bool:
        """Take one retry out of the budget; say whether there was one."""
        with self._lock:
            return self._budget.withdraw(self._clock())

    def jitter(self) -> float:
        """Return a number in [0, 1)."""
        return self._chance()

    def admit(self, path: Path, model: str, asking: Asking = ALONE) -> Permit | Refusal:
        """Ask for leave to attempt a model on a path; granting it takes one request out of the quota."""
        mark = self._own.mark_of(asking.source)
        with self._lock:
            now, wall = self._clock(), self._wall()
            shared = self._shared
            own = [] if mark is None else self._own.known(mark, now)
            is_open = not own and shared.is_open_to(path, model)
            scopes = [] if is_open else [shared, *own]
            refusal = self._in_the_way(path, model, asking, scopes, now, wall)
            if refusal is not None:
                return refusal
            self._quota.take(wall, further=asking.further)
            if self._quota.limits != NO_LIMITS:  # else nobody asks how many there were
                self._keep()
            probes = NO_PROBES if is_open else shared.enter(path, model, now)
            if not own and not asking.further:
                return Permit(path, model, probes, wall, asking)
            if asking.further:
                for scope in (self._shared, *own):
                    scope.run.enter(path, model)
            return Permit(
                path, model, probes, wall, asking, tuple([(each, each.enter(path, model, now)) for each in own])
            )

    def refusal(self, path: Path, model: str, asking: Asking = ALONE) -> Refusal | None:
        """Say what `admit` would refuse now, None if it would grant; asking takes nothing."""
        mark = self._own.mark_of(asking.source)
        with self._lock:
            now = self._clock()
            scopes = [self._shared, *self._own.known(mark, now)]
            return self._in_the_way(path, model, asking, scopes, now, self._wall())

    def settle(
        self,
        permit: Permit,
        failure: FailureKind | None,
        retry_after: float | None = None,
        *,
        sent: bool = True,
        fits: bool = True,
    ) -> None:
        """Take a permit back with what came of it.

        Args:
            permit: what `admit` granted; settled or released once.
            failure: why it did not serve, None where it did.
            retry_after: seconds, as the upstream named it.
            sent: False where no byte of it can have reached an upstream; it is put back into the quota then.
            fits: False if the model cannot do what this one request asks for, whatever the kind says.
        """
        asking = permit.asking
        if failure is None:
            mark = self._own.mark_of(asking.source)
            with self._lock:
                now = self._clock()
                self._shared.run.answered()
                self._shared.served(permit.path, permit.model, permit.probes, now)
                if mark is not None or asking.further:
                    for scope, probes in self._met(permit, self._own.known(mark, now))[1:]:
                        scope.run.answered()
                        scope.served(permit.path, permit.model, probes, now)
            return
        blamed = _mark(failure, asking.source, sent=sent, fits=fits)
        mark = blamed or self._own.mark_of(asking.source)
        with self._lock:
            now = self._clock()
            self._correct_quota(permit, failure, retry_after, sent=sent)
            own = self._own.of(blamed, now) if blamed is not None else self._own.known(mark, now)
            failed = Failed(failure, now, self._spread(), retry_after, blamed, asking.models, sent)
            for scope, probes in self._met(permit, own):
                if sent and (failure in LEADS_ON or not fits):
                    scope.run.failed(now)
                scope.failed(permit.path, permit.model, probes, failed)
                failed = failed._replace(mark=None)  # for its own breakers nobody else's failures count

    def broke(self, path: Path, model: str, failure: FailureKind, source: Source | None = None) -> None:
        """Note that an attempt failed after it was settled as a success: a stream that broke off."""
        blamed = _mark(failure, source, sent=True)
        with self._lock:
            now = self._clock()
            failed = Failed(failure, now, self._spread(), None, blamed)
            self._shared.broke(path, model, failed)
            for scope in self._own.of(blamed, now) if blamed is not None else ():
                scope.broke(path, model, failed._replace(mark=None))

    def limit(self, limits: QuotaLimits) -> None:
        """Take other limits of the account; what was counted stays."""
        with self._lock:
            self._quota.limit(limits)

    def release(self, permit: Permit, *, sent: bool = True) -> None:
        """Take a permit back that came to nothing: the caller left, or it could not be sent at all (`sent` False)."""
        with self._lock:
            if not sent:
                self._quota.give_back(permit.at, further=permit.asking.further)
                self._keep()
            for scope, probes in ((self._shared, permit.probes), *permit.own):
                scope.leave(permit.path, permit.model, probes)
                if permit.asking.further:
                    scope.run.leave()

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
            done = self._shared.reset(which)
            if which != "quota":
                self._own.clear()
            if which in (None, "quota") and self._quota.forget_caps(self._wall()):
                self._keep()
                done.append("quota")
            return done

    def status(self) -> GateStatus:
        """Return everything at this moment."""
        with self._lock:
            now = self._clock()
            quota, retries = self._quota.status(self._wall()), self._budget.level(now)
            return GateStatus(tuple(self._shared.lines(now)), quota, tuple(sorted(self._quarantined)), retries)

    def rest(self, path: Path, why: str, seconds: float) -> None:
        """Leave a path that is known not to answer alone, for so many seconds at the most; `reset` ends that."""
        with self._lock:
            self._shared.rest(path, why, self._clock(), seconds)

    def _met(self, permit: Permit, own: list[Scope]) -> list[tuple[Scope, Probes]]:
        """Return the breakers that are told of an attempt, each with its probes there, and note that it came back."""
        if permit.asking.further:
            self._shared.run.leave()
            for scope, _ in permit.own:
                scope.run.leave()
        met = [(self._shared, permit.probes)]
        for each in own:
            probes = [probes for scope, probes in permit.own if scope is each]
            met.append((each, probes[0] if probes else NO_PROBES))
        return met

    def _in_the_way(
        self, path: Path, model: str, asking: Asking, scopes: list[Scope], now: float, wall: float
    ) -> Refusal | None:
        """Say what is in the way; `scopes` are those whose breakers may be, none if all of them are closed."""
        if model in self._not_free or model in self._quarantined:
            why = "has cost money" if model in self._quarantined else "is not free today"
            return Refusal(FailureKind.NOT_FREE, LONGEST_REST, f"{model!r} {why}, so it is not asked")
        room = self._quota.look(wall, further=asking.further)
        if room.until is not None:  # before the breakers: "in five seconds" would be untrue
            detail = "the account's free requests of today are used up"
            return Refusal(FailureKind.DAY_CAP, room.until - wall, detail)
        for each in scopes:
            refusal = each.refusal(path, model, now, press=asking.press)
            if refusal is not None:
                return refusal
        if asking.further:
            for each in scopes or (self._shared,):
                if each.run.holds(path, model, now):
                    return _held(each)
        if room.wait > 0:
            kept = ", but for what is kept for the first attempts of others" if room.kept else ""
            detail = f"the account's free requests of this minute are used up{kept}"
            return Refusal(FailureKind.MINUTE_CAP, room.wait, detail)
        return None

    def _correct_quota(self, permit: Permit, failure: FailureKind, retry_after: float | None, *, sent: bool) -> None:
        if not sent:
            self._quota.give_back(permit.at, further=permit.asking.further)
        if failure is FailureKind.MINUTE_CAP:
            self._quota.told_of_minute(self._wall(), retry_after if retry_after is not None else 60.0)
        elif failure is FailureKind.DAY_CAP:
            wall = self._wall()
            self._quota.told_of_day(wall, wall + retry_after if retry_after is not None else None)
        elif sent:
            return
        self._keep()

    def _spread(self) -> float:
        return 0.5 + self._chance() / 2

    def _keep(self) -> None:
        if self._store is not None:
            self._store.save(self._quota.record())


def _mark(failure: FailureKind, source: Source | None, *, sent: bool, fits: bool = True) -> Mark | None:
    """Return who asked and what, if the request may have brought a failure about."""
    by_body = failure in PERHAPS_THE_BODY or not fits
    return source.mark() if source is not None and sent and by_body else None


def _held(scope: Scope) -> Refusal:
    detail = "nothing has answered the last attempts, so no further ones are made for the moment"
    if scope.run.is_waiting:
        return Refusal(FailureKind.RESTING, ASK_AGAIN_SECONDS, detail, soon=True)
    return Refusal(FailureKind.RESTING, 1.0, detail)
