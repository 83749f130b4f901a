"""The shim behind an HTTP client: hand its transport to a client of httpx, and chat completions go the user's way.

    from openai import OpenAI                      # 2.x; for 3.x see rollout.transports.httpx2
    client = OpenAI(api_key="unused", http_client=httpx.Client(transport=RolloutTransport()))

A `POST` to `…/chat/completions` is sent by the dispatcher, whatever host its URL names and whatever key it carries:
where the paths lead and with which keys is this process's configuration. The user is the header `X-Rollout-User`,
else the body's `user`, else `with user(...)`. Answers are those of the completions endpoint, bytes and headers
alike; what an upstream did is an answer, never an exception, with `x-should-retry: false`, so that no client sends a
request again that was already sent as often as is good. Every other request goes to `fallback`.

A read time-out of the client shortens the dispatcher's own limits; its other time-outs have no meaning here.
"""

from __future__ import annotations

import httpx

from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.inprocess import Answered
from rollout.dispatch.relaying import AsyncRelay, Relay
from rollout.transports.bridge import AsyncBridge, AsyncPieces, Pieces, SyncBridge

__all__ = ["AsyncRolloutTransport", "RolloutTransport"]


class _Stream(Pieces, httpx.SyncByteStream):
    pass


class _AsyncStream(AsyncPieces, httpx.AsyncByteStream):
    pass


def _respond(answered: Answered[Relay]) -> httpx.Response:
    stream = None if answered.pieces is None else _Stream(answered.pieces)
    return httpx.Response(answered.status, headers=answered.headers, content=answered.body, stream=stream)


def _arespond(answered: Answered[AsyncRelay]) -> httpx.Response:
    stream = None if answered.pieces is None else _AsyncStream(answered.pieces)
    return httpx.Response(answered.status, headers=answered.headers, content=answered.body, stream=stream)


class RolloutTransport(SyncBridge[httpx.Request, httpx.Response], httpx.BaseTransport):
    """A transport for `httpx.Client`.

    Args:
        dispatcher: Sends chat completions; the process's own where None.
        fallback: Sends everything else; a transport of httpx's own where None.
    """

    def __init__(self, dispatcher: Dispatcher | None = None, *, fallback: httpx.BaseTransport | None = None) -> None:
        super().__init__(dispatcher, fallback or httpx.HTTPTransport(), _respond)


class AsyncRolloutTransport(AsyncBridge[httpx.Request, httpx.Response], httpx.AsyncBaseTransport):
    """A transport for `httpx.AsyncClient`; see `RolloutTransport`."""

    def __init__(
        self, dispatcher: Dispatcher | None = None, *, fallback: httpx.AsyncBaseTransport | None = None
    ) -> None:
        super().__init__(dispatcher, fallback or httpx.AsyncHTTPTransport(), _arespond)
