"""The policy of sending, as a generator: it yields attempts, is sent outcomes and returns a verdict.

    the decided path, the first model --ok--> served
        | a fault of the gateway, nothing delivered, time left
        v
    one rescue on the direct path, the same model --> served or failed

Nothing here sends, sleeps or reads a clock. Times are monotonic seconds that come in as arguments. `drive`
and `adrive` are the only loops that send.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import NamedTuple, TypeVar

from rollout.domain.failure import GATEWAY_FAULTS, FailureKind
from rollout.domain.flag import Path


class Attempt(NamedTuple):
    """One thing to try.

    `number` counts from 1. `deadline` is when it must be there: a whole plain answer, or a stream's first token.
    `rescued_from` is the path that failed before, where this attempt comes to the rescue.
    """

    path: Path
    model: str
    number: int
    started: float
    deadline: float
    rescued_from: Path | None = None


class Outcome(NamedTuple):
    """What an attempt came to, at `now`; `committed` where the caller already got something of it."""

    failure: FailureKind | None
    now: float
    committed: bool = False


class Verdict(NamedTuple):
    """How it ended: the last attempt, and why it failed (None: it served the caller)."""

    attempt: Attempt
    failure: FailureKind | None


Policy = Generator[Attempt, Outcome, Verdict]

_T = TypeVar("_T")


def attempts(
    path: Path,
    models: Sequence[str],
    *,
    now: float,
    total: float,
    per_attempt: float,
    rescue: bool = True,
) -> Policy:
    """Yield what to try, in order.

    Args:
        path: where the decision sends the request.
        models: model ids in the order to try them, at least one; this policy uses the first.
        now: the moment the request came, in monotonic seconds.
        total: seconds over all attempts.
        per_attempt: seconds for one attempt (for a stream: until its first token).
        rescue: whether the direct path may take over from the gateway.
    """
    end = now + total
    attempt = Attempt(path, models[0], 1, now, min(end, now + per_attempt))
    outcome = yield attempt
    if (
        rescue
        and path is Path.LITELLM
        and outcome.failure in GATEWAY_FAULTS
        and not outcome.committed
        and outcome.now < end
    ):
        deadline = min(end, outcome.now + per_attempt)
        attempt = Attempt(Path.OPENROUTER, models[0], 2, outcome.now, deadline, rescued_from=path)
        outcome = yield attempt
    return Verdict(attempt, outcome.failure)


def drive(policy: Policy, send: Callable[[Attempt], tuple[Outcome, _T]]) -> tuple[Verdict, _T]:
    """Send what a policy asks for; return its verdict and what the last attempt brought."""
    attempt = next(policy)
    while True:
        outcome, brought = send(attempt)
        try:
            attempt = policy.send(outcome)
        except StopIteration as end:
            return end.value, brought


async def adrive(policy: Policy, send: Callable[[Attempt], Awaitable[tuple[Outcome, _T]]]) -> tuple[Verdict, _T]:
    """Do what `drive` does, with an asynchronous sender."""
    attempt = next(policy)
    while True:
        outcome, brought = await send(attempt)
        try:
            attempt = policy.send(outcome)
        except StopIteration as end:
            return end.value, brought
