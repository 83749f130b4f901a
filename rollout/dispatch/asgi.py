"""The little of ASGI that the completions endpoint needs: reading a body, answering, noticing that a caller left."""

from __future__ import annotations

import asyncio
import zlib
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
ACCEPT_ENCODING: Final = (b"accept-encoding", b"gzip, deflate")
"""Tells a caller whose encoding was refused which are taken (RFC 9110 12.5.3)."""

_PIECE: Final = 16 * 1024
"""Bytes given to zlib at once: it copies what it leaves over, once for each member."""

_MAX_MEMBERS: Final = 1_000
"""Members a gzip body may have. Tools that compress in blocks make one for each 64 KiB; a member takes 20 bytes."""

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32  # zlib's own way to take either, told apart by their first bytes


class CallerLeft(Exception):
    """The caller hung up before its request was there."""


class BodyTooLong(Exception):
    """The body is longer than allowed; the rest of it was not read."""


class UnknownEncoding(Exception):
    """The body is compressed in a way that is not taken; says which are."""


class UnreadableBody(Exception):
    """The body is not compressed as it says; says how."""


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


async def unpack(raw: bytes, encoding: bytes | None, limit: int) -> bytes:
    """Return a body without the compression its Content-Encoding header names; the same object if there is none.

    Raises:
        UnknownEncoding: it is compressed in another way than gzip or deflate.
        UnreadableBody: it is not what the header says.
        BodyTooLong: it is longer than `limit` bytes once unpacked; no more than that is unpacked.
    """
    name = (encoding or b"").strip().lower()
    if name in {b"", b"identity"} or not raw:
        return raw
    if name not in {b"gzip", b"x-gzip", b"deflate"}:
        shown = name[:40].decode("latin-1")
        raise UnknownEncoding(f"the body is encoded as {shown!r}; send it plain, or as gzip or deflate")
    # a few kilobytes may stand for the limit, which takes milliseconds: not on the event loop
    return await asyncio.to_thread(_inflate, raw, limit)


def _inflate(raw: bytes, limit: int) -> bytes:
    unpacked, at = bytearray(), 0
    for _ in range(_MAX_MEMBERS):  # a gzip body may have several members, one after the other (RFC 1952 2.2)
        stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        while not stream.eof:
            piece = raw[at : at + _PIECE]
            if not piece:
                raise UnreadableBody("the compressed body ends before it is complete")
            try:
                unpacked += stream.decompress(piece, limit + 1 - len(unpacked))
            except zlib.error:
                raise UnreadableBody("the body is not the gzip or deflate its Content-Encoding names") from None
            if len(unpacked) > limit:
                raise BodyTooLong
            at += len(piece)
        at -= len(stream.unused_data)
        if at == len(raw):
            return bytes(unpacked)
    raise UnreadableBody(f"the compressed body has more than {_MAX_MEMBERS:,} members; compress it as one")


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
