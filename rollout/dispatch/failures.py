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
_FAILED: Final = Face(UpstreamUnavailable, 502, "upstream_error")
_NOT_NOW: Final = Face(UpstreamUnavailable, 503, "upstream_error")
_REFUSED: Final = Face(UpstreamRejected, 502, "upstream_error")
_LIMITED: Final = Face(RateLimited, 429, "rate_limit_error")
_WRONG: Final = Face(UpstreamRejected, 400, "invalid_request_error")
FACES: Final[Mapping[FailureKind, Face]] = MappingProxyType(
    {
        FailureKind.UNREACHABLE: _FAILED,
        FailureKind.SERVER_ERROR: _FAILED,
        FailureKind.NO_ANSWER: _FAILED,
        FailureKind.ERROR_FINISH: _FAILED,
        FailureKind.EMPTY: _FAILED,
        FailureKind.TRUNCATED: _FAILED,
        FailureKind.INVALID_JSON: _FAILED,
        FailureKind.INTERRUPTED: _FAILED,
        FailureKind.CANCELLED: _FAILED,
        FailureKind.GATEWAY_ERROR: _FAILED,
        FailureKind.GATEWAY_COOLDOWN: _NOT_NOW,
        FailureKind.RESTING: _NOT_NOW,
        FailureKind.UNAUTHORIZED: _REFUSED,
        FailureKind.PAYMENT_REQUIRED: _REFUSED,
        FailureKind.MODEL_GONE: _REFUSED,
        FailureKind.NOT_FREE: _REFUSED,
        FailureKind.TIMEOUT: Face(DeadlineExceeded, 504, "timeout_error"),
        FailureKind.RATE_LIMITED: _LIMITED,
        FailureKind.MINUTE_CAP: _LIMITED,
        FailureKind.DAY_CAP: _LIMITED,
        FailureKind.UPSTREAM_BUSY: _LIMITED,
        FailureKind.REJECTED: _WRONG,
        FailureKind.MODEL_REFUSED: _WRONG,
    }
)


def http_status(kind: FailureKind, upstream_status: int | None, *, sent: bool = True) -> int:
    """Return the status a caller sees: an upstream's refusal of the request itself as it is, else the table's.

    Args:
        kind: why the caller was not served.
        upstream_status: the last answer's, None where there was none.
        sent: whether anything was; where nothing was, the caller is told to come again (429, 503).
    """
    if not sent:
        return 429 if FACES[kind] is _LIMITED else 503
    if FACES[kind] is _WRONG and upstream_status is not None and 400 <= upstream_status < 500:
        # a 401, 402 or 403, whatever it says of the request, would make the caller doubt its own key or account, and
        # the 404 of a model that refused would say that there is no such model
        hidden = (401, 402, 403, 404) if kind is FailureKind.MODEL_REFUSED else (401, 402, 403)
        return 400 if upstream_status in hidden else upstream_status
    return FACES[kind].status
