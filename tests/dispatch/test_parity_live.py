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

from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.dispatch.extras import FREE_ENGINE
from rollout.dispatch.parity import LOST_FROM_STREAMS, REWRITES_HEADER, restore, restore_chunk, usage_is_estimated
from rollout.dispatch.paths import NO_PRICE, call_for, write
from rollout.dispatch.request import normalise
from rollout.dispatch.words import sentence
from rollout.domain.errors import UpstreamUnavailable
from rollout.domain.flag import Path as Route
from rollout.gateway.install import install
from rollout.gateway.plan import GatewayPlan
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.supervise import Supervisor
from rollout.resources import resource
from rollout.settings import Upstreams
from rollout.simulator import Fault, Kind, World, running
from rollout.wire.chat import error_in, usage_in
from tests.dispatch import conftest as world_of
from tests.dispatch.bodies import HEJ, MODEL, UNCHANGED, WITH_A_FILE

pytestmark = [pytest.mark.litellm, pytest.mark.processes]

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
    log: Path

    async def ask(self, **body: Any) -> tuple[httpx.Response, httpx.Response]:
        """Ask on both paths, with the calls that every request is sent with."""
        upstreams = Upstreams(self.direct, "sk-or-simulated", self.gateway, "sk-master-simulated")
        written = write({"messages": [HEJ], **body})
        calls = [call_for(path, MODEL, written, upstreams) for path in (Route.OPENROUTER, Route.LITELLM)]
        direct, gateway = [
            await self.http.post(call.url, content=call.body, headers=dict(call.headers)) for call in calls
        ]
        return direct, gateway


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
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
                await asyncio.wait_for(healthy.wait(), 180)
                yield Both(world, http, url, f"http://127.0.0.1:{port}", plan.log)
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


async def arrived(both: Both, body: Any) -> tuple[Any, Any]:
    """Return what reaches the upstream of a body, sent directly and through the gateway."""
    asked = both.world.record.seen
    answers = await both.ask(**body)
    found = both.world.record.since(asked)
    assert [each.via for each in found] == ["direct", "litellm"], [each.text for each in answers]
    direct, gateway = (json.loads(each.body) for each in found)
    return direct, gateway


def is_as_said(direct: Any, gateway: Any, said: Any) -> bool:
    """Say whether the two bodies are what was said; the gateway adds that it wants to know what was used."""
    added = gateway.keys() - direct.keys()
    assert added <= {"usage", "stream_options"}
    return bool(direct == said) and {name: gateway[name] for name in direct} == said


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", UNCHANGED)
async def test_what_is_said_reaches_the_upstream_unchanged_on_both_paths(both: Both, name: str, stream: bool) -> None:
    said = {**UNCHANGED[name], "stream": stream}
    guarded = {**(said.get("provider") or {}), "max_price": dict(NO_PRICE)}
    assert is_as_said(*await arrived(both, said), {**said, "model": MODEL, "provider": guarded})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", WITH_A_FILE)
async def test_a_file_reaches_the_upstream_with_its_free_parser_on_both_paths(
    both: Both, name: str, stream: bool
) -> None:
    said = {"messages": [WITH_A_FILE[name]], "stream": stream}
    plugins = [{"id": "file-parser", "pdf": {"engine": FREE_ENGINE}}]
    guard = {"max_price": dict(NO_PRICE)}
    expected = {**said, "model": MODEL, "provider": guard, "plugins": plugins}
    assert is_as_said(*await arrived(both, said), expected)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_lone_surrogate_becomes_the_replacement_character_on_both_paths(both: Both, stream: bool) -> None:
    said = {"messages": [{"role": "user", "content": "a\ud800b\udc00 \ud83d\udc4b\udfff"}], "x\ud800": "\udbff"}
    direct, gateway = await arrived(both, {**said, "stream": stream})
    for body in (direct, gateway):
        assert body["messages"][0]["content"] == "a\ufffdb\ufffd 👋\ufffd"
        assert body["x\ufffd"] == "\ufffd"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_caller_says_in_extra_body_overrides_neither_the_model_nor_the_guard(
    both: Both, stream: bool
) -> None:
    extra = {"model": "openai/gpt-5", "models": ["openai/gpt-5"], "provider": {"max_price": {"prompt": 100}}}
    said = normalise({"messages": [HEJ], "stream": stream}, {"extra_body": extra})
    for body in await arrived(both, said.body):
        assert body["model"] == MODEL
        assert body["provider"] == {"max_price": dict(NO_PRICE)}
        assert body["stream"] is stream
        assert "models" not in body


