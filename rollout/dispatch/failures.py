"""Failure kinds as errors for Python and as answers for HTTP: one table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from rollout.domain.errors import (
    DeadlineExceeded,
    RateLimited,
    SendingFailed,
    UpstreamRejected,
    UpstreamUnavailable,
)
from rollout.domain.failure import FailureKind


class Face(NamedTuple):
    """How a failure kind shows: `status` is HTTP's, `kind` OpenAI's `type` of error."""

    error: type[SendingFailed]
    status: int
    kind: str


# 401 and 402 of an upstream are about the key that this process holds; a caller that saw them would doubt its own.
FACES: Final[Mapping[FailureKind, Face]] = MappingProxyType(
    {
        FailureKind.UNREACHABLE: Face(UpstreamUnavailable, 502, "upstream_error"),
        FailureKind.SERVER_ERROR: Face(UpstreamUnavailable, 502, "upstream_error"),
        FailureKind.NO_ANSWER: Face(UpstreamUnavailable, 502, "upstream_error"),
        FailureKind.INTERRUPTED: Face(UpstreamUnavailable, 502, "upstream_error"),
        FailureKind.CANCELLED: Face(UpstreamUnavailable, 502, "upstream_error"),
        FailureKind.UNAUTHORIZED: Face(UpstreamRejected, 502, "upstream_error"),
        FailureKind.PAYMENT_REQUIRED: Face(UpstreamRejected, 502, "upstream_error"),
        FailureKind.MODEL_GONE: Face(UpstreamRejected, 502, "upstream_error"),
        FailureKind.TIMEOUT: Face(DeadlineExceeded, 504, "timeout_error"),
        FailureKind.RATE_LIMITED: Face(RateLimited, 429, "rate_limit_error"),
        FailureKind.REJECTED: Face(UpstreamRejected, 400, "invalid_request_error"),
    }
)


def http_status(kind: FailureKind, upstream_status: int | None) -> int:
    """Return the status a caller sees: an upstream's refusal of the request itself as it is, else the table's."""
    if kind is FailureKind.REJECTED and upstream_status is not None and 400 <= upstream_status < 500:
        return upstream_status
    return FACES[kind].status
