"""Post with aiohttp: one session per event loop, opened by its first call, closed with the loop."""

from __future__ import annotations

import select
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from rollout.dispatch.paths import Call
from rollout.dispatch.senders.per_loop import PerLoop, end_transport
from rollout.dispatch.senders.seam import CONNECT_SECONDS, KEEP_ALIVE_SECONDS, MAX_ANSWER_BYTES, SendFault, too_long
from rollout.domain.failure import FailureKind
from rollout.network import DIRECT, Network, Proxy, explain, is_refused_by_proxy

# deadlines are the caller's, over everything; aiohttp's own would only cut long answers short
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)


class _Connector(aiohttp.TCPConnector):
    """aiohttp's own pool, but for kept connections that the other side has closed: these are never written to.

    aiohttp hears of the end of a connection from the event loop. If the loop was busy, only the operating system knows.
    Afterwards nobody could say whether what was written there was read, so the operating system is asked before.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=network.tls())
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own parameter
    ) -> Connection:
        """Return a connection that is open as far as the operating system knows."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None:
                return connection
            if protocol not in self._used:  # new, so nothing was closed behind anybody's back
                self._used.add(protocol)
                return connection
            if not _has_something_to_say(connection):
                return connection
            connection.close()


def _has_something_to_say(connection: Connection) -> bool:
    """Tell whether something waits to be read; from a connection that nothing was asked on, only its end can come."""
    opened = connection.transport.get_extra_info("socket") if connection.transport is not None else None
    if opened is None or (descriptor := opened.fileno()) < 0:
        return False
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))


def _session(network: Network) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=_Connector(network),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=_TIMEOUT,
    )


async def _close(session: aiohttp.ClientSession) -> None:
    await session.close()


def _let_go(session: aiohttp.ClientSession) -> None:
    """Close a session whose loop is closed, its sockets too; aiohttp keeps them under a name of its own."""
    idle = getattr(session.connector, "_conns", {})
    transports = [protocol.transport for connections in idle.values() for protocol, _ in connections]
    with suppress(StopIteration):
        session.close().send(None)  # waits for nothing: it finds its loop closed
    for transport in transports:
        end_transport(transport)


@lru_cache(maxsize=16)
def _url(text: str) -> URL:
    return URL(text)


def _fault(error: Exception, proxy: Proxy | None = None) -> SendFault:
    if isinstance(error, aiohttp.ClientPayloadError):
        return SendFault(FailureKind.INTERRUPTED, "the connection was cut in the middle of the answer")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return SendFault(FailureKind.UNREACHABLE, f"no connection within {CONNECT_SECONDS:g} s", sent=False)
    # never the error's own text: it could quote what was sent
    sent = not (isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL) or is_refused_by_proxy(error))
    return SendFault(FailureKind.UNREACHABLE, f"no answer from the other side: {explain(error, proxy)}", sent=sent)


class _Opened:
    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers  # looked up in any case

    async def read(self) -> bytes:
        response = self._response
        try:
            # the length that is declared is the one on the wire: of what is compressed it says nothing
            declared = None if "Content-Encoding" in response.headers else response.content_length
            if declared is not None and declared <= MAX_ANSWER_BYTES:
                return await response.read()
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise too_long()
            return bytes(body)
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from None

    async def next(self) -> bytes:
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error) from None

    async def close(self) -> None:
        self._response.close()

    def abort(self) -> None:
        self._response.close()


class _Way(NamedTuple):
    """What a post to one URL is given: aiohttp's arguments, and headers beside the call's own."""

    options: dict[str, Any]
    headers: dict[str, str]


class AiohttpSender:
    """An `AsyncSender` on aiohttp."""

    def __init__(self, network: Network = DIRECT) -> None:
        self._network = network
        self._ways: dict[str, _Way] = {}  # by URL; there are two
        self._sessions = PerLoop(partial(_session, network), _close, _let_go)

    async def open(self, call: Call) -> _Opened:
        """Post a call and return once the head of its answer is there."""
        session = await self._sessions.get()
        way = self._ways.get(call.url)
        if way is None:
            way = self._way(call.url)
        try:
            headers = {**call.headers, **way.headers} if way.headers else call.headers
            response = await session.post(
                _url(call.url), data=call.body, headers=headers, allow_redirects=False, **way.options
            )
        except TimeoutError as error:
            if isinstance(error, aiohttp.ClientError):
                raise self._failed(error, call) from None
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed(error, call) from None
        return _Opened(response)

    def _way(self, url: str) -> _Way:
        proxy, way = self._network.proxy_for(url), _Way({}, {})
        if proxy is not None:
            if proxy.problem is not None:
                raise SendFault(FailureKind.UNREACHABLE, f"no answer from the other side: {proxy.problem}", sent=False)
            way.options["proxy"] = proxy.address
            if proxy.credentials is not None:
                said = {"Proxy-Authorization": aiohttp.encode_basic_auth(*proxy.credentials)}
                # a tunnel is asked for with headers of its own; a plain request carries them itself
                way = _Way(way.options | {"proxy_headers": said}, {} if url.startswith("https:") else said)
        if len(self._ways) < 100:
            self._ways[url] = way
        return way

    def _failed(self, error: Exception, call: Call) -> SendFault:
        return _fault(error, self._network.proxy_for(call.url))

    async def aclose(self) -> None:
        """Close this loop's session; the next call opens another."""
        await self._sessions.aclose()
