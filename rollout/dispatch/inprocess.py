"""Answer a chat completion over HTTP without a server: what the transports run. Bytes in, status, headers, bytes out.

Nothing is raised for what an upstream did: it is an answer, with a status of the endpoint's and `x-should-retry`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

from rollout.client.user import current_user
from rollout.dispatch.asgi import Headers
from rollout.dispatch.completions import Refused, asked, read_document, stream_headers
from rollout.dispatch.decision import Finish
from rollout.dispatch.dispatcher import FIRST_SNAPSHOT_SECONDS, Dispatcher
from rollout.dispatch.invoke import default_dispatcher
from rollout.dispatch.relaying import AsyncRelay, Relay
from rollout.dispatch.replying import new_request_id, refused_reply, whole_reply
from rollout.dispatch.sending import Sending
from rollout.domain.errors import InvalidRequest
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
    identity, header = new_request_id()
    try:
        if not dispatcher.client.cascade:
            dispatcher.client.wait_until_ready(FIRST_SNAPSHOT_SECONDS)
        sending = _sending(dispatcher, request, identity)
        verdict, brought = dispatcher.perform(sending)
    except (InvalidRequest, Refused) as error:
        return Answered(*refused_reply(error, [header]))
    if brought is None or brought.opening is None or brought.fault is not None:
        dispatcher.finish(sending, verdict.failure)
        return Answered(*whole_reply(sending, verdict, brought, [header]))
    pieces = Relay(sending, brought.opening, brought.live, _finish(dispatcher, sending))
    return Answered(200, [*stream_headers(sending.decision(), brought.content_type), header], None, pieces)


async def aanswer(dispatcher: Dispatcher | None, request: Request) -> Answered[AsyncRelay]:
    """Do what `answer` does, asynchronously; a cancellation closes the upstream and passes on."""
    dispatcher = dispatcher or default_dispatcher()
    identity, header = new_request_id()
    try:
        if not dispatcher.client.cascade:
            await asyncio.to_thread(dispatcher.client.wait_until_ready, FIRST_SNAPSHOT_SECONDS)
        sending = _sending(dispatcher, request, identity)
        verdict, brought = await dispatcher.aperform(sending)
    except (InvalidRequest, Refused) as error:
        return Answered(*refused_reply(error, [header]))
    if brought is None or brought.opening is None or brought.fault is not None:
        dispatcher.finish(sending, verdict.failure)
        return Answered(*whole_reply(sending, verdict, brought, [header]))
    pieces = AsyncRelay(sending, brought.opening, brought.live, _finish(dispatcher, sending))
    return Answered(200, [*stream_headers(sending.decision(), brought.content_type), header], None, pieces)


def _sending(dispatcher: Dispatcher, request: Request, identity: str) -> Sending:
    """Decide a request's way; nothing is sent."""
    headers = {name.lower(): value for name, value in request.headers}
    wanted = asked(headers, read_document(headers.get(b"content-type", b""), request.body))
    user = wanted.user or current_user()
    upstreams = _patient(dispatcher.client.upstreams, request.patience)
    return dispatcher.sending(wanted._replace(user=user), upstreams=upstreams, request_id=identity)


def _finish(dispatcher: Dispatcher, sending: Sending) -> Finish:
    return lambda failure: dispatcher.finish(sending, failure)


def _patient(upstreams: Upstreams, patience: float | None) -> Upstreams:
    """Return the limits that hold for a client that waits only so long for each read."""
    if patience is None or patience >= max(upstreams.total_timeout, upstreams.stall_timeout):
        return upstreams
    return replace(
        upstreams,
        total_timeout=min(patience, upstreams.total_timeout),
        stall_timeout=min(patience, upstreams.stall_timeout),
    )
