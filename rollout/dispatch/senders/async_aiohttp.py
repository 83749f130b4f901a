"""Post with aiohttp: one session per event loop, opened by its first call, closed with the loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import aiohttp
from yarl import URL

from rollout.dispatch.paths import Call
from rollout.dispatch.senders.per_loop import PerLoop
from rollout.dispatch.senders.seam import CONNECT_SECONDS, KEEP_ALIVE_SECONDS, MAX_ANSWER_BYTES, SendFault, too_long
from rollout.domain.failure import FailureKind

# deadlines are the caller's, over everything; aiohttp's own would only cut long answers short
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=_TIMEOUT,
    )


async def _close(session: aiohttp.ClientSession) -> None:
    await session.close()


@lru_cache(maxsize=16)
def _url(text: str) -> URL:
    return URL(text)


def _fault(error: Exception) -> SendFault:
    if isinstance(error, aiohttp.ClientPayloadError):
        return SendFault(FailureKind.INTERRUPTED, "the connection was cut in the middle of the answer")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return SendFault(FailureKind.UNREACHABLE, f"no connection within {CONNECT_SECONDS:g} s", sent=False)
    # never the error's own text where it could quote what was sent
    reason = getattr(error, "strerror", None) or type(error).__name__
    sent = not isinstance(error, aiohttp.ClientConnectorError | aiohttp.InvalidURL)
    return SendFault(FailureKind.UNREACHABLE, f"no answer from the other side: {reason}", sent=sent)


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


class AiohttpSender:
    """An `AsyncSender` on aiohttp."""

    def __init__(self) -> None:
        self._sessions = PerLoop(_session, _close)

    async def open(self, call: Call) -> _Opened:
        """Post a call and return once the head of its answer is there."""
        session = await self._sessions.get()
        try:
            response = await session.post(_url(call.url), data=call.body, headers=call.headers, allow_redirects=False)
        except TimeoutError as error:
            if isinstance(error, aiohttp.ClientError):
                raise _fault(error) from None
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _fault(error) from None
        return _Opened(response)

    async def aclose(self) -> None:
        """Close this loop's session; the next call opens another."""
        await self._sessions.aclose()
