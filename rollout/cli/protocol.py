"""HTTP/1.1 as uvicorn reads it, with limits on what is read before anybody knows who is calling.

    head    (request line and headers) at most MAX_HEAD bytes, else 431; of that the URL at most MAX_URL, else 414
    whole   at most MAX_MESSAGE bytes with the framing of its chunks
    time    a head or a body takes at most SLOWEST seconds, and one more for each BYTES_PER_SECOND that came; 408

Uvicorn and httptools have none of these. What a request costs here is a few attribute reads: its size is counted in
the pieces it arrives in, and time is looked at once a second for all connections together.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD: Final = 32 * 1024
"""As many bytes as nginx takes by default (four buffers of 8 KiB)."""

MAX_URL: Final = 8 * 1024
"""RFC 9110 4.1 asks every server for 8,000 bytes at least."""

MAX_MESSAGE: Final = 64 * 1024 * 1024
"""Six times the largest body, which is what a body costs whose chunks hold one byte each."""

SLOWEST: Final = 20.0
BYTES_PER_SECOND: Final = 4 * 1024
"""As Apache's mod_reqtimeout does it: 20 s, and longer for as long as it comes at some speed."""

_REFUSALS: Final = {
    408: ("Request Timeout", f"the request did not arrive within {SLOWEST:.0f} seconds"),
    414: ("URI Too Long", f"a URL may have {MAX_URL:,} bytes"),
    431: ("Request Header Fields Too Large", f"the headers of a request may have {MAX_HEAD:,} bytes together"),
}


class _TooLarge(Exception):
    """The head is too large: raised through the parser, which then reads no more."""


class _Trailers(list[tuple[bytes, bytes]]):
    """Takes the headers behind a chunked body, which nothing here reads, and keeps none."""

    def append(self, _header: tuple[bytes, bytes], /) -> None:
        """Forget a header."""


_NO_TRAILERS: Final = _Trailers()

# called for every request; `super()` costs twice as much as a name
_READ: Final = HttpToolsProtocol.data_received
_START: Final = HttpToolsProtocol.on_headers_complete
_COMPLETE: Final = HttpToolsProtocol.on_message_complete


class BoundedProtocol(HttpToolsProtocol):
    """One connection; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url = b""  # uvicorn's own, which it has only once a message began
        self._in_head = True
        self._began = self.loop.time()  # when the message began that is awaited; 0 if none is
        self._came = 0  # bytes of it
        self._refusal: int | None = None

    def data_received(self, data: bytes) -> None:
        """Take the next piece of what the client sends."""
        if not self._began:
            self._began, self._came = self.loop.time(), 0
        self._came += len(data)
        _READ(self, data)
        if self._came > MAX_HEAD and self._began and not self.transport.is_closing():
            if self._in_head:
                self._refuse(414 if len(self.url) > MAX_URL else 431)
            elif self._came > MAX_MESSAGE:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large."""
        came = self._came
        if not came:  # it was sent in one piece with the message before: only what follows is counted
            self._began = self.loop.time()
        if len(self.url) > MAX_URL:
            self._refusal = 414
            raise _TooLarge
        if (came > MAX_HEAD or not came) and self._head_size() > MAX_HEAD:
            self._refusal = 431
            raise _TooLarge
        self._in_head = False
        _START(self)
        self.headers = _NO_TRAILERS

    def on_message_complete(self) -> None:
        """Note that the message is whole: nothing is awaited any more."""
        self._in_head, self._began, self._came = True, 0.0, 0
        _COMPLETE(self)

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses; a head that is too large among it."""
        if self._refusal is None:
            super().send_400_response(msg)
        else:
            self._refuse(self._refusal)

    def is_late(self, now: float) -> bool:
        """Tell whether the message that is awaited takes too long, as someone does who wants to hold the connection.

        While requests wait in line behind one that is being answered, it is we who do not read.
        """
        allowed = SLOWEST + self._came / BYTES_PER_SECOND
        return bool(self._began) and now - self._began > allowed and not self.pipeline

    def end_late(self) -> None:
        """Give up on a message that takes too long."""
        if self._in_head and self._came:
            self._refuse(408)
        else:
            self.transport.abort()  # the request under way, if there is one, hears that its caller left

    def _head_size(self) -> int:
        # a separator, a space and a line end beside each name and value
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _refuse(self, status: int) -> None:
        title, detail = _REFUSALS[status]
        document = {"type": "about:blank", "title": title, "status": status, "detail": f"{detail}; nothing was done"}
        body = json.dumps(document).encode()
        head = (
            f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\ncontent-length: {len(body)}\r\n"
            "cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        )
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.abort()  # the answer to the request before is under way; nothing may stand inside it
        elif not self.transport.is_closing():
            self.transport.write(head.encode() + body)
            self.transport.close()


def end_late_messages(connections: Iterable[asyncio.Protocol], now: float) -> None:
    """End every message that takes too long; `now` is the event loop's time."""
    for connection in list(connections):
        if isinstance(connection, BoundedProtocol) and connection.is_late(now):
            connection.end_late()
