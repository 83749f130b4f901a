"""`RolloutTransport` and `AsyncRolloutTransport` for httpx2, the library of the OpenAI SDK 3.x.

    client = OpenAI(api_key="unused", http_client=httpx2.Client(transport=RolloutTransport()))

Everything else is as `rollout.transports` says.
"""

from __future__ import annotations

import httpx2

from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.inprocess import Answered
from rollout.dispatch.relaying import AsyncRelay, Relay
from rollout.transports.bridge import AsyncBridge, AsyncPieces, Pieces, SyncBridge

__all__ = ["AsyncRolloutTransport", "RolloutTransport"]


class _Stream(Pieces, httpx2.SyncByteStream):
    pass


class _AsyncStream(AsyncPieces, httpx2.AsyncByteStream):
    pass


def _respond(answered: Answered[Relay]) -> httpx2.Response:
    stream = None if answered.pieces is None else _Stream(answered.pieces)
    return httpx2.Response(answered.status, headers=answered.headers, content=answered.body, stream=stream)


def _arespond(answered: Answered[AsyncRelay]) -> httpx2.Response:
    stream = None if answered.pieces is None else _AsyncStream(answered.pieces)
    return httpx2.Response(answered.status, headers=answered.headers, content=answered.body, stream=stream)


class RolloutTransport(SyncBridge[httpx2.Request, httpx2.Response], httpx2.BaseTransport):
    """A transport for `httpx2.Client`.

    Args:
        dispatcher: Sends chat completions; the process's own where None.
        fallback: Sends everything else; a transport of httpx2's own where None.
    """

    def __init__(self, dispatcher: Dispatcher | None = None, *, fallback: httpx2.BaseTransport | None = None) -> None:
        super().__init__(dispatcher, fallback or httpx2.HTTPTransport(), _respond)


class AsyncRolloutTransport(AsyncBridge[httpx2.Request, httpx2.Response], httpx2.AsyncBaseTransport):
    """A transport for `httpx2.AsyncClient`; see `RolloutTransport`."""

    def __init__(
        self, dispatcher: Dispatcher | None = None, *, fallback: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        super().__init__(dispatcher, fallback or httpx2.AsyncHTTPTransport(), _arespond)
