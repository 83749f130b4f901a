import asyncio
import gzip
import json
import os
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from rollout.dispatch.completions import asked
from rollout.dispatch.decision import Exchange
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import MAX_BODY_BYTES, CompletionsApp, create_data_plane
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.middleware import user_of_scope
from tests.dispatch import conftest as world

KEY = "caller-key"
HEJ: Any = [{"role": "user", "content": "Hej"}]
ALPHA, BETA = world.CASCADE[:2]


class Front:
    """The endpoint behind a real server, and a client in front of it."""

    def __init__(self, client: world.FixedClient, serve: Callable[..., str], **more: Any) -> None:
        self.seen: list[Exchange] = []
        self.over = threading.Event()
        # without a retry to spare; tests of retries bring a gate that has some
        given = {"gate": world.a_gate(retries=False), **more}
        app = create_data_plane(client, authorize=lambda text: text == KEY, observe=self._observe, **given)
        self.url = serve(app)
        self._http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=10)

    def post(self, user: Any = None, /, *, raw: bytes | None = None, headers: Any = None, **body: Any) -> Any:
        sent = {"Content-Type": "application/json", **(headers or {})}
        if user is not None:
            sent["X-Rollout-User"] = user
        content = raw if raw is not None else json.dumps({"messages": HEJ, **body}).encode()
        return self._http.post("/v1/chat/completions", content=content, headers=sent)

    def _observe(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        self.over.set()

    def request(self, *arguments: Any, **more: Any) -> Any:
        return self._http.request(*arguments, **more)

    def stream(self, user: Any, **body: Any) -> Any:
        document = {"messages": HEJ, "stream": True, **body}
        return self._http.stream("POST", "/v1/chat/completions", json=document, headers={"X-Rollout-User": user})

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def front(client: world.FixedClient, serve: Callable[..., str]) -> Any:
    made = Front(client, serve)
    yield made
    made.close()


def rollout_headers(response: Any) -> Any:
    return {name[10:]: value for name, value in response.headers.items() if name.startswith("x-rollout-")}


def test_a_plain_answer_passes_byte_for_byte_with_its_decision_in_headers(
    front: Front, upstream: world.Upstream
) -> None:
    raw = json.dumps(world.completion("m", "å"), ensure_ascii=False, indent=3).encode()
    upstream.direct = world.says(200, raw)
    response = front.post("off")
    assert (response.status_code, response.content) == (200, raw)
    response = front.post("on")
    assert response.status_code == 200
    headers = rollout_headers(response)
    assert len(headers.pop("request-id")) == 16
    assert re.fullmatch(rf"litellm {ALPHA} ok \d+ms", headers.pop("attempt-log"))
    assert headers == {
        "path": "litellm",
        "served-by": "litellm",
        "reason": "TARGETING_MATCH",
        "cause": "override",
        "revision": "7",
        "model": ALPHA,
        "attempts": "1",
    }
    assert front.seen[-1].decision.path is Path.LITELLM


def test_a_user_of_the_split_gets_a_bucket(upstream: world.Upstream, serve: Callable[..., str]) -> None:
    split = Front(world.FixedClient(world.upstreams_at(upstream.url), share=50_000), serve)
    seen = {each: rollout_headers(split.post(each)) for each in ("anna", "bo", "cecilia", "dan")}
    for each in seen.values():
        assert each["path"] == ("litellm" if int(each["bucket"]) < 50_000 else "openrouter")
    split.close()


def test_a_stream_passes_byte_for_byte(front: Front, upstream: world.Upstream) -> None:
    with front.stream("on") as response:
        raw = response.read()
    assert raw == world.whole_stream(f"openrouter/{ALPHA}")
    assert response.headers["content-type"] == "text/event-stream"
    assert rollout_headers(response)["served-by"] == "litellm"
    assert [each.failure for each in front.seen] == [None]


def test_a_stream_is_flushed_as_it_comes(front: Front, upstream: world.Upstream) -> None:
    upstream.direct = world.streams(world.chunk("m", {"content": "He"}), then="silence")
    with front.stream("off") as response:
        assert next(response.iter_raw()) == world.chunk("m", {"content": "He"})
    assert upstream.directly[0].closed.wait(5)


def test_fields_that_nobody_here_knows_reach_the_upstream(front: Front, upstream: world.Upstream) -> None:
    front.post("off", x_unknown={"a": [1, 2.5, None]}, model="gpt-4o", user="somebody")
    (call,) = upstream.directly
    assert call.body["x_unknown"] == {"a": [1, 2.5, None]}
    assert call.body["model"] == ALPHA
    assert call.body["user"] == "somebody"
    assert call.headers["authorization"] == f"Bearer {world.OPENROUTER_KEY}"


@pytest.mark.parametrize("stream", [False, True])
def test_a_gateway_that_fails_is_rescued_before_the_first_byte_goes_out(
    front: Front, upstream: world.Upstream, stream: bool
) -> None:
    upstream.gateway = world.streams(b": busy\n\n", then="cut") if stream else world.says(500, {})
    response = front.post("on", stream=stream)
    assert response.status_code == 200
    headers = rollout_headers(response)
    assert (headers["path"], headers["served-by"], headers["attempts"]) == ("litellm", "openrouter", "2")
    if stream:
        assert response.content == world.whole_stream(BETA)


def test_fields_that_the_gateway_chokes_on_speak_neither_against_it_nor_against_the_model(
    front: Front, upstream: world.Upstream
) -> None:
    upstream.gateway = world.says(500, b"Internal Server Error", content_type="text/plain")
    for _ in range(6):
        answer = front.post("on", api_base="http://127.0.0.1:9")
        assert (answer.status_code, rollout_headers(answer)["served-by"]) == (200, "openrouter")
    upstream.gateway = world.normal
    assert rollout_headers(front.post("on"))["served-by"] == "litellm"


def test_a_caller_names_no_model_of_its_own_by_extra_body(front: Front, upstream: world.Upstream) -> None:
    extra = {"model": "openai/gpt-5", "provider": {"max_price": {"prompt": 100}}}
    for user in ("on", "off"):
        assert front.post(user, extra_body=extra).status_code == 200
    (gateway,), (direct,) = upstream.via_gateway, upstream.directly
    assert gateway.body["model"] == f"openrouter/{ALPHA}"
    assert gateway.body["extra_body"].keys() == {"messages", "provider"}
    assert direct.body["model"] == ALPHA
    for said in (gateway.body["extra_body"], direct.body):
        assert set(said["provider"]["max_price"].values()) == {0}
    assert front.post("on", extra_body="seed").status_code == 400


def test_another_model_is_said_to_be_substituted(front: Front) -> None:
    assert rollout_headers(front.post("off", model="gpt-4o"))["model-substituted"] == "true"
    assert "model-substituted" not in rollout_headers(front.post("off", model=ALPHA))


def test_the_user_is_the_header_else_the_body(front: Front) -> None:
    assert rollout_headers(front.post(None, user="on"))["path"] == "litellm"
    assert rollout_headers(front.post("off", user="on"))["path"] == "openrouter"
    assert rollout_headers(front.post(None))["path"] == "openrouter"
    assert front.post("Åsa 👋".encode()).status_code == 200


def test_models_are_the_cascade(front: Front) -> None:
    response = front.request("GET", "/v1/models")
    assert [each["id"] for each in response.json()["data"]] == list(world.CASCADE)


@pytest.mark.parametrize(
    ("upstream_status", "status", "code"),
    [
        (400, 400, "rejected"),
        (401, 502, "unauthorized"),
        (402, 502, "payment_required"),
        (403, 502, "unauthorized"),
        (404, 502, "model_gone"),
        (408, 504, "timeout"),
        (413, 413, "rejected"),
        (429, 429, "rate_limited"),
        (500, 502, "server_error"),
        (503, 502, "server_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_upstreams_failure_is_told_in_openais_shape(
    front: Front, upstream: world.Upstream, upstream_status: Any, status: int, code: str, stream: bool
) -> None:
    upstream.direct = world.says(upstream_status, {"error": {"message": "because"}}, "Retry-After: 7")
    response = front.post("off", stream=stream)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert error["code"] == code
    assert "because" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert response.headers.get("retry-after") == ("7" if upstream_status in (429, 503) else None)
    assert rollout_headers(response)["path"] == "openrouter"
    assert "served-by" not in rollout_headers(response)


def test_unreachable_is_502_and_late_is_504(front: Front, upstream: world.Upstream, client: world.FixedClient) -> None:
    client.upstreams = world.upstreams_at("http://127.0.0.1:1")
    assert front.post("off").status_code == 502
    client.upstreams = world.upstreams_at(upstream.url, attempt_timeout=0.1)
    upstream.direct = world.comments
    assert front.post("off").status_code == 504
    assert upstream.directly[0].closed.wait(5)


@pytest.mark.parametrize(
    ("raw", "headers", "status", "says"),
    [
        (b"{", {}, 400, "not JSON"),
        (b"", {}, 400, "not JSON"),
        (b'{"messages": "\xff"}', {}, 400, "not UTF-8"),
        ('{"messages": [1]}'.encode("utf-16"), {}, 400, "not UTF-8"),
        (b'{"messages": [NaN]}', {}, 400, "not JSON"),
        (b"[" * 100_000, {}, 400, "not JSON"),
        (b"[]", {}, 400, "must be an object"),
        (b"{}", {}, 400, "at least one message"),
        (b'{"messages": []}', {}, 400, "at least one message"),
        (b'{"messages": [1], "stream": "yes"}', {}, 400, "true or false"),
        (b'{"messages": [1], "model": 5}', {}, 400, "model id"),
        (b'{"messages": [1], "user": 5}', {}, 400, "must be a text"),
        (b'{"messages": [1], "provider": 5}', {}, 400, "provider must be an object"),
        (b'{"messages": [1]}', {"Content-Type": "text/plain"}, 415, "application/json"),
        (b'{"messages": [1]}', {"Content-Type": ""}, 415, "application/json"),
        (b'{"messages": [1]}', {"X-Rollout-User": "x" * 257}, 400, "256 is the most"),
        (b'{"messages": [1]}', {"X-Rollout-User": "a\tb"}, 400, "control characters"),
        (b'{"messages": [1], "user": "a\\u0000b"}', {}, 400, "control characters"),
        (b'{"messages": ["' + b"x" * 10 * 1024 * 1024 + b'"]}', {}, 413, "send less"),
    ],
)
def test_what_the_caller_did_wrong_is_said_and_nothing_is_sent(
    front: Front, upstream: world.Upstream, raw: bytes, headers: Any, status: int, says: str
) -> None:
    response = front.post(raw=raw, headers=headers)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]
    assert response.headers["x-should-retry"] == "false"
    assert not upstream.calls


@pytest.mark.parametrize("asks", [{"tools": [{"type": "mcp"}]}, {"plugins": {"id": "web"}}, {"preset": "a"}])
def test_what_may_cost_is_refused_on_both_paths_and_nothing_is_sent(
    front: Front, upstream: world.Upstream, client: world.FixedClient, asks: Any
) -> None:
    for user in ("on", "off"):
        response = front.post(user, **asks)
        assert (response.status_code, response.json()["error"]["param"]) == (400, *asks)
        assert "ROLLOUT_ALLOW_PAID" in response.json()["error"]["message"]
    assert not upstream.calls
    client.upstreams = world.upstreams_at(upstream.url, allow_paid=True)
    assert [front.post(user, **asks).status_code for user in ("on", "off")] == [200, 200]


def test_a_body_of_another_shape_is_refused_with_its_path_and_nothing_is_sent(
    front: Front, upstream: world.Upstream
) -> None:
    for user in ("on", "off"):
        error = front.post(user, messages=[{"role": "user", "content": 5}]).json()["error"]
        assert error["param"] == "messages[0].content"
        assert "a text or a list of parts, not 5" in error["message"]
    assert not upstream.calls


def test_a_body_without_a_declared_length_is_cut_off_at_the_limit(front: Front, upstream: world.Upstream) -> None:
    def endless() -> Any:
        for _ in range(12):
            yield b" " * 1024 * 1024

    response = front.request(
        "POST", "/v1/chat/completions", content=endless(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413


def test_a_small_body_in_pieces_is_read(front: Front) -> None:
    pieces = (bytes([each]) for each in json.dumps({"messages": HEJ}).encode())
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert front.request("POST", "/v1/chat/completions", content=pieces, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("POST", "/v1/models", 405), ("GET", "/v1/else", 404), ("GET", "/", 404)],
)
def test_other_routes_and_methods_are_refused(front: Front, method: Any, path: Any, status: int) -> None:
    assert front.request(method, path).status_code == status


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic caller-key", KEY])
def test_a_caller_without_a_valid_access_token_is_refused(front: Front, upstream: world.Upstream, header: Any) -> None:
    response = front.request("POST", "/v1/chat/completions", json={}, headers={"Authorization": header})
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
    assert front.request("GET", "/v1/models", headers={"Authorization": header}).status_code == 401
    assert not upstream.calls


def test_what_is_not_set_up_here_is_not_the_callers_fault(
    front: Front, client: world.FixedClient, upstream: world.Upstream
) -> None:
    client.cascade = ()
    response = front.post("off")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_configured")
    client.cascade = world.CASCADE
    client.upstreams = world.upstreams_at(upstream.url, openrouter_key=None)
    assert "OPENROUTER_API_KEY" in front.post("off").json()["error"]["message"]


def test_a_simulated_upstream_is_said_in_every_answer(client: world.FixedClient, serve: Callable[..., str]) -> None:
    front = Front(client, serve, simulated=True)
    assert rollout_headers(front.post("off"))["upstream"] == "simulator"
    assert rollout_headers(front.post(raw=b"{"))["upstream"] == "simulator"
    assert rollout_headers(front.request("GET", "/v1/models"))["upstream"] == "simulator"
    front.close()


@pytest.mark.parametrize("then", ["cut", "silence"])
def test_a_stream_that_breaks_says_so_in_the_stream(
    front: Front, client: world.FixedClient, upstream: world.Upstream, then: Any
) -> None:
    client.upstreams = world.upstreams_at(upstream.url, stall_timeout=0.2)
    upstream.direct = world.streams(world.chunk("m", {"content": "He"}), *[b": busy\n\n"] * 3, then=then)
    response = front.post("off", stream=True)
    *_, last = response.text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == (
        "timeout" if then == "silence" else "interrupted"
    )
    kind = FailureKind.TIMEOUT if then == "silence" else FailureKind.INTERRUPTED
    assert [each.failure for each in front.seen] == [kind]


@pytest.mark.parametrize("behaviour", [world.silence, world.comments])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_leaves_closes_the_upstream(
    front: Front, upstream: world.Upstream, behaviour: world.Behaviour, stream: bool
) -> None:
    upstream.gateway = behaviour
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as caller:
        body = {"messages": HEJ, "stream": stream, "user": "on"}
        asked = asyncio.ensure_future(caller.post(f"{front.url}/v1/chat/completions", json=body))
        await upstream.asked()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert await asyncio.to_thread(upstream.calls[0].closed.wait, 5)
    await asyncio.to_thread(front.over.wait, 5)
    assert front.seen[0].failure is FailureKind.CANCELLED
    assert not upstream.directly


def test_a_caller_that_leaves_in_the_middle_of_a_stream_closes_the_upstream(
    front: Front, upstream: world.Upstream
) -> None:
    upstream.direct = world.streams(world.chunk("m", {"content": "He"}), then="silence")
    with front.stream("off") as response:
        next(response.iter_raw())
    assert upstream.directly[0].closed.wait(5)


def sdk(front: Front, **more: Any) -> Any:
    return openai.OpenAI(base_url=f"{front.url}/v1", api_key=KEY, **more)


def test_the_openai_sdk_works_unchanged(front: Front) -> None:
    with sdk(front) as client:
        answer = client.chat.completions.create(model="gpt-4o", messages=HEJ, user="on")
        assert answer.choices[0].message.content == "Hej"
        with client.chat.completions.create(model=ALPHA, messages=HEJ, stream=True, user="on") as stream:
            assert "".join(each.choices[0].delta.content or "" for each in stream) == "".join(world.PIECES)
        raw = client.chat.completions.with_raw_response.create(
            model=ALPHA, messages=HEJ, extra_headers={"X-Rollout-User": "on"}
        )
        assert raw.headers["x-rollout-path"] == "litellm"
        assert [each.id for each in client.models.list()] == list(world.CASCADE)


async def test_the_asynchronous_openai_sdk_works_unchanged(front: Front) -> None:
    async with openai.AsyncOpenAI(base_url=f"{front.url}/v1", api_key=KEY) as client:
        answer = await client.chat.completions.create(model=ALPHA, messages=HEJ, user="on")
        assert answer.choices[0].message.content == "Hej"
        stream: Any = await client.chat.completions.create(model=ALPHA, messages=HEJ, stream=True, user="on")
        text = "".join([each.choices[0].delta.content or "" async for each in stream])
        assert text == "".join(world.PIECES)


def test_the_openai_sdk_does_not_send_a_failed_request_again(
    front: Front, client: world.FixedClient, upstream: world.Upstream
) -> None:
    client.cascade = (ALPHA,)
    upstream.direct = world.says(503, {"error": {"message": "busy"}})
    with sdk(front) as asking, pytest.raises(openai.InternalServerError):
        asking.chat.completions.create(model=ALPHA, messages=HEJ)
    assert len(upstream.calls) == 1


def test_the_openai_sdk_sees_a_broken_stream_as_an_error(front: Front, upstream: world.Upstream) -> None:
    upstream.direct = world.streams(world.chunk("m", {"content": "He"}), then="cut")
    with sdk(front) as client, pytest.raises(openai.APIError, match="cut in the middle"):
        list(client.chat.completions.create(model=ALPHA, messages=HEJ, stream=True))


def test_a_wrong_key_is_the_sdks_authentication_error(front: Front) -> None:
    with (
        openai.OpenAI(base_url=f"{front.url}/v1", api_key="wrong") as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model=ALPHA, messages=HEJ)


async def test_only_http_is_spoken_here(client: world.FixedClient) -> None:
    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is read or sent")

    app = CompletionsApp(Dispatcher(client), lambda _: True)
    with pytest.raises(RuntimeError, match="websocket"):
        await app({"type": "websocket"}, nothing, nothing)


def test_a_mounted_app_finds_its_routes_below_the_mount(client: world.FixedClient, serve: Callable[..., str]) -> None:
    app = create_data_plane(client, authorize=lambda _: True)

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "root_path": "/llm"}, receive, send)

    url = serve(mounted)
    assert httpx.get(f"{url}/llm/v1/models").status_code == 200


def test_the_data_plane_alone_loads_no_framework() -> None:
    code = (
        "import sys, rollout.dispatch.endpoint, rollout.dispatch.senders as s; s.make_async_sender();"
        "print([n for n in ('fastapi','starlette','pydantic','sqlalchemy','jinja2') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"


def test_content_that_came_with_the_break_in_one_piece_still_reaches_the_caller(
    front: Front, upstream: world.Upstream
) -> None:
    content = b'data: {"choices":[{"index":0,"delta":{"content":"half"}}]}\n\n'
    upstream.direct = world.streams(content + b'data: {"choices":[{"ind\n\n' + content, b"data: [DONE]\n\n")
    response = front.post("off", stream=True)
    first, *rest = [each for each in response.text.split("\n\n") if each.strip()]
    assert first == content.decode().strip()
    assert [json.loads(each.removeprefix("data: "))["error"]["code"] for each in rest] == ["interrupted"]


@pytest.mark.parametrize(
    ("header", "said", "path"),
    [
        ("on", None, "litellm"),
        ("", "on", "litellm"),
        ("\u200b".encode(), "on", "litellm"),
        ("\u200bon\ufeff".encode(), "off", "litellm"),
        (None, " on ", "litellm"),
        ("off", "on", "openrouter"),
    ],
)
def test_a_header_that_says_nobody_does_not_beat_the_body(
    header: str | bytes | None, said: str | None, path: str, client: world.FixedClient, serve: Callable[..., str]
) -> None:
    url = serve(create_data_plane(client, authorize=lambda _: True))
    raw = header.encode() if isinstance(header, str) else header
    headers = {} if raw is None else {b"X-Rollout-User": raw}
    body = {"messages": [{"role": "user", "content": "Hej"}], **({} if said is None else {"user": said})}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, trust_env=False)
    assert answer.headers["x-rollout-path"] == path


def test_a_header_in_latin_1_is_read_as_the_middlewares_read_it() -> None:
    for raw, read in ((b"s\xf8r\xe9n", "søren"), ("søren".encode(), "søren")):
        request = asked({b"x-rollout-user": raw}, {"messages": [{"role": "user", "content": "Hej"}]})
        assert request.user == user_of_scope({"headers": [(b"x-rollout-user", raw)]})
        assert str(request.user).replace("é", "e") == read


@pytest.mark.parametrize(("pack", "encoding"), [(gzip.compress, "gzip"), (zlib.compress, "deflate")])
def test_a_compressed_request_is_answered_like_a_plain_one(front: Front, pack: Any, encoding: str) -> None:
    body = json.dumps({"messages": HEJ}).encode()
    answer = front.post(raw=pack(body), headers={"Content-Encoding": encoding})
    assert answer.status_code == 200
    assert answer.json()["choices"]


def test_a_compressed_request_that_cannot_be_read_is_refused_with_what_is_taken(front: Front) -> None:
    body = json.dumps({"messages": HEJ}).encode()
    other = front.post(raw=body, headers={"Content-Encoding": "br"})
    assert (other.status_code, other.headers["accept-encoding"]) == (415, "gzip, deflate")
    assert "gzip or deflate" in other.json()["error"]["message"]
    assert front.post(raw=body, headers={"Content-Encoding": "gzip"}).status_code == 400
    bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1))
    assert front.post(raw=bomb, headers={"Content-Encoding": "gzip"}).status_code == 413
    assert front.seen == []  # nothing of it was sent anywhere
