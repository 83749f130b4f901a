"""One request on both paths, the gateway's through the real LiteLLM: restored, the answers have the same shape."""

import asyncio
import json
import os
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from rollout.dispatch.classify import sentence
from rollout.dispatch.parity import LOST_FROM_STREAMS, restore, restore_chunk, usage_is_estimated
from rollout.dispatch.paths import NO_PRICE, call_for, write
from rollout.dispatch.request import normalise
from rollout.domain.flag import Path as Route
from rollout.gateway.install import install
from rollout.gateway.plan import GatewayPlan
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.supervise import Supervisor
from rollout.resources import resource
from rollout.settings import Upstreams
from rollout.simulator import Fault, Kind, World, running
from rollout.wire.chat import error_in

pytestmark = [pytest.mark.litellm, pytest.mark.processes]

MODEL = "qwen/qwen3-coder:free"
REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
REQUESTS: Any = {
    "text": {},
    "tool": {"tools": [TOOL], "tool_choice": "required"},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
}


class Both(NamedTuple):
    """The upstream, asked directly and through the gateway."""

    world: World
    http: httpx.AsyncClient
    direct: str
    gateway: str

    async def ask(self, **body: Any) -> tuple[httpx.Response, httpx.Response]:
        document = {"model": MODEL, "messages": [{"role": "user", "content": "Hej"}], **body}
        there = {"model": f"openrouter/{MODEL}", "disable_fallbacks": True, "stream_options": {"include_usage": True}}
        if not body.get("stream"):
            del there["stream_options"]
        return (
            await self.http.post(f"{self.direct}/chat/completions", json=document),
            await self.http.post(f"{self.gateway}/v1/chat/completions", json={**document, **there}),
        )


