"""What can go wrong with one attempt, what follows from it, and what an attempt was: values for the upper floors."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from rollout.domain.flag import Path


class FailureKind(StrEnum):
    """Why an attempt did not serve the caller."""

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    SERVER_ERROR = "server_error"
    NO_ANSWER = "no_answer"  # HTTP 200 with HTML, nothing, or something else than a completion in it
    ERROR_FINISH = "error_finish"  # finish_reason "error", also where the gateway rewrote it
    EMPTY = "empty"  # neither text nor a tool call
    TRUNCATED = "truncated"  # a stream that ended without [DONE]
    INVALID_JSON = "invalid_json"  # JSON was asked for and did not come
    RATE_LIMITED = "rate_limited"  # a 429 that says no more
    MINUTE_CAP = "minute_cap"  # the account's requests a minute
    DAY_CAP = "day_cap"  # the account's requests a day
    UPSTREAM_BUSY = "upstream_busy"  # the pool behind one model
    GATEWAY_COOLDOWN = "gateway_cooldown"  # the gateway's own breaker
    RESTING = "resting"  # every model's breaker of ours is open; nothing was sent
    PAYMENT_REQUIRED = "payment_required"
    NOT_FREE = "not_free"  # it would cost money, or has
    UNAUTHORIZED = "unauthorized"  # our key, never the caller's
    MODEL_GONE = "model_gone"
    MODEL_REFUSED = "model_refused"  # this model, its provider or its region will not take this request; another may
    GATEWAY_ERROR = "gateway_error"  # the gateway's own code failed on an answer that it had only to pass on
    REJECTED = "rejected"
    INTERRUPTED = "interrupted"  # after the caller already got something
    CANCELLED = "cancelled"  # the caller left


class Reaction(StrEnum):
    """What to do after a failure, before anything was delivered."""

    NEXT_MODEL = "next_model"
    TRY_AGAIN = "try_again"  # the same model may do better; another one too
    WAIT = "wait"
    STOP = "stop"


_K, _R = FailureKind, Reaction
REACTIONS: Final[Mapping[FailureKind, Reaction]] = {
    _K.UNREACHABLE: _R.TRY_AGAIN,
    _K.TIMEOUT: _R.TRY_AGAIN,
    _K.SERVER_ERROR: _R.TRY_AGAIN,
    _K.NO_ANSWER: _R.TRY_AGAIN,
    _K.ERROR_FINISH: _R.TRY_AGAIN,
    _K.EMPTY: _R.TRY_AGAIN,
    _K.TRUNCATED: _R.TRY_AGAIN,
    _K.INVALID_JSON: _R.TRY_AGAIN,
    _K.RATE_LIMITED: _R.TRY_AGAIN,
    _K.MINUTE_CAP: _R.WAIT,
    _K.DAY_CAP: _R.STOP,
    _K.UPSTREAM_BUSY: _R.NEXT_MODEL,
    _K.GATEWAY_COOLDOWN: _R.NEXT_MODEL,
    _K.RESTING: _R.STOP,
    _K.PAYMENT_REQUIRED: _R.STOP,
    _K.NOT_FREE: _R.NEXT_MODEL,
    _K.UNAUTHORIZED: _R.STOP,
    _K.MODEL_GONE: _R.NEXT_MODEL,
    _K.MODEL_REFUSED: _R.NEXT_MODEL,
    _K.GATEWAY_ERROR: _R.TRY_AGAIN,
    _K.REJECTED: _R.STOP,
    _K.INTERRUPTED: _R.STOP,
    _K.CANCELLED: _R.STOP,
}

GATEWAY_FAULTS: Final = frozenset(
    {
        _K.UNREACHABLE,
        _K.TIMEOUT,
        _K.SERVER_ERROR,
        _K.NO_ANSWER,
        _K.UNAUTHORIZED,
        _K.GATEWAY_COOLDOWN,
        _K.GATEWAY_ERROR,
    }
)
"""Kinds after which a request that the gateway did not serve goes direct. The gateway's 401 and 403 are ours,
never the caller's: it was called with our key."""

