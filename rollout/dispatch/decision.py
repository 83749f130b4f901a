"""What was decided and what came of it: values that answers, errors and observers carry.

Named tuples, because there is one of each for every request and a frozen dataclass takes five times as long to make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rollout.domain.evaluate import Cause, Reason
from rollout.domain.failure import AttemptRecord, FailureKind
from rollout.domain.flag import Path


class Decision(NamedTuple):
    """Which way a request took, and why.

    Attributes:
        path: where the decision sent it: its arm.
        served_by: who answered; None where nobody did.
        rescued_from: the path that failed, or was left alone because it keeps failing, before the other one answered.
        model: the model that was tried last, as the cascade names it.
        model_substituted: whether the caller asked for another model, one that is not in the cascade.
        reason: why this path, in OpenFeature's words.
        cause: why, in this product's words.
        bucket: where the user stands, an integer in [0, 100000); None where the decision needed none.
        revision: the flag's revision that decided.
        attempts: everything that was sent, in order; what a wrapped function sends by itself is not in it.
        latency: seconds from the call to the answer (for a stream: to its first token).
    """

    path: Path
    served_by: Path | None
    rescued_from: Path | None
    model: str
    model_substituted: bool
    reason: Reason
    cause: Cause
    bucket: int | None
    revision: int
    attempts: tuple[AttemptRecord, ...]
    latency: float


class Exchange(NamedTuple):
    """What happened to one request, handed to an observer once it is over (a stream: when it ended).

    Attributes:
        decision: which way it took.
        stream: whether the caller asked for a stream.
        failure: why the caller was not served, or not to the end; None where it was.
        status: the HTTP status of the last answer, None where there was none.
        seconds: from the call to the very end.
        wrapped: whether the caller's own old function answered.
        request_id: what the endpoint's answer calls it, None where it was no request over HTTP.
    """

    decision: Decision
    stream: bool
    failure: FailureKind | None
    status: int | None
    seconds: float
    wrapped: bool = False
    request_id: str | None = None


Observe = Callable[[Exchange], None]

Finish = Callable[[FailureKind | None], None]
"""Told once that a stream is over, and why it broke; None where it came to its end."""


class InvokeResult(dict[str, Any]):
    """An answer, the same mapping the upstream sent; `decision` says which way it took."""

    __slots__ = ("decision",)

    decision: Decision

    def __init__(self, document: dict[str, Any], decision: Decision) -> None:
        super().__init__(document)
        self.decision = decision

    def __reduce__(self) -> tuple[Any, ...]:
        # a dict's own pickling would call the constructor without its arguments
        return type(self), (dict(self), self.decision)
