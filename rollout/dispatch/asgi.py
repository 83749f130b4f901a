"""The little of ASGI that the completions endpoint needs: reading a body, answering, noticing that a caller left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")


class CallerLeft(Exception):
    """The caller hung up before its request was there."""


class BodyTooLong(Exception):
    """The body is longer than allowed; the rest of it was not read."""


async def read_body(receive: Receive, declared: bytes | None, limit: int) -> bytes:
    """Return a request's body; `declared` is its Content-Length header.

    Raises:
        BodyTooLong: it is, or says it is, longer than `limit` bytes.
        CallerLeft: the caller hung up first.
    """
    if declared is not None and declared.isdigit() and int(declared[:20]) > limit:
        raise BodyTooLong
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise BodyTooLong
        return body
    pieces = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise CallerLeft
        pieces += message.get("body", b"")
        if len(pieces) > limit:
            raise BodyTooLong
        if not message.get("more_body"):
            return bytes(pieces)
        message = await receive()


async def reply(send: Send, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a whole answer."""
    complete = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": complete})
    await send({"type": "http.response.body", "body": body})


class WhileCallerStays:
    """Run a block that is cancelled when the caller hangs up; the block then ends quietly, with `left` set.

    Nothing else may call `receive` meanwhile.
    """

    __slots__ = ("_listener", "_receive", "_task", "left")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.left = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._listener = asyncio.ensure_future(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._listener.cancel()
        if not self.left or self._task is None:
            return False
        if kind is None:
            # the cancellation was asked for and not yet delivered; take it here, where it is expected
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        elif not issubclass(kind, asyncio.CancelledError):
            self._task.uncancel()
            return False
        return self._task.uncancel() == 0

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self._task is not None:
            self._task.cancel()