PATH_FAULTS: Final = GATEWAY_FAULTS - {_K.NO_ANSWER}
"""Kinds that speak against a path as a whole, whichever model was asked."""

PERHAPS_THE_MODEL: Final = frozenset({_K.TIMEOUT, _K.SERVER_ERROR})
"""Kinds of those that one bad model may have caused: they speak against the path once several models show them."""

PATH_LIVES: Final = frozenset(
    {
        _K.ERROR_FINISH,
        _K.EMPTY,
        _K.INVALID_JSON,
        _K.RATE_LIMITED,
        _K.MINUTE_CAP,
        _K.DAY_CAP,
        _K.UPSTREAM_BUSY,
        _K.PAYMENT_REQUIRED,
        _K.NOT_FREE,
        _K.MODEL_GONE,
        _K.MODEL_REFUSED,
        _K.REJECTED,
    }
)
"""Kinds that only a path that works can bring. What stands in neither set says nothing of the path."""

MODEL_FAULTS: Final = frozenset(
    {
        _K.TIMEOUT,
        _K.SERVER_ERROR,
        _K.NO_ANSWER,
        _K.ERROR_FINISH,
        _K.EMPTY,
        _K.TRUNCATED,
        _K.RATE_LIMITED,
        _K.UPSTREAM_BUSY,
        _K.MODEL_GONE,
        _K.NOT_FREE,
        _K.INTERRUPTED,
    }
)
"""Kinds that speak against a model on a path. Not a schema that was missed: that may be the prompt's fault."""

MODEL_LIVES: Final = frozenset({_K.INVALID_JSON})
"""Kinds that only a model that answers can bring. What stands in neither set says nothing of the model."""

PERHAPS_THE_BODY: Final = frozenset(
    {
        _K.UNREACHABLE,  # of a request that was sent: it may have brought the other side down
        _K.TIMEOUT,
        _K.SERVER_ERROR,
        _K.NO_ANSWER,
        _K.ERROR_FINISH,
        _K.EMPTY,
        _K.TRUNCATED,
        _K.INVALID_JSON,
        _K.INTERRUPTED,
        _K.GATEWAY_ERROR,
        _K.MODEL_REFUSED,
    }
)
"""Kinds that the body of one request may bring about: they speak against what others share once several show them."""

UNANSWERED: Final = (MODEL_FAULTS | PATH_FAULTS | PERHAPS_THE_BODY) - {_K.MODEL_REFUSED}
"""Kinds that show nothing of whether anything answers: if every model brings them, its path is left alone."""

LEADS_ON: Final = GATEWAY_FAULTS | {
    kind for kind, reaction in REACTIONS.items() if reaction in (Reaction.NEXT_MODEL, Reaction.TRY_AGAIN)
}
"""Kinds after which a request makes a further attempt."""


class AttemptRecord(NamedTuple):
    """What one attempt came to. A named tuple, because there is one for each attempt of each request.

    Attributes:
        path: Which way it went.
        model: The model asked for, as the cascade names it.
        status: The HTTP status, None where there was no answer.
        failure: Why it did not serve, None where it did.
        milliseconds: Wall time of the attempt; for a stream until its first token.
        served_model: The model the answer names.
        detail: What went wrong, as a sentence without secrets.
        first_token_milliseconds: To the first token of a stream, None for a plain answer.
        prompt_tokens: As the answer counts them, None where it does not.
        completion_tokens: The same.
        cost: What the answer says it cost, in US dollars; None where it does not say.
        overhead_milliseconds: What the gateway says it took itself, None where it does not.
        quota_used: Requests that it took out of the account's free quota, as we count it: 1, or 0 where no byte of
            it can have reached the other side.
    """

    path: Path
    model: str
    status: int | None
    failure: FailureKind | None
    milliseconds: float
    served_model: str | None = None
    detail: str | None = None
    first_token_milliseconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    overhead_milliseconds: float | None = None
    quota_used: int = 1
