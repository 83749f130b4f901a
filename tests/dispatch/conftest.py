"""Two upstreams on real sockets that record what they are asked and misbehave on demand, and a client that decides."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

import pytest
import uvicorn

from rollout.domain.evaluate import Decider, Evaluation
from rollout.domain.flag import Flag, Override, Variant
from rollout.resilience.gate import Gate
from rollout.resilience.quota import QuotaLimits
from rollout.settings import Upstreams

GATEWAY_KEY = "sk-gateway-secret"
OPENROUTER_KEY = "sk-or-secret"
CASCADE = ("one/alpha:free", "two/beta:free")
PIECES = ("He", "j ", "Åsa ", "👋")


@dataclass
class Call:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    closed: threading.Event = field(default_factory=threading.Event)


Behaviour = Callable[[Call, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def head(status: int, content_type: str, *more: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", *more]
    lines += ["Transfer-Encoding: chunked"] if length is None else [f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def completion(model: str, text: str = "Hej") -> dict[str, Any]:
    return {
        "id": "gen-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost": 0},
        "x_unknown": {"kept": [1, 2.5]},
    }


def chunk(model: str, delta: dict[str, Any], finish: str | None = None) -> bytes:
    document = {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def whole_stream(model: str) -> bytes:
    pieces = [chunk(model, {"role": "assistant", "content": ""})]
    pieces += [chunk(model, {"content": text}) for text in PIECES]
    pieces += [chunk(model, {}, "stop"), b"data: [DONE]\n\n"]
    return b": OPENROUTER PROCESSING\n\n" + b"".join(pieces)


def says(status: int, body: object, *headers: str, content_type: str = "application/json") -> Behaviour:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def behave(call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, content_type, *headers, length=len(raw)) + raw)

    return behave


def streams(*pieces: bytes, then: str = "end", every: float = 0.0) -> Behaviour:
    """Send pieces as a stream; `then` end it, cut the connection, or stay silent until the client hangs up."""

    async def behave(call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, "text/event-stream"))
        for piece in pieces:
            writer.write(framed(piece))
            await writer.drain()
            await asyncio.sleep(every)
        if then == "end":
            writer.write(b"0\r\n\r\n")
        elif then == "cut":
            writer.transport.abort()
        else:
            await silence(call, reader, writer)

    return behave


async def silence(call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if not await reader.read(1):
        call.closed.set()


async def comments(call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a keep-alive comment all the time, in a stream or before a plain answer, until the client hangs up."""
    writer.write(head(200, "text/event-stream" if call.body.get("stream") else "application/json"))
    gone = asyncio.ensure_future(reader.read(1))
    while not gone.done():
        writer.write(framed(b": OPENROUTER PROCESSING\n\n" if call.body.get("stream") else b"    "))
        await asyncio.wait([gone], timeout=0.02)
    call.closed.set()


async def normal(call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    model = call.body["model"]
    if call.body.get("stream"):
        raw = whole_stream(model)
        # seven bytes at a time: lines, and characters, are split everywhere
        await streams(*(raw[at : at + 7] for at in range(0, len(raw), 7)))(call, reader, writer)
    else:
        await says(200, completion(model))(call, reader, writer)


class Upstream:
    """The gateway (under /v1) and OpenRouter (under /api/v1) on one port."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.first = threading.Event()
        self.gateway: Behaviour = normal
        self.direct: Behaviour = normal
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._started.wait()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def on(self, path: str) -> list[Call]:
        return [each for each in self.calls if each.path == path]

    async def asked(self) -> Call:
        """Wait for the first request."""
        await asyncio.to_thread(self.first.wait, 5)
        return self.calls[0]

    @property
    def via_gateway(self) -> list[Call]:
        return self.on("/v1/chat/completions")

    @property
    def directly(self) -> list[Call]:
        return self.on("/api/v1/chat/completions")

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                raw = await reader.readuntil(b"\r\n\r\n")
                first, *lines = raw.decode("latin-1").strip().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                call = Call(first.split(" ")[1], headers, json.loads(body))
                self.calls.append(call)
                self.first.set()
                behaviour = self.direct if call.path.startswith("/api/") else self.gateway
                try:
                    await behaviour(call, reader, writer)
                    await writer.drain()
                except ConnectionError:
                    call.closed.set()
                    raise
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    running = Upstream()
    yield running
    running.close()


class FixedClient:
    """Decides by a flag that stands still: whoever is called on... goes through the gateway, others by the share."""

    def __init__(self, upstreams: Upstreams, *, share: int = 0, killed: bool = False) -> None:
        overrides = {"on": Override(Variant.ON), "off": Override(Variant.OFF)}
        flag = Flag("enableLiteLLM", "salt", share=share, killed=killed, overrides=overrides, revision=7)
        self._decider = Decider(flag)
        self.cascade: tuple[str, ...] = CASCADE
        self.upstreams = upstreams

    def evaluate(self, flag: str, targeting_key: object, /) -> Evaluation:
        return self._decider.evaluate(targeting_key, 0.0, 0.0)

    def wait_until_ready(self, timeout: float, /) -> bool:
        return True


def upstreams_at(url: str, **changes: Any) -> Upstreams:
    standard = {
        "openrouter_url": f"{url}/api/v1",
        "openrouter_key": OPENROUTER_KEY,
        "litellm_url": url,
        "litellm_key": GATEWAY_KEY,
        "total_timeout": 10.0,
        "attempt_timeout": 5.0,
        "first_token_timeout": 5.0,
        "stall_timeout": 5.0,
    }
    return Upstreams(**{**standard, **changes})


@pytest.fixture
def client(upstream: Upstream) -> FixedClient:
    return FixedClient(upstreams_at(upstream.url))


def a_gate(*, retries: bool = True, per_minute: int = 0, per_day: int = 0, **more: Any) -> Gate:
    """A gate without limits of the account and without chance; `retries` False: the budget is spent."""
    world = {"clock": monotonic, "wall": time, "chance": lambda: 0.0, **more}
    gate = Gate(QuotaLimits(per_minute, per_day), **world)
    while not retries and gate.may_retry():
        pass
    return gate


class Served:
    """An ASGI app behind a real uvicorn, in a thread of its own."""

    def __init__(self, app: Any) -> None:
        self._server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    running: list[Served] = []

    def start(app: Any) -> str:
        running.append(Served(app))
        return running[-1].url

    yield start
    for each in running:
        each.close()
