"""Requests the upstream refuses by itself, and its limits."""

import json
from typing import Any

import httpx
import pytest

from rollout.simulator import World, create_app

MODEL = "qwen/qwen3-coder:free"
MESSAGES = [{"role": "user", "content": "Hej!"}]
NOON = 1_795_392_000.0 + 12 * 3600 + 5  # 5 seconds past noon, UTC
MIDNIGHT_MS = (1_795_392_000 + 86_400) * 1000


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def client_of(world: World) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(world))
    return httpx.AsyncClient(
        transport=transport, base_url="http://upstream/api/v1/", headers={"authorization": "Bearer k"}
    )


async def ask(client: httpx.AsyncClient, model: str = MODEL, **body: Any) -> httpx.Response:
    return await client.post("chat/completions", json={"model": model, "messages": MESSAGES, **body})


@pytest.mark.parametrize(
    ("authorization", "message"),
    [
        ("", "No auth credentials found"),
        ("Basic x", "No auth credentials found"),
        ("Bearer sk-or-invalid", "User not found."),
    ],
)
def test_a_request_without_a_good_key_is_401(upstream: Any, authorization: str, message: str) -> None:
    answer = upstream.ask(headers={"authorization": authorization})
    assert answer.status_code == 401
    assert answer.json()["error"] == {"message": message, "code": 401}
    assert upstream.entries()[-1]["status"] == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 20_000,
        b'{"model": "m"}',
        b'{"model": "m", "messages": []}',
        b'{"model": "m", "messages": ["x"]}',
        b'{"messages": [{}]}',
        b'{"model": 3, "messages": [{}]}',
        b'{"models": "m", "messages": [{}]}',
        b'{"model": "m", "messages": [{}], "user": 3}',
        b'{"model": "m", "messages": [{}], "stream": "yes"}',
        b'{"model": "m", "messages": [{}], "tools": [{}]}',
        b'{"model": "m", "messages": [{}], "tool_choice": {}}',
        b'{"model": "m", "messages": [{}], "tool_choice": {"function": {"name": "none"}}}',
        b'{"model": "m", "messages": [{}], "response_format": {"type": "json_schema"}}',
    ],
)
def test_a_body_that_cannot_be_read_is_400(upstream: Any, body: bytes) -> None:
    answer = upstream.client.post(f"{upstream.base_url}/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == 400
    assert upstream.entries()[-1]["status"] == 400


def test_a_body_over_the_limit_is_413_and_the_connection_lives_on(upstream: Any) -> None:
    answer = upstream.client.post(f"{upstream.base_url}/chat/completions", content=b"x" * 1_000_000)
    assert answer.status_code == 413
    assert "100000 bytes" in answer.json()["error"]["message"]
    assert upstream.ask().status_code == 200


def test_ids_with_lone_surrogates_and_numbers_that_are_none_are_recorded(upstream: Any) -> None:
    body = b'{"model": "%s", "messages": [{"role": "user", "content": "\\ud800"}], "user": "\\udfff", "x": NaN}'
    answer = upstream.client.post(f"{upstream.base_url}/chat/completions", content=body % MODEL.encode())
    assert answer.status_code == 200
    entry = upstream.entries()[-1]
    assert entry["user"] == "\udfff"
    assert entry["body"]["x"] == "NaN"
    assert upstream.counts()["user"] == {"\udfff": 1}


def test_a_withdrawn_free_model_is_refused_with_its_paid_twin(upstream: Any) -> None:
    answer = upstream.ask(model="z-ai/glm-4.5-air:free")
    availability = answer.json()["error"]["availability"]
    assert answer.status_code == 404
    assert availability["code"] == "free_variant_ended"
    assert availability["fallback_models"] == ["z-ai/glm-4.5-air"]
    assert availability["requested_models"] == ["z-ai/glm-4.5-air:free"]


def test_a_model_that_never_was_is_400(upstream: Any) -> None:
    answer = upstream.ask(model="nobody/nothing:free")
    assert answer.status_code == 400
    assert answer.json()["error"]["availability"]["code"] == "model_not_found"


def test_models_are_tried_in_their_order(upstream: Any) -> None:
    answer = upstream.ask(model="z-ai/glm-4.5-air:free", models=["nobody/nothing", MODEL])
    assert answer.json()["model"] == MODEL


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ({"prompt": 0, "completion": 0}, 404),
        ({"prompt": 0, "completion": 0, "request": 0, "image": 0}, 404),
        ({"prompt": "1000", "completion": 9.9}, 404),
        ({"prompt": 1.25, "completion": 10}, 200),
        ({}, 200),
        ({"prompt": "cheap"}, 400),
        ("cheap", 400),
    ],
)
def test_max_price_is_honoured_against_a_paid_model(upstream: Any, limits: object, status: int) -> None:
    assert upstream.ask(model="openai/gpt-5", provider={"max_price": limits}).status_code == status


