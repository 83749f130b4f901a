"""The policy of sending, as a generator: it yields attempts and pauses, is sent outcomes, returns a verdict.

    an attempt: the decided path, the best model that is not resting --ok--> served
        | a fault of the gateway            one rescue on the direct path. The same model, unless it may have been the
                                            model's fault: then the others first
        | a model that is busy, gone, ...   the next model of the cascade; if all others rest, one of these
        | no other model is left            the same model again, if it may do better, out of the retry budget
        | the account's minute is full      a pause within the deadline, else refused with when
        | the day is used up, 402, a request that is wrong by itself: stop

A fallback is no retry: a retry hits what is in trouble, a fallback leaves it. So the retry budget rations only a model
that this request has asked on this path before. At most three attempts a request, without the rescue and without the
first one of which no byte was sent; no pause after the last one; nothing is tried again once the caller got something.
Nothing here sends, sleeps or reads a clock: times are monotonic seconds that come in with outcomes, and what is shared
between requests is asked of the gate. `drive` and `adrive` are the only loops that send.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from math import inf, isfinite
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

from rollout.domain.failure import GATEWAY_FAULTS, MODEL_FAULTS, REACTIONS, FailureKind, Reaction
from rollout.domain.flag import Path
from rollout.resilience.backoff import full_jitter
from rollout.resilience.gate import Gate
from rollout.resilience.permit import Asking, Permit, Refusal
from rollout.resilience.source import Source

MAX_ATTEMPTS: Final = 3
"""Attempts of one request, the rescue not counted (Google's SRE book, chapter 21)."""

SANE_WAIT: Final = 60.0
"""Seconds; a longer wait that an upstream asks for is not waited within a request."""

SHORTEST_ATTEMPT: Final = 0.05
"""Seconds; with less than that left before the deadline nothing new is begun."""

SHORTEST_WAIT: Final = 0.01
"""Seconds; a pause until the account's minute has room is no shorter, so that nobody spins."""


_NO_RETRY: Final = Refusal(FailureKind.RESTING, 0.0, "too many requests are being retried just now")


class Attempt(NamedTuple):
    """One thing to try.

    `number` counts from 1. `deadline` is when it must be there: a whole plain answer, or a stream's first token.
    `rescued_from` is the path that failed before, where the direct path came to the rescue.
    """

    path: Path
    model: str
    number: int
    started: float
    deadline: float
    permit: Permit
    rescued_from: Path | None = None


class Pause(NamedTuple):
    """A wait of so many seconds before the next attempt; answered with an outcome that carries the time."""

    seconds: float


class Outcome(NamedTuple):
    """What an attempt came to, at `now`; `committed` where the caller already got something of it.

    `sent` is False if no byte of it can have reached the other side.
    """

    failure: FailureKind | None
    now: float
    committed: bool = False
    retry_after: float | None = None
    sent: bool = True


class Verdict(NamedTuple):
    """How it ended: the last attempt (None: nothing was sent), and why it failed (None: it served the caller).

    `refusal` says why nothing more was sent, where that is what ended it.
    """

    attempt: Attempt | None
    failure: FailureKind | None
    refusal: Refusal | None = None


Step = Attempt | Pause
Policy = Generator[Step, Outcome, Verdict]

_T = TypeVar("_T")


class _Walk:
    """Where a request stands on its way: path, models tried there, attempts made."""

    __slots__ = (
        "again",
        "asked",
        "made",
        "may_rescue",
        "models",
        "number",
        "path",
        "rescued_from",
        "sent",
        "source",
        "unsent",
    )

    def __init__(self, path: Path, models: Sequence[str], source: Source | None, *, rescue: bool) -> None:
        self.path = path
        self.models = models
        self.source = source
        self.asked: set[str] = set()  # models that an attempt was sent to on this path
        self.again: dict[str, float] = {}  # models that failed here: from when they may be asked again
        self.sent = self.unsent = False  # whether an attempt was sent; whether one could not be, which is free once
        self.made = 0
        self.number = 0
        self.rescued_from: Path | None = None
        self.may_rescue = rescue and path is Path.LITELLM

    @property
    def fresh(self) -> Sequence[str]:
        """Return the models that did not fail here yet, best first."""
        return [model for model in self.models if model not in self.again] if self.again else self.models

    def due(self, now: float) -> Sequence[str]:
        """Return the models that failed here and may be asked again now."""
        late = now + SHORTEST_WAIT  # sleepers wake a little early
        return [model for model in self.models if self.again.get(model, inf) <= late]

    def asking(self, *, press: bool = False) -> Asking:
        """Return what the next attempt is to this request."""
        return Asking(self.source, len(self.models), self.sent, press)

    def note(self, model: str, outcome: Outcome) -> None:
        """Note what came of an attempt."""
        if outcome.sent or self.unsent:
            self.sent = self.sent or outcome.sent
            self.made += 1
            self.asked.add(model)
        else:
            self.unsent = True

    def go_direct(self) -> bool:
        """Turn to the direct path, once; say whether that was possible."""
        if not self.may_rescue:
            return False
        self.may_rescue = False
        self.rescued_from, self.path = self.path, Path.OPENROUTER
        self.again.clear()
        self.asked.clear()
        return True

    def rescue_with(self, model: str, *, last: bool) -> None:
        """Ask the model that failed first, or `last`; the others keep their order."""
        self.models = sorted(self.models, key=lambda each: (each == model) is last)  # sorting is stable


def attempts(
    path: Path,
    models: Sequence[str],
    *,
    gate: Gate,
    now: float,
    total: float,
    per_attempt: float,
    rescue: bool = True,
    source: Source | None = None,
) -> Policy:
    """Yield what to try, in order.

    Args:
        path: where the decision sends the request.
        models: model ids in the order to try them, at least one.
        gate: what is shared between requests.
        now: the moment the request came, in monotonic seconds.
        total: seconds over all attempts.
        per_attempt: seconds for one attempt (for a stream: until its first token).
        rescue: whether the direct path may take over from the gateway.
        source: who asks and what, None if nobody knows.
    """
    gate.begin()
    end = now + total
    last = end - min(SHORTEST_ATTEMPT, total / 2)  # timers fire a little early: what is left then is no attempt
    walk = _Walk(path, models, source, rescue=rescue)
    attempt: Attempt | None = None
    failure: FailureKind | None = None
    while True:
        admitted = _admitted(gate, walk, now)
        while isinstance(admitted, Refusal):
            wait = max(SHORTEST_WAIT, admitted.retry_after)
            if not _is_worth_a_wait(admitted) or now + wait >= last:
                return Verdict(attempt, failure or admitted.kind, admitted)
            now = max(now + wait, (yield Pause(wait)).now)
            if now >= last:  # overslept
                return Verdict(attempt, failure or admitted.kind, admitted)
            admitted = _admitted(gate, walk, now)
        walk.number += 1
        deadline = min(end, now + per_attempt)
        attempt = Attempt(walk.path, admitted.model, walk.number, now, deadline, admitted, walk.rescued_from)
        outcome = yield attempt
        failure = outcome.failure
        if failure is None or outcome.committed:
            return Verdict(attempt, failure)
        now = max(now, outcome.now)
        if now >= last:
            return Verdict(attempt, failure)
        if failure in GATEWAY_FAULTS and walk.go_direct():
            walk.sent = walk.sent or outcome.sent
            walk.rescue_with(admitted.model, last=failure in MODEL_FAULTS)
            continue  # a rescue costs no retry and no time
        walk.note(admitted.model, outcome)
        pause = _wait(gate, walk, attempt.model, outcome, now, last)
        if isinstance(pause, Refusal):
            return Verdict(attempt, failure, pause)
        if pause is None or now + pause >= last:
            return Verdict(attempt, failure)
        if pause > 0:
            now = max(now + pause, (yield Pause(pause)).now)
            if now >= last:
                return Verdict(attempt, failure)


def _is_worth_a_wait(refusal: Refusal) -> bool:
    """Tell whether what is in the way is the same for every model on both paths, and over soon."""
    return refusal.soon or refusal.kind is FailureKind.MINUTE_CAP


def _admitted(gate: Gate, walk: _Walk, now: float) -> Permit | Refusal:
    """Ask for leave for the best model that gets it; turn to the direct path where the gateway's all rest."""
    if not walk.again:  # nothing has failed yet: almost always the first model is the answer
        usual = gate.admit(walk.path, walk.models[0], walk.asking())
        if isinstance(usual, Permit):
            return usual
    refusals: dict[str, Refusal] = {}
    admitted = _first(gate, walk, walk.fresh, refusals)
    if admitted is None and not walk.may_rescue:
        resting = sorted(refusals, key=lambda model: refusals[model].retry_after)  # sorting is stable
        admitted = _first(gate, walk, resting, refusals, press=True)
    if admitted is None:
        admitted = _first(gate, walk, walk.due(now), refusals)
    if admitted is not None:
        return admitted
    if _speak_against_the_path(refusals.values()) and walk.go_direct():
        return _admitted(gate, walk, now)
    return min(refusals.values(), key=attrgetter("retry_after"))


def _speak_against_the_path(refusals: Iterable[Refusal]) -> bool:
    """Tell whether the direct path may be better; it is not, if the same model was only asked too often."""
    return any(refusal is not _NO_RETRY for refusal in refusals)


def _first(
    gate: Gate, walk: _Walk, models: Sequence[str], refusals: dict[str, Refusal], *, press: bool = False
) -> Permit | Refusal | None:
    """Ask for leave for the first model that gets it; note why others do not, and return what stops all of them."""
    asking = walk.asking(press=press)
    for model in models:
        admitted = _asked(gate, walk, model, asking)
        if isinstance(admitted, Permit) or _is_worth_a_wait(admitted) or admitted.kind is FailureKind.DAY_CAP:
            return admitted
        refusals[model] = admitted
        if admitted.kind is FailureKind.UNREACHABLE:
            break  # the whole path rests
    return None


def _asked(gate: Gate, walk: _Walk, model: str, asking: Asking) -> Permit | Refusal:
    if model in walk.asked:  # a retry; one is taken out of the budget only if nothing else is in the way
        refusal = gate.refusal(walk.path, model, asking)
        if refusal is not None:
            return refusal
        if not gate.may_retry():
            return _NO_RETRY
    return gate.admit(walk.path, model, asking)


def _wait(gate: Gate, walk: _Walk, model: str, outcome: Outcome, now: float, last: float) -> float | Refusal | None:
    """Return seconds to wait before the next attempt; None where there is none, a refusal where that is why."""
    if outcome.failure is None or walk.made >= MAX_ATTEMPTS:
        return None
    ours = full_jitter(walk.made - 1, gate.jitter())
    match REACTIONS[outcome.failure]:
        case Reaction.STOP:
            return None
        case Reaction.NEXT_MODEL:
            walk.again[model] = inf
            ours = 0.0
        case Reaction.WAIT:
            walk.again.pop(model, None)  # no fault of the model's; the gate knows how long: it was told of the cap
        case Reaction.TRY_AGAIN:
            # the same model again: as long as it asked for, where that is sane
            asked = outcome.retry_after if outcome.retry_after is not None else 0.0
            walk.again[model] = now + max(ours, asked) if asked <= SANE_WAIT else inf
    return _soonest(gate, walk, ours, now, last)


def _soonest(gate: Gate, walk: _Walk, pause: float, now: float, last: float) -> float | Refusal | None:
    """Return seconds until a model may be asked, a pause at the least: nobody pauses only to be refused then."""
    refusals: list[Refusal] = []
    later: list[float] = []
    fresh = walk.fresh
    for each in (*fresh, *walk.again):
        wait = max(pause, walk.again.get(each, now) - now)
        if not isfinite(wait):
            continue
        asking = walk.asking(press=each not in walk.again and not walk.may_rescue)
        refusal = gate.refusal(walk.path, each, asking)
        if refusal is not None and refusal.kind is FailureKind.MINUTE_CAP:
            if now + refusal.retry_after >= last:
                return refusal
            wait = max(wait, refusal.retry_after)
        elif refusal is not None and not refusal.soon and refusal.retry_after > wait:
            refusals.append(refusal)
            continue
        if each in walk.asked and not gate.has_retry():
            refusals.append(_NO_RETRY)
            continue
        if each not in walk.again:
            return wait
        later.append(wait)
    if later:
        return min(later)
    if not refusals:
        return None
    return (
        0.0 if _speak_against_the_path(refusals) and walk.go_direct() else min(refusals, key=attrgetter("retry_after"))
    )


def handing_over(policy: Policy) -> Policy:
    """Follow a policy until the gateway's first fault, at which somebody else takes over."""
    try:
        step = next(policy)
        while True:
            outcome = yield step
            if isinstance(step, Attempt) and outcome.failure in GATEWAY_FAULTS:
                return Verdict(step, outcome.failure)
            step = policy.send(outcome)
    except StopIteration as end:
        verdict: Verdict = end.value
        return verdict


def drive(
    policy: Policy,
    send: Callable[[Attempt], tuple[Outcome, _T]],
    *,
    sleep: Callable[[float], object],
    clock: Callable[[], float],
) -> tuple[Verdict, _T | None]:
    """Send what a policy asks for; return its verdict and what the last attempt brought (None: nothing was sent)."""
    brought: _T | None = None
    try:
        step = next(policy)
        while True:
            if isinstance(step, Pause):
                sleep(step.seconds)
                outcome = Outcome(None, clock())
            else:
                outcome, brought = send(step)
            step = policy.send(outcome)
    except StopIteration as end:
        return end.value, brought


async def adrive(
    policy: Policy,
    send: Callable[[Attempt], Awaitable[tuple[Outcome, _T]]],
    *,
    sleep: Callable[[float], Awaitable[object]],
    clock: Callable[[], float],
) -> tuple[Verdict, _T | None]:
    """Do what `drive` does, with an asynchronous sender and sleeper."""
    brought: _T | None = None
    try:
        step = next(policy)
        while True:
            if isinstance(step, Pause):
                await sleep(step.seconds)
                outcome = Outcome(None, clock())
            else:
                outcome, brought = await send(step)
            step = policy.send(outcome)
    except StopIteration as end:
        return end.value, brought
