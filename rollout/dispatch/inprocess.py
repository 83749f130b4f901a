"""Answer a chat completion over HTTP without a server: what the transports run. Bytes in, status, headers, bytes out.

Nothing is raised for what an upstream did: it is an answer, with a status of the endpoint's and `x-should-retry`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

from rollout.client.user import current_user
from rollout.dispatch.asgi import JSON, Headers
from rollout.dispatch.completions import (
    Refused,
    Reply,
    asked,
    decided,
    failure_reply,
    read_document,
    refusal,
    stream_headers,
)
from rollout.dispatch.decision import Finish
from rollout.dispatch.exchange import Answer
from rollout.dispatch.invoke import FIRST_SNAPSHOT_SECONDS, Dispatcher, default_dispatcher
from rollout.dispatch.relaying import AsyncRelay, Relay
from rollout.dispatch.sending import Sending
from rollout.domain.errors import InvalidRequest
from rollout.domain.failure import FailureKind
from rollout.resilience.policy import Verdict
from rollout.settings import Upstreams

_Pieces = TypeVar("_Pieces", Relay, AsyncRelay)


class Request(NamedTuple):
    """A chat completion as an HTTP client says it; `patience` is how many seconds it waits for each read."""

    headers: Iterable[tuple[bytes, bytes]]
    body: bytes
    patience: float | None = None


class Answered(NamedTuple, Generic[_Pieces]):
    """An answer with its whole body, or a stream's beginning: then `body` is None and `pieces` yields the bytes.

    Pieces that are not read to their end have to be closed.
    """

    status: int
    headers: Headers
    body: bytes | None
    pieces: _Pieces | None = None


def answer(dispatcher: Dispatcher | None, request: Request) -> Answered[Relay]:
    """Answer a chat completion.

    Args:
        dispatcher: Sends; the process's own, as it is now, where None.
        request: What is asked.
    """
    dispatcher = dispatcher or default_dispatcher()
    identity = _identity()
    try:
        if not dispatcher.client.cascade:
            dispatcher.client.wait_until_ready(FIRST_SNAPSHOT_SECONDS)
        sending = _sending(dispatcher, request)
        verdict, brought = dispatcher.perform(sending)
    except (InvalidRequest, Refused) as error:
        return Answered(*_refused(error, identity))
    if brought is None or brought.opening is None or brought.fault is not None:
        return Answered(*_plain(dispatcher, sending, verdict, brought, identity))
    pieces = Relay(sending, brought.opening, brought.live, _finish(dispatcher, sending, identity))
    return Answered(200, [*stream_headers(sending.decision(), brought.content_type), identity], None, pieces)


async def aanswer(dispatcher: Dispatcher | None, request: Request) -> Answered[AsyncRelay]:
    """Do what `answer` does, asynchronously; a cancellation closes the upstream and passes on."""
    dispatcher = dispatcher or default_dispatcher()
    identity = _identity()
    try:
        if not dispatcher.client.cascade:
            await asyncio.to_thread(dispatcher.client.wait_until_ready, FIRST_SNAPSHOT_SECONDS)
        sending = _sending(dispatcher, request)
        verdict, brought = await dispatcher.aperform(sending)
    except (InvalidRequest, Refused) as error:
        return Answered(*_refused(error, identity))
    if brought is None or brought.opening is None or brought.fault is not None:
        return Answered(*_plain(dispatcher, sending, verdict, brought, identity))
    pieces = AsyncRelay(sending, brought.opening, brought.live, _finish(dispatcher, sending, identity))
    return Answered(200, [*stream_headers(sending.decision(), brought.content_type), identity], None, pieces)


def _identity() -> tuple[bytes, bytes]:
    return b"x-rollout-request-id", secrets.token_hex(8).encode()


def _sending(dispatcher: Dispatcher, request: Request) -> Sending:
    """Decide a request's way; nothing is sent."""
    headers = {name.lower(): value for name, value in request.headers}
    wanted = asked(headers, read_document(headers.get(b"content-type", b""), request.body))
    user = wanted.user or current_user()
    return dispatcher.sending(
        wanted._replace(user=user), upstreams=_patient(dispatcher.client.upstreams, request.patience)
    )


def _finish(dispatcher: Dispatcher, sending: Sending, identity: tuple[bytes, bytes]) -> Finish:
    """Return what tells the observer that a request is over, under the id its answer carries."""
    return lambda failure: dispatcher.finish(sending, failure, request_id=identity[1].decode())


def _patient(upstreams: Upstreams, patience: float | None) -> Upstreams:
    """Return the limits that hold for a client that waits only so long for each read."""
    if patience is None or patience >= max(upstreams.total_timeout, upstreams.stall_timeout):
        return upstreams
    return replace(
        upstreams,
        total_timeout=min(patience, upstreams.total_timeout),
        stall_timeout=min(patience, upstreams.stall_timeout),
    )


def _refused(error: InvalidRequest | Refused, identity: tuple[bytes, bytes]) -> Reply:
    reply = (error if isinstance(error, Refused) else refusal(error)).reply()
    return reply._replace(headers=[*reply.headers, identity])


def _plain(
    dispatcher: Dispatcher, sending: Sending, verdict: Verdict, brought: Answer | None, identity: tuple[bytes, bytes]
) -> Reply:
    _finish(dispatcher, sending, identity)(verdict.failure)
    if brought is None or brought.fault is not None:
        error = sending.failed(verdict, brought.fault if brought is not None else None)
        reply = failure_reply(error, verdict.failure or FailureKind.NO_ANSWER)
        return reply._replace(headers=[*reply.headers, identity])
    content_type = (b"content-type", brought.content_type.encode("latin-1", "replace") or JSON[1])
    return Reply(200, [*decided(sending.decision()), content_type, identity], brought.raw())