def test_max_price_of_zero_lets_a_free_model_answer(upstream: Any) -> None:
    assert upstream.ask(provider={"max_price": {"prompt": 0, "completion": 0}}).json()["usage"]["cost"] == 0


async def test_a_paid_model_costs_money_until_the_spend_limit() -> None:
    world = World()
    world.account.spend_limit = 0.00001
    async with client_of(world) as client:
        first = await ask(client, "openai/gpt-5")
        assert first.json()["usage"]["cost"] > 0
        key = (await client.get("key")).json()["data"]
        assert key["usage"] == first.json()["usage"]["cost"]
        assert key["limit_remaining"] == 0
        assert (await ask(client, "openai/gpt-5")).status_code == 402
        assert (await ask(client)).status_code == 200


async def test_the_minute_limit_refuses_until_the_next_minute() -> None:
    clock = Clock()
    world = World(clock=clock)
    world.account.per_minute = 2
    async with client_of(world) as client:
        assert [(await ask(client)).status_code for _ in range(3)] == [200, 200, 429]
        refused = await ask(client, "lumen/aurora-3-flash:free")
        reset = str(int(NOON - 5 + 60) * 1000)
        headers = {"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset}
        assert "free-models-per-min" in refused.json()["error"]["message"]
        assert refused.json()["error"]["metadata"] == {"headers": headers}
        assert {name: refused.headers[name] for name in headers} == headers
        assert (await ask(client, "openai/gpt-5")).status_code == 200
        clock.now += 55
        assert (await ask(client)).status_code == 200


async def test_the_daily_limit_refuses_until_midnight_and_failed_attempts_count() -> None:
    clock = Clock()
    world = World(clock=clock)
    world.account.per_day = 2
    async with client_of(world) as client:
        statuses = [(await ask(client, each)).status_code for each in ("z-ai/glm-4.5-air:free", MODEL, MODEL)]
        assert statuses == [404, 200, 429]
        error = (await ask(client)).json()["error"]
        assert "free-models-per-day." in error["message"]
        assert error["metadata"]["limit_source"] == "openrouter_free_tier_daily"
        assert error["metadata"]["headers"]["X-RateLimit-Reset"] == str(MIDNIGHT_MS)
        daily = (await client.get("key")).json()["data"]["free_model_daily_requests"]
        assert daily == {"used": 2, "limit": 2, "remaining": 0}
        clock.now += 12 * 3600
        assert (await ask(client)).status_code == 200


async def test_the_same_seed_gives_the_same_answers() -> None:
    texts = []
    for _ in range(2):
        async with client_of(World(seed=3, clock=Clock())) as client:
            texts.append([(await ask(client)).content for _ in range(3)])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3


async def test_a_fault_may_be_played_for_a_model_that_is_gone() -> None:
    world = World()
    async with client_of(world) as client:
        secret = {"authorization": f"Bearer {world.secret}"}
        await client.put("http://upstream/simulator/faults", json=[{"kind": "empty_content"}], headers=secret)
        answer = await ask(client, "deepseek/deepseek-chat-v3.1:free")
    assert answer.status_code == 200
    assert json.loads(answer.content)["choices"][0]["message"]["content"] == ""
