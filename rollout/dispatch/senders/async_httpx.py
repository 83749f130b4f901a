"""Post with httpx asynchronously, where aiohttp is not installed: slower, the same behaviour."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

import httpx

from rollout.dispatch.paths import Call
from rollout.dispatch.senders.per_loop import PerLoop, end_transport
from rollout.dispatch.senders.seam import KEEP_ALIVE_SECONDS, MAX_ANSWER_BYTES, too_long
from rollout.dispatch.senders.sync_httpx import TIMEOUT, fault_of
from rollout.network import DIRECT, Network


class _Clients:
    """The clients of one event loop: one for each way to the other side, because a client of httpx knows one."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._made: dict[str, httpx.AsyncClient] = {}

    def towards(self, url: str) -> httpx.AsyncClient:
        return self._made.get(url) or self._made.setdefault(url, self._open(url))

    async def aclose(self) -> None:
        for client in self._made.values():
            await client.aclose()

    def let_go(self) -> None:
        """Close the sockets of a loop that is closed."""
        for client in self._made.values():
            pool = getattr(getattr(client, "_transport", None), "_pool", None)
            for connection in getattr(pool, "connections", ()):
                end_transport(_innermost(connection))

    def _open(self, url: str) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=KEEP_ALIVE_SECONDS)
        return httpx.AsyncClient(
            timeout=TIMEOUT, limits=limits, follow_redirects=False, **self._network.httpx_options(url)
        )


async def _close(clients: _Clients) -> None:
    await clients.aclose()


_INWARDS: Final = ("_connection", "_network_stream", "_stream", "transport_stream", "_transport")
"""What httpcore and anyio call the next inner layer of a connection; the innermost one is asyncio's transport."""


def _innermost(layer: object) -> object:
    while (inner := next(filter(None, (getattr(layer, name, None) for name in _INWARDS)), None)) is not None:
        layer = inner
    return layer


class _Opened:
    __slots__ = ("_pieces", "_response", "headers", "status")

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        body = bytearray()
        while piece := await self.next():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise too_long()
        return bytes(body)

    async def next(self) -> bytes:
        try:
            return await anext(self._pieces, b"")
        except (httpx.HTTPError, OSError) as error:
            raise fault_of(error, begun=True) from None

    async def close(self) -> None:
        await self._response.aclose()

    def abort(self) -> None:
        # httpx closes in a coroutine alone; but its pieces are asynchronous generators, which the loop ends, and
        # with them the connection, as soon as nobody holds this any more
        return


class AsyncHttpxSender:
    """An `AsyncSender` on httpx."""

    def __init__(self, network: Network = DIRECT) -> None:
        self._network = network
        self._clients = PerLoop(partial(_Clients, network), _close, _Clients.let_go)

    async def open(self, call: Call) -> _Opened:
        """Post a call and return once the head of its answer is there."""
        clients = await self._clients.get()
        try:
            client = clients.towards(call.url)
            request = client.build_request("POST", call.url, content=call.body, headers=dict(call.headers))
            response = await client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise fault_of(error, begun=False, proxy=self._network.proxy_for(call.url)) from None
        return _Opened(response)

    async def aclose(self) -> None:
        """Close this loop's client; the next call opens another."""
        await self._clients.aclose()