@pytest.fixture(scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Both]:
    environment = await asyncio.to_thread(
        lambda: install(
            REPOSITORY / ".cache" / "litellm",
            lock=resource("locks") / "litellm.txt",
            log=REPOSITORY / ".cache" / "litellm-install.log",
            environ=os.environ,
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = World(seed=3)
    healthy = asyncio.Event()

    def note(state: GatewayState) -> None:
        if state.phase is GatewayPhase.HEALTHY:
            healthy.set()

    with running(world) as url:
        plan = GatewayPlan(
            environment=environment,
            lock=resource("locks") / "litellm.txt",
            folder=tmp_path_factory.mktemp("gateway"),
            port=port,
            upstream_base_url=url,
            upstream_key="sk-or-simulated",
            master_key="sk-master-simulated",
        )
        supervisor = Supervisor(
            plan,
            cascade=[MODEL],
            environ=os.environ,
            clock=time.time,
            sleep=asyncio.sleep,
            random=random.random,
            on_change=note,
        )
        task = asyncio.ensure_future(supervisor.run())
        headers = {"Authorization": "Bearer sk-master-simulated", "x-litellm-num-retries": "0"}
        try:
            async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=60) as http:
                await asyncio.wait_for(healthy.wait(), 180)
                yield Both(world, http, url, f"http://127.0.0.1:{port}")
        finally:
            task.cancel()
            await asyncio.wait({task})


@pytest.fixture(autouse=True)
def without_faults(both: Both) -> None:
    both.world.script.play([])


def shape(value: Any) -> Any:
    """Return a document with its values' kinds for its values."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in sorted(value.items())}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return "number" if isinstance(value, int | float) else type(value).__name__


def chunks(response: httpx.Response) -> list[Any]:
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def without(chunk: Any, lost: tuple[str, ...] = LOST_FROM_STREAMS) -> Any:
    """Return a chunk without what is lost for good."""
    kept = {name: value for name, value in chunk.items() if name not in lost}
    kept["choices"] = [
        {name: value for name, value in choice.items() if f"choices.{name}" not in lost} for choice in kept["choices"]
    ]
    return kept


@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_plain_answer_has_one_shape_on_both_paths(both: Both, kind: str) -> None:
    direct, gateway = await both.ask(**REQUESTS[kind])
    answer = gateway.json()
    assert restore(answer, model=MODEL)
    assert shape(answer) == shape(direct.json())
    assert answer["model"] == direct.json()["model"]


@pytest.mark.parametrize("kind", REQUESTS)
async def test_a_stream_has_one_shape_on_both_paths_but_for_what_is_lost(both: Both, kind: str) -> None:
    direct, gateway = await both.ask(stream=True, **REQUESTS[kind])
    *sent, used = [without(chunk) for chunk in chunks(direct)]
    received = chunks(gateway)
    for chunk in received:
        assert restore_chunk(chunk, model=MODEL)
    *came, estimate = [without(chunk) for chunk in received]
    tool = REQUESTS[kind].get("tools")
    if tool:  # the gateway adds to a tool call's later pieces what only the first one needs
        for chunk in came:
            for call in chunk["choices"][0]["delta"].get("tool_calls") or ():
                if "id" not in call:
                    del call["type"]
    assert [shape(chunk) for chunk in came] == [shape(chunk) for chunk in sent]
    assert estimate["usage"]["cost"] == used["usage"]["cost"] == 0


HOSTILE: Any = {
    "additional_drop_params": ["provider"],
    "api_key": "sk-of-the-caller",
    "custom_llm_provider": "openai",
    "disable_fallbacks": False,
    "drop_params": True,
    "extra_headers": {"X-Title": "mine"},
    "fallbacks": [{"model": "openai/gpt-5"}],
    "metadata": {"team": "shop"},
    "mock_response": "made up",
    "models": ["openai/gpt-5"],
    "num_retries": 5,
    "timeout": -5,
}
WANTS: Any = {"reasoning": {"effort": "low"}, "transforms": ["middle-out"], "x_unknown": {"kept": [1, 2.5]}}


@pytest.mark.parametrize("stream", [False, True])
async def test_whatever_a_caller_says_the_same_reaches_the_upstream_on_both_paths(both: Both, stream: bool) -> None:
    extra = {"model": "openai/gpt-5", "provider": {"sort": "price", "max_price": {"prompt": 100}}}
    said = normalise({"messages": [{"role": "user", "content": "Hej"}], **HOSTILE, **WANTS}, {"extra_body": extra})
    body = write({**said.body, "stream": stream})
    upstreams = Upstreams(both.direct, "sk-or-simulated", both.gateway.removesuffix("/v1"), "sk-master-simulated")
    arrived = []
    for path in (Route.OPENROUTER, Route.LITELLM):
        call = call_for(path, MODEL, body, upstreams)
        answer = await both.http.post(call.url, content=call.body, headers=dict(call.headers))
        assert answer.status_code == 200
        arrived.append(json.loads(list(both.world.record)[-1].body))
    direct, gateway = ({**each, "usage": None, "stream_options": None} for each in arrived)
    assert gateway == direct
    assert direct["model"] == MODEL
    assert direct["provider"] == {"sort": "price", "max_price": dict(NO_PRICE)}
    assert direct.items() >= WANTS.items()


@pytest.mark.parametrize("name", ["api_base", "base_url", "user_config", "model_list"])
async def test_what_litellm_allows_nobody_to_set_is_refused_there_and_never_obeyed(both: Both, name: str) -> None:
    asked = len(list(both.world.record))
    body = write({"messages": [{"role": "user", "content": "Hej"}], name: "http://127.0.0.1:9"})
    assert body.strange
    call = call_for(Route.LITELLM, MODEL, body, Upstreams(both.direct, "", both.gateway, "sk-master-simulated"))
    answer = await both.http.post(call.url, content=call.body, headers=dict(call.headers))
    assert answer.status_code == 500
    assert len(list(both.world.record)) == asked


async def test_a_finish_reason_error_is_seen_through_the_gateway(both: Both) -> None:
    both.world.script.play([Fault(Kind.FINISH_REASON_ERROR)])
    direct, gateway = await both.ask()
    assert gateway.json()["choices"][0]["finish_reason"] == "stop"
    answer = gateway.json()
    restore(answer, model=MODEL)
    assert shape(answer) == shape(direct.json())
    assert answer["choices"][0]["finish_reason"] == "error"


async def test_an_error_in_the_middle_of_a_stream_is_told_in_the_upstreams_words_on_both_paths(both: Both) -> None:
    both.world.script.play([Fault(Kind.MID_STREAM_ERROR)])
    for answer in await both.ask(stream=True):
        events = [line.removeprefix("data: ") for line in answer.text.splitlines() if '"error"' in line]
        (told,) = [error for each in events if (error := error_in(json.loads(each))) is not None]
        assert sentence(told, "") == "Provider disconnected"


async def test_a_stream_that_was_cut_upstream_ends_at_the_gateway_with_a_usage_of_its_own(both: Both) -> None:
    both.world.script.play([Fault(Kind.TRUNCATED_JSON)])
    _, gateway = await both.ask(stream=True)
    *_, last = chunks(gateway)
    assert usage_is_estimated(last)
