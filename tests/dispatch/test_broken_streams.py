"""A stream that breaks on its way through the endpoint: what passes, what is told, and that the upstream is closed."""

import asyncio
import json
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import pytest

from rollout.dispatch.decision import Exchange
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.dispatch.paths import Call
from rollout.domain.errors import UpstreamUnavailable
from rollout.domain.failure import FailureKind
from tests.dispatch import conftest as world

HEJ = [{"role": "user", "content": "Hej"}]
WORD = world.chunk("m", {"content": "He"})
TOLD = "litellm.APIError: APIError: OpenrouterException - Message: Provider disconnected, Metadata: {}, User ID: user_7"
DIRECT = {"error": {"code": 502, "message": "Provider disconnected"}, "choices": [{"finish_reason": "error"}]}
GATEWAY = {"error": {"message": TOLD, "type": None, "param": None, "code": "502"}}
OURS = {"message": "Provider disconnected", "type": "upstream_error", "code": "interrupted", "param": None}


def event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


class Upstream:
    """Sends the same stream to each request, and knows whether it was closed."""

    status = 200
    headers: Mapping[str, str] = {"content-type": "text/event-stream"}

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.closed = False

    async def open(self, call: Call) -> "Upstream":
        self._left = list(self.pieces)
        return self

    async def next(self) -> bytes:
        return self._left.pop(0) if self._left else b""

    async def read(self) -> bytes:
        return b"".join(self._left)

    async def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Front:
    """The endpoint over such an upstream, called without a server."""

    def __init__(self, *pieces: bytes) -> None:
        self.upstream = Upstream(*pieces)
        self.seen: list[Exchange] = []
        client = world.FixedClient(world.upstreams_at("http://127.0.0.1:1"))
        self.dispatcher = Dispatcher(
            client, observe=self.seen.append, async_sender=self.upstream, gate=world.a_gate(retries=False)
        )
        self.passed = b""

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.passed += message.get("body", b"")

    async def ask(self, user: str, send: Any = None) -> list[Any]:
        """Return the data of the events that came."""
        await self.call(user, send)
        data = (each.strip() for each in self.passed.split(b"\n\n"))
        return [json.loads(each.removeprefix(b"data: ")) for each in data if each.startswith(b"data")]

    async def call(self, user: str, send: Any = None, hangs_up: asyncio.Event | None = None) -> None:
        """Send a request; what comes is in `passed`. The caller `hangs_up` once that is set."""
        body = json.dumps({"messages": HEJ, "stream": True, "user": user}).encode()
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "path": "/v1/chat/completions", "method": "POST", "headers": headers}
        messages = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await (hangs_up or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        await CompletionsApp(self.dispatcher, lambda _: True)(scope, receive, send or self.send)


@pytest.mark.parametrize(("user", "told"), [("off", DIRECT), ("on", GATEWAY)])
async def test_an_error_in_a_stream_has_one_shape_on_both_paths(user: str, told: Any) -> None:
    front = Front(WORD, event(told), b"data: [DONE]\n\n")
    *_, last = await front.ask(user)
    assert last == {"error": OURS}
    assert front.passed.startswith(WORD)
    assert front.passed.count(b"data:") == 2
    assert [each.failure for each in front.seen] == [FailureKind.INTERRUPTED]


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_an_error_is_held_back_however_its_event_is_split(size: int) -> None:
    sound = WORD + b": busy\n\n" + WORD
    raw = sound + b"event: error\n" + event(DIRECT) + WORD
    front = Front(*(raw[at : at + size] for at in range(0, len(raw), size)))
    await front.ask("off")
    assert front.passed.startswith(sound + b"\n\ndata: ")
    assert json.loads(front.passed.removeprefix(sound).strip().removeprefix(b"data: ")) == {"error": OURS}


@pytest.mark.parametrize("last", [b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data:[DONE]", b"data: [DONE]\r\n\r\n"])
async def test_nothing_is_told_behind_the_end_of_a_stream(last: bytes) -> None:
    thought = world.chunk("m", {"reasoning": "Hm. data: [DONE]"})
    front = Front(thought, last)
    *_, told = await front.ask("off")
    assert told["error"]["code"] == "empty"
    assert front.passed.startswith(thought)
    assert b"DONE" not in front.passed.removeprefix(thought)


async def test_what_a_broken_stream_delivered_without_a_last_newline_still_passes() -> None:
    front = Front(WORD, WORD.rstrip())
    first, second, told = await front.ask("off")
    assert first == second
    assert told["error"]["code"] == "truncated"


async def test_a_key_in_an_upstreams_words_is_never_told_to_a_caller() -> None:
    front = Front(WORD, event({"error": {"code": 502, "message": f"bad key {world.OPENROUTER_KEY}"}}))
    *_, told = await front.ask("off")
    assert told["error"]["message"] == "bad key ***"
    assert world.OPENROUTER_KEY.encode() not in front.passed


async def test_the_gateways_words_around_an_upstreams_are_not_in_the_exception_either() -> None:
    front = Front(WORD, event(GATEWAY))
    stream: Any = await front.dispatcher.ainvoke(messages=HEJ, user="on", stream=True)
    with pytest.raises(UpstreamUnavailable, match=r"interrupted\): Provider disconnected$"):
        [each async for each in stream]


@pytest.mark.parametrize("error", [OSError("the caller is gone"), asyncio.CancelledError()])
async def test_a_caller_that_is_gone_before_the_head_closes_the_upstream_and_is_on_record(error: BaseException) -> None:
    front = Front(WORD)

    async def gone(message: Any) -> None:
        raise error

    with pytest.raises(type(error)):
        await front.ask("off", gone)
    assert front.upstream.closed
    assert [each.failure for each in front.seen] == [FailureKind.CANCELLED]


@pytest.mark.parametrize(
    ("release", "failure"),
    [
        ("1.84.0", None),  # it never says a cost
        ("1.93.2", None),
        ("1.94.0", FailureKind.TRUNCATED),  # it says one, so this end is made up
        ("1.106.2", FailureKind.TRUNCATED),
    ],
)
async def test_a_stream_without_a_cost_is_made_up_unless_its_gateway_is_too_old_to_say_one(
    release: str, failure: FailureKind | None
) -> None:
    front = Front()
    await stream_through(front, "on", release=release)
    assert [exchange.failure for exchange in front.seen] == [failure]


@pytest.mark.parametrize("release", ["", "main-stable"])
@pytest.mark.parametrize("way", ["python", "endpoint"])
async def test_a_gateway_of_unknown_release_has_to_say_a_cost_once_it_said_one(release: str, way: str) -> None:
    front = Front()
    for used in ({}, {"cost": None}, {"cost": 0}, {}, {"cost": 0.0}, {"cost": None}):
        await stream_through(front, "on", release=release, way=way, **used)
    made_up = FailureKind.TRUNCATED
    assert [exchange.failure for exchange in front.seen] == [None, None, None, made_up, None, made_up]


async def test_a_cost_in_a_plain_answer_or_on_the_direct_path_obliges_no_stream_of_the_gateway() -> None:
    # LiteLLM before 1.94.0 keeps the cost of a plain answer and loses it in a stream
    front = Front()
    front.upstream.headers, front.upstream.pieces = {}, (json.dumps(world.completion("m")).encode(),)
    plain: Any = await front.dispatcher.ainvoke(messages=HEJ, user="on")
    assert plain["usage"]["cost"] == 0
    await stream_through(front, "off", cost=0)
    await stream_through(front, "on")
    assert [exchange.failure for exchange in front.seen] == [None, None, None]


async def stream_through(front: Front, user: str, *, release: str = "", way: str = "python", **used: Any) -> None:
    """Read a stream to its end, whose usage has these fields beside its counts, from a LiteLLM of this release."""
    usage = event({"id": "gen-1", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, **used}})
    front.upstream.pieces = (WORD, world.chunk("m", {}, "stop") + usage + b"data: [DONE]\n\n")
    front.upstream.headers = {"content-type": "text/event-stream"} | ({"x-litellm-version": release} if release else {})
    if way == "endpoint":
        await front.call(user)
        return
    stream: Any = await front.dispatcher.ainvoke(messages=HEJ, user=user, stream=True)
    with suppress(UpstreamUnavailable):
        async for _ in stream:
            pass


class Lingering(Upstream):
    """Keeps its connection open after everything was sent."""

    async def next(self) -> bytes:
        if not self._left:
            await asyncio.Event().wait()
        return self._left.pop(0)


@pytest.mark.parametrize(("last", "failure"), [(b"data: [DONE]\n\n", None), (WORD, FailureKind.CANCELLED)])
async def test_a_caller_that_hangs_up_at_the_end_mark_has_left_nothing(last: bytes, failure: Any) -> None:
    front = Front()
    upstream = Lingering(WORD, last)
    front.dispatcher = Dispatcher(
        world.FixedClient(world.upstreams_at("http://127.0.0.1:1")), observe=front.seen.append, async_sender=upstream
    )
    came = asyncio.Event()

    async def send(message: MutableMapping[str, Any]) -> None:
        await front.send(message)
        if last in front.passed.removeprefix(WORD):
            came.set()

    await front.call("off", send, hangs_up=came)
    assert upstream.closed
    assert [each.failure for each in front.seen] == [failure]
