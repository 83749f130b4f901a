"""The transports under plain httpx and httpx2: bytes, headers, what passes through, what a client may do to them."""

import asyncio
import gc
import json
import subprocess
import sys
import threading
from typing import Any

import httpx
import httpx2
import pytest

import rollout.transports
import rollout.transports.httpx2
from rollout.client.default import set_default_client
from rollout.dispatch.decision import Exchange
from rollout.dispatch.dispatcher import Dispatcher
from rollout.domain.failure import FailureKind
from tests.dispatch import conftest as world
from tests.transports.conftest import HEJ, over

ALPHA = world.CASCADE[0]
URL = "https://api.example/v1/chat/completions"


class Asker:
    """A client of one of the two libraries, synchronous or not, over a transport of ours."""

    def __init__(self, library: Any, kind: str, decides: Any) -> None:
        self.seen: list[Exchange] = []
        self.over = threading.Event()
        self.elsewhere: list[str] = []
        ours = rollout.transports if library is httpx else rollout.transports.httpx2
        self._dispatcher = dispatcher = Dispatcher(decides, observe=self._observe)
        fallback = library.MockTransport(self._answer_elsewhere)
        self._library = library
        if kind == "sync":
            self.http = library.Client(transport=ours.RolloutTransport(dispatcher, fallback=fallback))
        else:
            self.http = library.AsyncClient(transport=ours.AsyncRolloutTransport(dispatcher, fallback=fallback))

    def _observe(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        self.over.set()

    def _answer_elsewhere(self, request: Any) -> Any:
        self.elsewhere.append(f"{request.method} {request.url.path} {request.content.decode()}")
        return self._library.Response(202, json={"passed": "through"})

    async def ask(self, user: str | None = None, **body: Any) -> Any:
        headers = {"X-Rollout-User": user} if user is not None else {}
        return await over(self.http.post(URL, json={"messages": HEJ, **body}, headers=headers))

    async def open(self, user: str, **body: Any) -> Any:
        document = {"messages": HEJ, "stream": True, **body}
        request = self.http.build_request("POST", URL, json=document, headers={"X-Rollout-User": user})
        return await over(self.http.send(request, stream=True))

    async def close(self) -> None:
        if not hasattr(self.http, "aclose"):
            self.http.close()
            return
        await self.http.aclose()
        # closing a client leaves the dispatcher open, which others may share; here nobody does
        await self._dispatcher.aclose()


async def raw_pieces(response: Any) -> list[bytes]:
    if hasattr(response.stream, "__aiter__"):
        return [piece async for piece in response.aiter_raw()]
    return list(response.iter_raw())


async def hang_up(response: Any) -> None:
    await over(response.aclose() if hasattr(response.stream, "__aiter__") else response.close())


@pytest.fixture(params=["httpx-sync", "httpx-async", "httpx2-sync", "httpx2-async"])
async def asker(request: pytest.FixtureRequest, client: world.FixedClient) -> Any:
    library, _, kind = request.param.partition("-")
    made = Asker({"httpx": httpx, "httpx2": httpx2}[library], kind, client)
    yield made
    await made.close()


async def test_a_direct_answer_comes_byte_for_byte(asker: Asker, upstream: world.Upstream) -> None:
    raw = json.dumps(world.completion("m", "å"), ensure_ascii=False, indent=3).encode()
    upstream.direct = world.says(200, raw)
    response = await asker.ask("off")
    assert (response.status_code, response.content) == (200, raw)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-rollout-path"] == "openrouter"
    assert "x-rollout-gateway-rewrites" not in response.headers


@pytest.mark.parametrize(("user", "model"), [("on", f"openrouter/{ALPHA}"), ("off", ALPHA)])
async def test_a_stream_comes_byte_for_byte_on_either_path(
    asker: Asker, upstream: world.Upstream, user: str, model: str
) -> None:
    response = await asker.open(user)
    assert b"".join(await raw_pieces(response)) == world.whole_stream(model)
    assert response.headers["content-type"] == "text/event-stream"
    rewrites = response.headers.get("x-rollout-gateway-rewrites", "")
    assert ("model" in rewrites.split(",")) == (user == "on")
    assert asker.over.wait(5)
    assert [each.failure for each in asker.seen] == [None]


@pytest.mark.parametrize("user", ["on", "off"])
async def test_a_body_that_is_wrong_or_may_cost_is_refused_and_nothing_is_sent(
    asker: Asker, upstream: world.Upstream, user: str
) -> None:
    for wrong, field in (
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"tools": [{"type": "mcp"}]}, "tools"),
    ):
        response = await asker.ask(user, **wrong)
        assert (response.status_code, response.json()["error"]["param"]) == (400, field)
    assert not upstream.calls


