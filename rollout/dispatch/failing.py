"""The error for a request that nobody answered: what happened, what to do, and when to come again. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from typing import Final

from rollout.dispatch.classify import Fault
from rollout.dispatch.decision import Decision
from rollout.dispatch.failures import FACES
from rollout.domain.errors import SendingFailed
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.resilience.permit import Refusal
from rollout.settings import Upstreams

_CAPS: Final = (FailureKind.MINUTE_CAP, FailureKind.DAY_CAP)


def nobody_answered(
    refusal: Refusal | None, fault: Fault, decision: Decision, upstreams: Upstreams, *, wall: float
) -> SendingFailed:
    """Return the error for attempts that all failed.

    Args:
        refusal: why nothing more was sent, where that is what ended it.
        fault: the last attempt's.
        decision: what was decided, with every attempt.
        upstreams: where the paths lead.
        wall: now, in seconds since the epoch.
    """
    wait = fault.retry_after
    advice = _advice(fault, decision, upstreams)
    if refusal is not None:
        wait = refusal.retry_after or None if wait is None else wait  # 0: nobody knows when
        advice += f"; nothing else was tried: {refusal.detail}"
    if fault.kind in _CAPS and wait is not None:
        advice += f"; try again {_when(wait, wall)}"
    return sending_failed(fault, decision, advice=advice, retry_after=wait)


def nothing_sent(refusal: Refusal | None, decision: Decision, *, wall: float) -> SendingFailed:
    """Return the error for a request of which nothing may be sent now; `wall` as above."""
    kind = refusal.kind if refusal is not None else FailureKind.RESTING
    detail = refusal.detail if refusal is not None else "no model may be asked now"
    wait: float | None = None
    if kind is FailureKind.NOT_FREE:
        advice = "set another cascade with `rollout cascade set`, or let a person look at why it is not free"
    else:
        wait = refusal.retry_after if refusal is not None else None
        advice = "try again" if wait is None else f"try again {_when(wait, wall)}"
    message = f"nothing was sent: {detail}; {advice}"
    return FACES[kind].error(message, attempts=decision.attempts, retry_after=wait, decision=decision)


def sending_failed(
    fault: Fault, decision: Decision, *, advice: str = "", retry_after: float | None = None
) -> SendingFailed:
    """Return the error of the tree that fits a fault; the last attempt says where it happened."""
    first, last = decision.attempts[0], decision.attempts[-1]
    answered = f"HTTP {last.status}, " if last.status is not None else ""
    message = f"{last.path} failed with {last.model!r} ({answered}{fault.kind}): {last.detail}{advice}"
    if len(decision.attempts) > 1:
        message += f"; before that {first.path} failed ({first.failure}: {first.detail})"
    return FACES[fault.kind].error(
        message, attempts=decision.attempts, status=last.status, retry_after=retry_after, decision=decision
    )


def _advice(fault: Fault, decision: Decision, upstreams: Upstreams) -> str:
    last = decision.attempts[-1]
    match fault.kind:
        case FailureKind.UNAUTHORIZED:
            return f"; check {'LITELLM_MASTER_KEY' if last.path is Path.LITELLM else 'OPENROUTER_API_KEY'}"
        case FailureKind.PAYMENT_REQUIRED:
            return "; look at the credits and limits of the OpenRouter account"
        case FailureKind.MODEL_GONE | FailureKind.NOT_FREE:
            return f"; take {last.model!r} out of the cascade if it stays away"
        case _:
            pass
    if last.path is Path.LITELLM and not upstreams.openrouter_key:
        return "; it could not go direct either, because OPENROUTER_API_KEY is not set"
    return ""


def _when(seconds: float, wall: float) -> str:
    """Return a moment some seconds from now, for people."""
    if seconds < 120:
        return f"in {ceil(seconds)} s"
    minutes = ceil(seconds / 60)
    span = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    return f"in {span}, at {datetime.fromtimestamp(wall + seconds, UTC):%H:%M} UTC"