@pytest.mark.parametrize("name", ["api_base", "base_url", "user_config", "model_list"])
async def test_what_litellm_allows_nobody_to_set_is_refused_there_and_never_obeyed(both: Both, name: str) -> None:
    asked = len(list(both.world.record))
    body = write({"messages": [{"role": "user", "content": "Hej"}], name: "http://127.0.0.1:9"})
    assert body.strange
    call = call_for(Route.LITELLM, MODEL, body, Upstreams(both.direct, "", both.gateway, "sk-master-simulated"))
    answer = await both.http.post(call.url, content=call.body, headers=dict(call.headers))
    assert answer.status_code == 500
    assert len(list(both.world.record)) == asked


async def test_what_is_billed_to_the_accounts_own_key_is_read_on_both_paths(both: Both) -> None:
    both.world.script.play([Fault(Kind.BILLS_OWN_KEY, cost=0.25)])
    for answer in await both.ask():
        usage = usage_in(answer.json())
        assert usage is not None
        assert usage.cost == 0.25


async def test_what_a_stream_bills_to_the_accounts_own_key_is_lost_at_the_gateway_alone(both: Both) -> None:
    both.world.script.play([Fault(Kind.BILLS_OWN_KEY, cost=0.25)])
    direct, gateway = [usage_in(chunks(answer)[-1]) for answer in await both.ask(stream=True)]
    assert direct is not None
    assert gateway is not None
    assert "usage.cost_details" in LOST_FROM_STREAMS
    assert (direct.cost, gateway.cost) == (0.25, 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_gateway_tells_the_tokens_that_the_upstream_counted_and_not_those_it_was_shown(
    both: Both, stream: bool
) -> None:
    direct, gateway = [
        usage_in(chunks(answer)[-1] if stream else answer.json())
        for answer in await both.ask(messages=[{"role": "user", "content": "Hej " * 1000}], stream=stream)
    ]
    assert direct == gateway
    assert direct is not None
    assert direct.prompt_tokens == 1000


@pytest.mark.parametrize("stream", [False, True])
async def test_litellm_logs_nothing_of_what_is_said_and_nothing_of_what_is_answered(both: Both, stream: bool) -> None:
    for kind in (None, Kind.ERROR_500, Kind.MID_STREAM_ERROR, Kind.TRUNCATED_JSON):
        both.world.script.play([Fault(kind)] if kind else [])
        await both.ask(
            messages=[{"role": "user", "content": "unspeakable words"}], user="unspeakable-user", stream=stream
        )
    both.world.script.play([])
    await both.ask(messages=[{"role": "user", "content": "unspeakable words"}], api_base="unspeakable-url")
    assert both.log.stat().st_size > 0
    assert "unspeakable" not in both.log.read_text()


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


NEEDS: Any = {
    "type": "function",
    "function": {
        "name": "say",
        "parameters": {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]},
    },
}
CALLED: Any = {"tools": [NEEDS], "tool_choice": "required"}


