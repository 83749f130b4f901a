"""What the endpoint and the transports answer with over HTTP, once a request was refused or its attempts are over."""

from __future__ import annotations

import secrets

from rollout.dispatch.asgi import Headers
from rollout.dispatch.completions import Refused, Reply, failure_reply, plain_headers, refusal
from rollout.dispatch.exchange import Answer
from rollout.dispatch.sending import Sending
from rollout.domain.errors import InvalidRequest
from rollout.domain.failure import FailureKind
from rollout.resilience.policy import Verdict


def new_request_id() -> tuple[str, tuple[bytes, bytes]]:
    """Return what an answer is called, and the header that says so."""
    identity = secrets.token_hex(8)
    return identity, (b"x-rollout-request-id", identity.encode())


def refused_reply(error: InvalidRequest | Refused, constant: Headers) -> Reply:
    """Return the answer to a request of which nothing was sent; `constant` headers stand in every answer."""
    reply = (error if isinstance(error, Refused) else refusal(error)).reply()
    return reply._replace(headers=[*reply.headers, *constant])


def whole_reply(sending: Sending, verdict: Verdict, answer: Answer | None, constant: Headers) -> Reply:
    """Return what the attempts brought, where that is no stream: a plain answer, or the error for want of one."""
    if answer is None or answer.fault is not None:
        error = sending.failed(verdict, answer.fault if answer is not None else None)
        reply = failure_reply(error, verdict.failure or FailureKind.NO_ANSWER)
        return reply._replace(headers=[*reply.headers, *constant])
    headers = plain_headers(sending.decision(), answer.content_type, answer.rewrites)
    return Reply(200, [*constant, *headers], answer.raw())
