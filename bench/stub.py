"""An upstream that costs next to nothing: 1 kB of JSON, or a stream of 50 chunks. `python -m bench.stub PORT`.

Each chunk of a stream leaves in a turn of the loop of its own, as tokens do, and without a pause, so that what
a hop costs per chunk shows.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Final, cast

import uvloop

from bench.world import MODEL

CHUNKS: Final = 50


def _plain() -> bytes:
    document = {
        "id": "gen-0123456789",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 148 + "end"}}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 149, "total_tokens": 161, "cost": 0},
    }
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    document = {
        "id": "gen-0123456789",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return _chunk(b"data: " + json.dumps(document).encode() + b"\n\n")


_PLAIN: Final = _plain()
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_STREAM: Final = (
    _HEAD + _event({"role": "assistant", "content": "word"}, None),
    *(_event({"content": " word"}, None) for _ in range(CHUNKS - 2)),
    _event({"content": "."}, "stop"),
    _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n",
)


class _Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class behaves like it and is none
        self._held = b""
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            _, found, rest = head.partition(b"content-length:")
            whole = end + 4 + (int(rest.partition(b"\r\n")[0]) if found else 0)
            if len(self._held) < whole:
                return
            body, self._held = self._held[end + 4 : whole], self._held[whole:]
            if b'"stream":true' in body.replace(b" ", b""):
                self._more(0)
            else:
                self._transport.write(_PLAIN)

    def _more(self, place: int) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(_STREAM[place])
        if place + 1 < len(_STREAM):
            self._loop.call_soon(self._more, place + 1)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
