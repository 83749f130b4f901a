"""One request and its answer on the ASGI level, where a client's leaving is seen while nothing is sent."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from starlette.types import Message, Receive, Send

from rollout.simulator.record import Entry

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream")
HTML = (b"content-type", b"text/html; charset=utf-8")


class ClientLeft(Exception):
    """The client closed its connection before the answer's end."""


class TooLarge(Exception):
    """The request's body is over the limit."""


class Exchange:
    """Reads the request, sends the answer, and keeps the record's entry true."""

    def __init__(self, receive: Receive, send: Send, entry: Entry, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._receive = receive
        self._send = send
        self._sleep = sleep
        self._leaving: asyncio.Task[None] | None = None
        self.entry = entry

    async def read_body(self, limit: int) -> bytes:
        """Read the whole body.

        Raises:
            TooLarge: it has more than `limit` bytes; it was read to its end, so that the answer arrives.
            ClientLeft: the connection closed before its end.
        """
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part: bytes = message.get("body", b"")
            size += len(part)
            if size <= limit:
                parts.append(part)
            else:
                parts.clear()
            more = message.get("more_body", False)
        if size > limit:
            raise TooLarge
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def respond(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a complete answer at once."""
        self._check()
        length = (b"content-length", b"%d" % len(body))
        await self.start(status, (*headers, length))
        await self._send({"type": "http.response.body", "body": body})

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer."""
        self._check()
        self.entry.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, body: bytes) -> None:
        """Send a part of the body.

        Raises:
            ClientLeft: nobody is there to read it.
        """
        self._check()
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._check()

    async def end(self, body: bytes = b"") -> None:
        """Send the last part of the body.

        Raises:
            ClientLeft: nobody is there to read it.
        """
        self._check()
        self.release()
        await self._send({"type": "http.response.body", "body": body})

    def watch(self) -> asyncio.Task[None]:
        """Notice from now on when the client leaves; the body must have been read."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._until_left())
        return self._leaving

    async def _until_left(self) -> None:
        message: Message | Mapping[str, str] = {"type": ""}
        while message["type"] != "http.disconnect":
            message = await self._receive()

    def _check(self) -> None:
        if self._leaving is not None and self._leaving.done():
            raise ClientLeft

    async def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            ClientLeft: the client left meanwhile.
        """
        leaving = self.watch()
        waiting = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait((leaving, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        self._check()

    async def silence(self) -> None:
        """Say nothing more until the client leaves; always raises ClientLeft."""
        await self.watch()
        raise ClientLeft

    def release(self) -> None:
        """Stop watching."""
        if self._leaving is not None and not self._leaving.done():
            self._leaving.cancel()
