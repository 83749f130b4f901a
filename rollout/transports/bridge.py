"""A transport but for its library: httpx and httpx2 agree on what a request is, and each brings classes of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.inprocess import Answered, Request, aanswer, answer
from rollout.dispatch.relaying import AsyncRelay, Relay

_COMPLETIONS: Final = "/chat/completions"


class _Asked(Protocol):
    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Any: ...
    @property
    def headers(self) -> Any: ...
    @property
    def extensions(self) -> Mapping[str, Any]: ...
    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...


_RequestT = TypeVar("_RequestT", bound=_Asked)
_ResponseT = TypeVar("_ResponseT")
_In = TypeVar("_In", contravariant=True)
_Out = TypeVar("_Out", covariant=True)


class _Fallback(Protocol[_In, _Out]):
    def handle_request(self, request: _In, /) -> _Out: ...
    def close(self) -> None: ...


class _AsyncFallback(Protocol[_In, _Out]):
    async def handle_async_request(self, request: _In, /) -> _Out: ...
    async def aclose(self) -> None: ...


class SyncBridge(Generic[_RequestT, _ResponseT]):
    """A synchronous transport.

    Args:
        dispatcher: Sends chat completions; the process's own, as it is at each request, where None.
        fallback: Sends everything else.
        respond: Makes an answer one of the library.
    """

    def __init__(
        self,
        dispatcher: Dispatcher | None,
        fallback: _Fallback[_RequestT, _ResponseT],
        respond: Callable[[Answered[Relay]], _ResponseT],
    ) -> None:
        self._dispatcher = dispatcher
        self._fallback = fallback
        self._respond = respond

    def handle_request(self, request: _RequestT) -> _ResponseT:
        """Answer one request; never raises for what an upstream did."""
        if not _is_completion(request):
            return self._fallback.handle_request(request)
        return self._respond(answer(self._dispatcher, _read(request, request.read())))

    def close(self) -> None:
        """Close the fallback; the dispatcher is shared and stays open."""
        self._fallback.close()


class AsyncBridge(Generic[_RequestT, _ResponseT]):
    """An asynchronous transport; see `SyncBridge`. A cancellation closes the upstream."""

    def __init__(
        self,
        dispatcher: Dispatcher | None,
        fallback: _AsyncFallback[_RequestT, _ResponseT],
        respond: Callable[[Answered[AsyncRelay]], _ResponseT],
    ) -> None:
        self._dispatcher = dispatcher
        self._fallback = fallback
        self._respond = respond

    async def handle_async_request(self, request: _RequestT) -> _ResponseT:
        """Answer one request; never raises for what an upstream did."""
        if not _is_completion(request):
            return await self._fallback.handle_async_request(request)
        return self._respond(await aanswer(self._dispatcher, _read(request, await request.aread())))

    async def aclose(self) -> None:
        """Close the fallback; the dispatcher is shared and stays open."""
        await self._fallback.aclose()


class Pieces:
    """A stream's bytes as the libraries want them: iterated once, closed at any time."""

    def __init__(self, pieces: Relay) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Close the upstream."""
        self._pieces.close()


class AsyncPieces:
    """As `Pieces`, asynchronously."""

    def __init__(self, pieces: AsyncRelay) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        """Close the upstream."""
        await self._pieces.aclose()


def _is_completion(request: _Asked) -> bool:
    return request.method == "POST" and str(request.url.path).endswith(_COMPLETIONS)


def _read(request: _Asked, body: bytes) -> Request:
    timeout = request.extensions.get("timeout")
    patience = timeout.get("read") if isinstance(timeout, Mapping) else None
    return Request(request.headers.raw, body, float(patience) if isinstance(patience, int | float) else None)
