"""What can go wrong with one attempt, and what one attempt was: values that the upper floors fill in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from rollout.domain.flag import Path


class FailureKind(StrEnum):
    """Why an attempt did not serve the caller."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    NO_ANSWER = "no_answer"
    RATE_LIMITED = "rate_limited"
    PAYMENT_REQUIRED = "payment_required"
    UNAUTHORIZED = "unauthorized"
    MODEL_GONE = "model_gone"
    REJECTED = "rejected"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


GATEWAY_FAULTS: Final = frozenset(
    {
        FailureKind.UNREACHABLE,
        FailureKind.TIMEOUT,
        FailureKind.SERVER_ERROR,
        FailureKind.NO_ANSWER,
        FailureKind.UNAUTHORIZED,
    }
)
"""Kinds after which a request that the gateway did not serve goes direct. The gateway's 401 and 403 are ours,
never the caller's: it was called with our key."""


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What one attempt came to: `milliseconds` wall time, `status` the HTTP status where there was an answer."""

    path: Path
    model: str
    status: int | None
    failure: FailureKind | None
    milliseconds: float
    served_model: str | None = None
    detail: str | None = None
