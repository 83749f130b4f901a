"""Server-sent events, read from bytes as they come: lines may be split anywhere, inside a character too.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, except that an event
which the end of the stream cut off is still handed out: upstreams end with `data: [DONE]` and no newline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""An image in a delta is megabytes on one line; an endless line must still end somewhere."""

_LINE_BYTES: Final = 64
"""What a line costs in memory besides what stands in it."""

BOM: Final = b"\xef\xbb\xbf"
"""A byte order mark; a stream may begin with one, and it means nothing."""

_LINES: Final = re.compile(rb"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")

_BLANK_LINES: Final = (b"\n\n", b"\r\r", b"\n\r")
"""How an empty line begins, with the end of the line before it; "\\r\\n" may be that end, and its own."""


class EventTooLong(ValueError):
    """One event is longer than anything a completion sends."""


class EventParser:
    """Turn bytes into the data of events.

    Comments, `event:`, `id:` and `retry:` fields are skipped. The data of one event is bytes, its lines joined
    by a newline; what they mean, and whether they are UTF-8 at all, is for the reader.

    Attributes:
        odd: whether anything but data, comments and empty lines came: a field that says nothing, a byte order mark.
    """

    __slots__ = ("_after_cr", "_begun", "_buffer", "_data", "_max_bytes", "_scanned", "_size", "odd")

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._begun = False
        self._max_bytes = max_bytes
        self.odd = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the data of every event that these bytes complete.

        Raises:
            EventTooLong: an event grew past `max_bytes`.
        """
        if b"\r" in data or self._after_cr:
            data = self._plain_newlines(data)
        buffer = self._buffer
        if not buffer and not self._data and len(data) <= self._max_bytes and _is_one_event(data):
            return [data[6:-2]]
        buffer += data
        events: list[bytes] = []
        start = 0
        while (end := buffer.find(b"\n", max(start, self._scanned))) >= 0:
            self._line(bytes(buffer[start:end]), events)
            start = end + 1
        if start:
            del buffer[:start]
        self._scanned = len(buffer)
        if len(buffer) + self._size > self._max_bytes:
            raise EventTooLong(f"an event is longer than {self._max_bytes:,} bytes")
        return events

    def end(self) -> list[bytes]:
        """Return the event that the end of the stream cut off, if there is one."""
        events: list[bytes] = []
        self._line(bytes(self._buffer), events)
        self._buffer.clear()
        self._scanned = 0
        self._line(b"", events)
        return events

    def _plain_newlines(self, data: bytes) -> bytes:
        # "\r\n" may be split between two packets: the "\r" already counted as the end of the line
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not self._begun:
            self._begun = True
            if line.startswith(BOM):
                line, self.odd = line[len(BOM) :], True
        if not line:
            if self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
                self._size = 0
        elif line.startswith(b"data:"):
            self._keep(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line == b"data":
            self._keep(b"")
        elif not line.startswith(b":"):
            self.odd = True

    def _keep(self, data: bytes) -> None:
        self._data.append(data)
        self._size += len(data) + _LINE_BYTES


def _is_one_event(data: bytes) -> bool:
    """Tell whether bytes are one whole event of one line, as almost every piece of a stream is."""
    return data.startswith(b"data: ") and data.endswith(b"\n\n") and data.find(b"\n") == len(data) - 2


class WholeEvents:
    """Let bytes through up to the end of their last whole event; the rest waits for its own.

    An event that has not ended is nothing to its reader yet, and who looks at events can say of a whole one alone
    whether it is to go on. More than an event may hold does not wait.
    """

    __slots__ = ("_max_bytes", "_rest")

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._rest = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> bytes:
        """Return what may go on now."""
        rest = self._rest
        if not rest and data.endswith(b"\n\n"):
            return data
        seen = max(0, len(rest) - 1)
        rest += data
        end = len(rest) if len(rest) > self._max_bytes else max(rest.rfind(each, seen) for each in _BLANK_LINES) + 2
        if end < 2:
            return b""
        if rest[end - 1 : end + 1] == b"\r\n":
            end += 1
        whole = bytes(rest[:end])
        del rest[:end]
        return whole

    def end(self) -> bytes:
        """Return what was left over."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest


def blocks_of(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Split bytes at their empty lines; yield each part with what has a meaning in it, and whether that is data.

    What has a meaning are data, comments, and the empty line that ends them. A part without any of them is empty.
    """
    kept: list[bytes] = []
    has_data = False
    for found in _LINES.finditer(data.removeprefix(BOM)):
        line = found[0]
        if line in (b"\n", b"\r\n", b"\r"):
            yield (b"".join(kept) + line if kept else b""), has_data
            kept, has_data = [], False
        elif line.partition(b":")[0].rstrip(b"\r\n") == b"data":
            kept.append(line)
            has_data = True
        elif line.startswith(b":"):
            kept.append(line)
    if kept:
        yield b"".join(kept), has_data