async def test_a_stream_is_handed_out_as_it_comes(asker: Asker, upstream: world.Upstream) -> None:
    first = world.chunk(ALPHA, {"content": "He"})
    upstream.direct = world.streams(first, then="silence")
    response = await asker.open("off")
    if hasattr(response.stream, "__aiter__"):
        pieces = response.aiter_raw()
        assert await anext(pieces) == first
        await pieces.aclose()
    else:
        assert next(response.iter_raw()) == first
    await hang_up(response)
    assert await asyncio.to_thread(upstream.directly[0].closed.wait, 5)
    assert asker.over.wait(5)
    assert [each.failure for each in asker.seen] == [FailureKind.CANCELLED]


async def test_a_stream_that_stands_still_is_told_in_the_stream(client: world.FixedClient, upstream: Any) -> None:
    client.upstreams = world.upstreams_at(upstream.url, stall_timeout=0.2)
    upstream.direct = world.streams(world.chunk(ALPHA, {"content": "He"}), then="silence")
    for library in (httpx, httpx2):
        for kind in ("sync", "async"):
            asker = Asker(library, kind, client)
            response = await asker.open("off")
            *_, last = b"".join(await raw_pieces(response)).strip().split(b"\n\n")
            assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "timeout"
            assert await asyncio.to_thread(upstream.calls[-1].closed.wait, 5)
            assert [each.failure for each in asker.seen] == [FailureKind.TIMEOUT]
            await asker.close()


async def test_what_is_no_chat_completion_passes_through_unchanged(asker: Asker, upstream: world.Upstream) -> None:
    root = "https://api.example/v1"
    await over(asker.http.get(f"{root}/models"))
    await over(asker.http.post(f"{root}/embeddings", content=b"{}"))
    await over(asker.http.get(URL))
    response = await over(asker.http.post(f"{URL}/chatcmpl-1", content=b"x"))
    assert asker.elsewhere == [
        "GET /v1/models ",
        "POST /v1/embeddings {}",
        "GET /v1/chat/completions ",
        "POST /v1/chat/completions/chatcmpl-1 x",
    ]
    assert (response.status_code, response.json()) == (202, {"passed": "through"})
    assert upstream.calls == []


async def test_fields_that_nobody_here_knows_reach_the_upstream(asker: Asker, upstream: world.Upstream) -> None:
    await asker.ask("off", x_unknown={"a": [1, 2.5, None]})
    (call,) = upstream.directly
    assert call.body["x_unknown"] == {"a": [1, 2.5, None]}


async def test_the_callers_own_key_goes_nowhere(asker: Asker, upstream: world.Upstream) -> None:
    headers = {"Authorization": "Bearer the-callers-own", "X-Rollout-User": "off"}
    await over(asker.http.post(URL, json={"messages": HEJ}, headers=headers))
    assert upstream.directly[0].headers["authorization"] == f"Bearer {world.OPENROUTER_KEY}"


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"messages": "Hej"}', "application/json", 400),
        (b'{"messages": [{}], "stream": "yes"}', "application/json", 400),
        (b'{"messages": [{}], "user": 7}', "application/json", 400),
        (b"messages=Hej", "application/x-www-form-urlencoded", 415),
    ],
)
async def test_a_request_that_is_wrong_on_this_side_is_refused_unsent(
    asker: Asker, upstream: world.Upstream, content: bytes, content_type: str, status: int
) -> None:
    response = await over(asker.http.post(URL, content=content, headers={"Content-Type": content_type}))
    assert response.status_code == status
    assert response.headers["x-should-retry"] == "false"
    assert set(response.json()["error"]) == {"message", "type", "code", "param"}
    assert upstream.calls == []


async def test_a_missing_key_is_our_configuration_and_not_the_callers(asker: Asker, client: world.FixedClient) -> None:
    client.upstreams = world.upstreams_at("http://127.0.0.1:9", openrouter_key="")
    response = await asker.ask("off")
    assert (response.status_code, response.json()["error"]["type"]) == (503, "configuration_error")


def test_a_synchronous_stream_that_is_dropped_closes_its_upstream(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    upstream.direct = world.streams(world.chunk(ALPHA, {"content": "He"}), then="silence")
    transport = rollout.transports.RolloutTransport(Dispatcher(client))
    request = httpx.Request("POST", URL, json={"messages": HEJ, "stream": True}, headers={"X-Rollout-User": "off"})
    response = transport.handle_request(request)
    del response
    gc.collect()
    assert upstream.directly[0].closed.wait(5)
    transport.close()


def test_the_dispatcher_is_the_process_own_where_none_is_given() -> None:
    from rollout import RolloutClient

    own = RolloutClient(environ={"LITELLM_ENABLED": "false"})
    before = set_default_client(own)
    try:
        with httpx.Client(transport=rollout.transports.RolloutTransport()) as http:
            response = http.post(URL, json={"messages": HEJ, "model": ALPHA})
    finally:
        set_default_client(before)
        own.close()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_configured")


def test_the_transports_for_httpx_load_no_more_than_httpx_and_mmh3() -> None:
    code = (
        "import sys, rollout.transports\n"
        "heavy = {'httpx2', 'aiohttp', 'openai', 'pydantic', 'fastapi', 'starlette', 'sqlalchemy', 'uvicorn', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
