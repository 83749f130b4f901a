"""A storm without sockets: the real policy and gate, an upstream that fails as it is told, and a clock that jumps."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, NamedTuple

from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.resilience.gate import Gate
from rollout.resilience.policy import Attempt, Outcome, Pause, Verdict, attempts
from rollout.resilience.quota import NO_LIMITS, QuotaLimits
from rollout.resilience.source import Mark

MODELS: Final = ("a:free", "b:free", "c:free", "d:free", "e:free")
NOON: Final = 20_000 * 86_400 + 12 * 3600.0
REQUESTS: Final = 60
SECONDS: Final = 10.0


class Asked(NamedTuple):
    """One request of a storm: its number, who asks, and what."""

    number: int
    caller: int
    body: int

    def mark(self) -> Mark:
        return Mark(self.caller, self.body)


Fails = Callable[[Asked, Attempt, int], FailureKind | None]
"""Say what an attempt comes to; the number counts a request's attempts that were sent, from 1."""


@dataclass
class Storm:
    """Requests that come at their times, against an upstream that fails as it is told.

    Attributes:
        fails: what an attempt comes to.
        seconds_of: how long an attempt takes that comes to this.
        limits: the account's quota.
        models: the cascade.
        path: where the decision sends every request.
        total: seconds over all attempts of a request.
    """

    fails: Fails
    seconds_of: Callable[[FailureKind | None], float] = lambda kind: 3.0 if kind is FailureKind.TIMEOUT else 0.3
    limits: QuotaLimits = NO_LIMITS
    models: tuple[str, ...] = MODELS
    path: Path = Path.OPENROUTER
    total: float = 30.0
    seed: int = 7
    now: float = 1000.0
    attempts: Counter[int] = field(default_factory=Counter)
    ways: dict[int, list[str]] = field(default_factory=dict)
    sent_at: list[float] = field(default_factory=list)
    served_at: dict[int, float] = field(default_factory=dict)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        chance = random.Random(self.seed)
        self.gate = Gate(self.limits, clock=lambda: self.now, wall=lambda: NOON + self.now, chance=chance.random)

    @property
    def served(self) -> int:
        return len(self.served_at)

    @property
    def sent(self) -> int:
        return len(self.sent_at)

    def play(self, requests: list[tuple[float, Asked]]) -> Storm:
        """Play requests, each at its seconds from now; return when the last one is over."""
        order, began = count(), self.now
        waiting: list[tuple[float, int, Asked, Any, Any]] = []
        for at, asked in requests:
            heapq.heappush(waiting, (began + at, next(order), asked, None, None))
        while waiting:
            self.now, _, asked, policy, came = heapq.heappop(waiting)
            try:
                if policy is None:
                    policy = self._policy(asked)
                    step = next(policy)
                else:
                    step = policy.send(self._outcome(*came))
            except StopIteration as end:
                self.verdicts[asked.number] = end.value
                if end.value.failure is None:
                    self.served_at[asked.number] = self.now
                continue
            if isinstance(step, Pause):
                heapq.heappush(waiting, (self.now + step.seconds, next(order), asked, policy, (None, None)))
                continue
            self.attempts[asked.number] += 1
            self.sent_at.append(self.now)
            self.ways.setdefault(asked.number, []).append(f"{step.path} {step.model[0]}")
            failure = self.fails(asked, step, self.attempts[asked.number])
            back = min(self.now + self.seconds_of(failure), step.deadline)
            heapq.heappush(waiting, (back, next(order), asked, policy, (step, failure)))
        return self

    def _policy(self, asked: Asked) -> Generator[Any, Outcome, Verdict]:
        return attempts(
            self.path, self.models, gate=self.gate, now=self.now, total=self.total, per_attempt=20.0, source=asked
        )

    def _outcome(self, attempt: Attempt | None, failure: FailureKind | None) -> Outcome:
        if attempt is not None:
            self.gate.settle(attempt.permit, failure)
        return Outcome(failure, self.now)


def spread(
    requests: int = REQUESTS, seconds: float = SECONDS, *, callers: int = REQUESTS, bodies: int = REQUESTS
) -> list[tuple[float, Asked]]:
    """Return requests that come evenly, from so many callers, with so many bodies; 0 seconds: all at once."""
    return [(seconds * each / requests, Asked(each, each % callers, 1000 + each % bodies)) for each in range(requests)]