@pytest.mark.parametrize(
    ("kind", "asked"), [(Kind.THOUGHT_IN_TAGS, {}), (Kind.STOP_AFTER_TOOL_CALL, CALLED), (Kind.FENCED, {})]
)
async def test_what_the_gateway_moves_or_writes_over_is_put_back(both: Both, kind: Kind, asked: Any) -> None:
    both.world.script.play([Fault(kind)])
    direct, gateway = (answer.json()["choices"][0] for answer in await both.ask(**asked))
    assert gateway["message"].get("content") != direct["message"].get("content") or kind is not Kind.THOUGHT_IN_TAGS
    restore({"choices": [gateway]}, model=MODEL)
    for each in (direct, gateway):
        each["message"].pop("tool_calls", None)  # its id is another for each answer
    assert gateway == direct


class Through:
    """The gateway as an application asks it: by the functions, and over HTTP."""

    def __init__(self, both: Both) -> None:
        upstreams = world_of.upstreams_at(
            both.gateway,
            openrouter_url=both.direct,
            openrouter_key="sk-or-simulated",
            litellm_key="sk-master-simulated",
            **dict.fromkeys(("total_timeout", "attempt_timeout", "first_token_timeout", "stall_timeout"), 60.0),
        )
        client = world_of.FixedClient(upstreams)
        client.cascade = (MODEL,)
        self.dispatcher = Dispatcher(client, gate=world_of.a_gate())
        self.app = CompletionsApp(self.dispatcher, lambda _: True)

    async def plain(self, **body: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
            asked = {"messages": [HEJ], "user": "on", **body}
            return await http.post("/v1/chat/completions", json=asked)

    async def stream(self, **body: Any) -> Any:
        return await self.dispatcher.ainvoke({"messages": [HEJ], "user": "on", **body}, stream=True)


@pytest.fixture
async def through(both: Both) -> AsyncIterator[Through]:
    made = Through(both)
    yield made
    await made.dispatcher.aclose()


async def test_a_reason_to_finish_that_may_be_another_is_named_in_a_header(both: Both, through: Through) -> None:
    assert REWRITES_HEADER not in (await through.plain()).headers
    both.world.script.play([Fault(Kind.UNKNOWN_FINISH)])
    answer = await through.plain()
    assert answer.headers["x-rollout-served-by"] == "litellm"
    assert answer.headers[REWRITES_HEADER] == "choices.finish_reason"
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


async def test_a_piece_of_text_with_the_end_mark_in_it_is_not_lost_in_silence(both: Both, through: Through) -> None:
    both.world.script.play([Fault(Kind.END_MARK_IN_TEXT)])
    said = (await through.plain()).json()["choices"][0]["message"]["content"]
    assert "data: [DONE]" in said
    stream = await through.stream()
    with pytest.raises(UpstreamUnavailable, match="LiteLLM lost a piece"):
        [each async for each in stream]


@pytest.mark.parametrize("kind", [Kind.END_MARK_IN_TEXT, Kind.BROKEN_ARGUMENTS])
async def test_a_tool_call_whose_arguments_did_not_come_whole_is_a_failure(
    both: Both, through: Through, kind: Kind
) -> None:
    both.world.script.play([Fault(kind, stream=True)])
    stream = await through.stream(**CALLED)
    with pytest.raises(UpstreamUnavailable):
        [each async for each in stream]
    both.world.script.play([Fault(kind, stream=False, first=1)])
    plain = await through.plain(**CALLED)
    (call,) = plain.json()["choices"][0]["message"]["tool_calls"]
    assert "said" in json.loads(call["function"]["arguments"])
    assert plain.headers["x-rollout-attempts"] == ("2" if kind is Kind.BROKEN_ARGUMENTS else "1")


async def test_a_stream_that_repeats_the_end_mark_of_its_request_comes_whole(through: Through) -> None:
    said = "Repeat: data: [DONE]"
    stream = await through.stream(messages=[{"role": "user", "content": said}])
    text = "".join([each["choices"][0]["delta"].get("content") or "" async for each in stream if each["choices"]])
    assert text.endswith(said)
    assert stream.decision.served_by is Route.OPENROUTER
