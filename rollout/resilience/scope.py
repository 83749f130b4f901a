"""The breakers of paths and models: one set that all requests share, and a set for each caller and body that fails.

Three stand in the way of an attempt. The path's own trips on what speaks against the path, whichever model was asked.
The one of its answers trips if every model fails, with whatever, and nothing is answered in between. The model's own
makes a model rest that fails again and again. Resting puts it last and is no wall: if something has served lately and
no other model is left, the resting ones are asked (load balancers call that a panic threshold). Only a model that the
upstream calls gone, and that has not served lately, is not asked until its time is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final, NamedTuple

from rollout.domain.failure import (
    MODEL_FAULTS,
    MODEL_LIVES,
    PATH_FAULTS,
    PATH_LIVES,
    PERHAPS_THE_MODEL,
    UNANSWERED,
    FailureKind,
)
from rollout.domain.flag import Path
from rollout.resilience.breaker import Breaker, BreakerRules, BreakerState, BreakerStatus
from rollout.resilience.permit import NO_PROBES, BreakerLine, Probes, Refusal
from rollout.resilience.run import Run
from rollout.resilience.source import Mark

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

ANSWER_RULES: Final = PATH_RULES[Path.OPENROUTER]
"""When a path is left alone because none of its models answers: on both paths as late as the one after which nothing
comes, because one answer in between is enough to know better."""

EVERY: Final = 5
"""Models that fail in a row before it counts as every model; fewer if a request has fewer. It is the usual cascade's
length: three of five may be out, and the other two answer everybody."""

SUSPECTS: Final[Mapping[Path, int]] = {Path.LITELLM: 2, Path.OPENROUTER: EVERY}
"""Models in a row that time out or answer 5xx before it is their path that is suspected. All of them if nothing comes
after it: bad models, asked by many at once, must not take the good ones with them."""

LATELY_SECONDS: Final = 60.0
"""How long ago something may have served for resting models to be asked: two of their first rests."""


_CLOSED: Final = BreakerState.CLOSED  # asked for several times in each request, where an enumeration's lookup counts


class Failed(NamedTuple):
    """A failure, as breakers are told of it.

    `mark` is None if no body can have brought it about; `models` is how many the request may ask, 0 if nobody knows;
    `sent` is False if no byte of it can have reached the other side.
    """

    kind: FailureKind
    now: float
    jitter: float
    retry_after: float | None = None
    mark: Mark | None = None
    models: int = 0
    sent: bool = True


class Scope:
    """The breakers that an attempt meets; not locked, its owner is. Times are monotonic seconds.

    Args:
        rules: when breakers trip; the usual ones if None.
        further: further attempts that are let through without an answer.

    Attributes:
        failed_at: when its caller or body failed last, as far as its owner says.
        run: the failures in a row and the further attempts among them.
    """

    __slots__ = (
        "_answers",
        "_gone",
        "_models",
        "_paths",
        "_rules",
        "_served",
        "_served_at",
        "_silent",
        "_suspects",
        "failed_at",
        "run",
    )

    def __init__(self, rules: BreakerRules | None, *, further: int) -> None:
        self._rules = rules or BreakerRules()
        self._paths = {path: Breaker(rules or PATH_RULES[path]) for path in Path}
        self._answers = {path: Breaker(ANSWER_RULES) for path in Path}
        self._models: dict[tuple[Path, str], Breaker] = {}
        self._suspects: dict[Path, set[str]] = {path: set() for path in Path}
        self._silent: dict[Path, set[str]] = {path: set() for path in Path}  # failed since the path's last answer
        self._gone: set[tuple[Path, str]] = set()
        self._served: dict[str, float] = {}  # when a model served last, on whichever path
        self._served_at = -inf
        self.failed_at = -inf
        self.run = Run(further)

    def is_open_to(self, path: Path, model: str) -> bool:
        """Say whether every breaker in an attempt's way is closed, as almost always: nothing refuses or probes then."""
        if self._paths[path].state is not _CLOSED or self._answers[path].state is not _CLOSED:
            return False
        one = self._models.get((path, model))
        return one is None or one.state is _CLOSED

    def refusal(self, path: Path, model: str, now: float, *, press: bool) -> Refusal | None:
        """Say what is in the way of an attempt; asking changes nothing."""
        whole, answers = self._paths[path], self._answers[path]
        if not whole.allows(now):
            return _resting(FailureKind.UNREACHABLE, f"the path {path}", whole.status(now))
        if not answers.allows(now):
            return _resting(FailureKind.UNREACHABLE, f"the path {path}", answers.status(now))
        one = self._models.get((path, model))
        if one is not None and not one.allows(now) and not (press and self._may_press(path, model, now)):
            return _resting(FailureKind.RESTING, f"{model!r} on {path}", one.status(now))
        return None

    def enter(self, path: Path, model: str, now: float) -> Probes:
        """Let an attempt pass that nothing refused."""
        one = self._models.get((path, model))
        whole, answers = self._paths[path].enter(now), self._answers[path].enter(now)
        if one is None:
            return Probes(whole, answers) if whole or answers else NO_PROBES
        if not one.allows(now):
            return Probes(whole, answers, 0, pressed=True)
        return Probes(whole, answers, one.enter(now))

    def leave(self, path: Path, model: str, probes: Probes) -> None:
        """Note that an attempt came to nothing, neither well nor badly."""
        self._paths[path].leave(probes.path)
        self._answers[path].leave(probes.answers)
        if probes.model and (one := self._models.get((path, model))) is not None:
            one.leave(probes.model)

    def served(self, path: Path, model: str, probes: Probes, now: float) -> None:
        """Note an attempt that went well."""
        self._served_at = self._served[model] = now
        if self._suspects[path]:
            self._suspects[path].clear()
        self._paths[path].succeeded(probe=probes.path)
        if self._silent[path] or probes.answers:  # else nothing has failed since the last answer
            self._silent[path].clear()
            self._answers[path].succeeded(probe=probes.answers)
        if (one := self._models.get((path, model))) is not None:
            one.succeeded(probe=probes.model, pressed=probes.pressed)
            self._gone.discard((path, model))

    def failed(self, path: Path, model: str, probes: Probes, failed: Failed) -> None:
        """Note an attempt that went badly."""
        self._note_answers(path, model, probes, failed)
        self._note_path(path, model, probes, failed)
        self._note_model(path, model, probes, failed)

    def broke(self, path: Path, model: str, failed: Failed) -> None:
        """Note that an attempt failed after it had served: a stream that broke off."""
        if failed.kind in PATH_FAULTS:
            self._note_path(path, model, NO_PROBES, failed)
        if failed.kind in MODEL_FAULTS:
            self._breaker_of(path, model).failed(
                failed.now, str(failed.kind), probe=0, jitter=failed.jitter, mark=failed.mark
            )

    def rest(self, path: Path, why: str, now: float, seconds: float) -> None:
        """Leave a path alone for so many seconds."""
        self._paths[path].trip(now, why, seconds)

    def reset(self, which: str | None) -> list[str]:
        """Close breakers: of a path, a model, `path/model`, None for all; return what was reset."""
        done = []
        for path in Path:
            whole, answers = self._paths[path], self._answers[path]
            if which in (None, str(path)) and (_marked(whole) or answers.state is not BreakerState.CLOSED):
                whole.reset()
                answers.reset()
                self._suspects[path].clear()
                self._silent[path].clear()
                done.append(str(path))
        for (path, model), one in self._models.items():
            if which in (None, model, f"{path}/{model}") and _marked(one):
                one.reset()
                self._gone.discard((path, model))
                done.append(f"{path}/{model}")
        return done

    def lines(self, now: float) -> list[BreakerLine]:
        """Return every path, and the models whose breakers are not closed or have failures."""
        lines = [BreakerLine(path, None, self._of_path(path, now)) for path in Path]
        return lines + [BreakerLine(*key, one.status(now)) for key, one in self._models.items() if _marked(one)]

    def is_quiet(self) -> bool:
        """Tell whether no breaker is open."""
        closed = BreakerState.CLOSED
        breakers = (*self._paths.values(), *self._answers.values(), *self._models.values())
        return all(each.state is closed for each in breakers)

    def _of_path(self, path: Path, now: float) -> BreakerStatus:
        whole, answers = self._paths[path].status(now), self._answers[path].status(now)
        return answers if (answers.opens_in or -1.0) > (whole.opens_in or -1.0) else whole

    def _may_press(self, path: Path, model: str, now: float) -> bool:
        if (path, model) in self._gone:
            return False
        answers, closed = self._answers[path], BreakerState.CLOSED
        if answers.state is not closed or self._paths[path].state is not closed:
            return True  # it is the path's probe: the models were asked least lately of all
        lately = now - self._served_at < LATELY_SECONDS
        return lately and answers.failures < ANSWER_RULES.consecutive

    def _note_answers(self, path: Path, model: str, probes: Probes, failed: Failed) -> None:
        answers, kind = self._answers[path], failed.kind
        if kind not in UNANSWERED:
            answers.leave(probes.answers)
            return
        silent = self._silent[path]
        silent.add(model)
        answers.failed(
            failed.now,
            f"none of its models answers, the last one: {kind}",
            probe=probes.answers,
            jitter=failed.jitter,
            trips=len(silent) >= min(EVERY, failed.models or EVERY),
            mark=failed.mark,
        )

    def _note_path(self, path: Path, model: str, probes: Probes, failed: Failed) -> None:
        whole, suspects, kind = self._paths[path], self._suspects[path], failed.kind
        if kind in PATH_LIVES:
            suspects.clear()
            whole.succeeded(probe=probes.path)
        elif kind in PATH_FAULTS:
            suspects.add(model)
            # what the gateway cannot get from a model it tells; on the direct path a connection may end for a model
            ended = kind is FailureKind.UNREACHABLE and failed.sent and failed.models and path is Path.OPENROUTER
            trips = (kind not in PERHAPS_THE_MODEL and not ended) or len(suspects) >= SUSPECTS[path]
            # a time named with what one model may have caused is that model's, and says nothing of the path
            rest = _sane(failed.retry_after) if trips else None
            whole.failed(
                failed.now,
                str(kind),
                probe=probes.path,
                jitter=failed.jitter,
                retry_after=rest,
                trips=trips,
                mark=failed.mark,
            )
        else:
            whole.leave(probes.path)

    def _note_model(self, path: Path, model: str, probes: Probes, failed: Failed) -> None:
        kind = failed.kind
        if kind in MODEL_FAULTS:
            one = self._breaker_of(path, model)
            rest = _sane(failed.retry_after)
            one.failed(
                failed.now,
                str(kind),
                probe=probes.model,
                jitter=failed.jitter,
                retry_after=rest,
                mark=failed.mark,
                pressed=probes.pressed,
            )
            if kind is FailureKind.MODEL_GONE:
                if failed.now - self._served.get(model, -inf) > LATELY_SECONDS:
                    self._gone.add((path, model))
                one.trip(failed.now, "the upstream says that this model is gone", MODEL_GONE_SECONDS)
            return
        known = self._models.get((path, model))
        if known is None:
            return
        if kind in MODEL_LIVES:
            known.succeeded(probe=probes.model, pressed=probes.pressed)
        else:
            known.leave(probes.model)

    def _breaker_of(self, path: Path, model: str) -> Breaker:
        one = self._models.get((path, model))
        if one is None:
            one = self._models[path, model] = Breaker(self._rules)
        return one


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
