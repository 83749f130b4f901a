"""Odd answers and refusals of an upstream, through the real LiteLLM: whose fault they are, and what the caller gets."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from rollout.dispatch.classify import classify
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.paths import call_for, write
from rollout.domain.errors import SendingFailed, UpstreamRejected
from rollout.domain.flag import Path
from rollout.gateway.pin import pinned_release
from rollout.gateway.watch import RELEASE_PATH, key_header, release_in
from rollout.resources import resource
from rollout.settings import Upstreams
from tests.dispatch import conftest as world
from tests.dispatch.openrouter_errors import SEEN
from tests.faults.upstreams import MASTER_KEY, Gateway, litellm

pytestmark = [pytest.mark.litellm, pytest.mark.processes]

HEJ: Any = [{"role": "user", "content": "Hej"}]
MODEL = world.CASCADE[0]
REFUSALS = [seen for seen in SEEN if seen.kind == "model_refused"]


class Both(NamedTuple):
    """An upstream, and the real LiteLLM before it."""

    upstream: world.Upstream
    gateway: Gateway

    @property
    def upstreams(self) -> Upstreams:
        return world.upstreams_at(self.upstream.url, litellm_url=self.gateway.url, litellm_key=MASTER_KEY)

    def dispatcher(self) -> Dispatcher:
        """Return one that goes through the gateway for the user "on", with a gate of its own."""
        return Dispatcher(world.FixedClient(self.upstreams), gate=world.a_gate())

    def answers(self, behaviour: world.Behaviour) -> None:
        self.upstream.direct = behaviour
        self.upstream.calls.clear()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    upstream = world.Upstream()
    try:
        with litellm(tmp_path_factory.mktemp("gateway"), f"{upstream.url}/api/v1") as gateway:
            gateway.wait_until_it_answers()
            yield Both(upstream, gateway)
    finally:
        upstream.close()


def event(**more: Any) -> Any:
    return {"id": "gen-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, **more}


def piece(text: str, **more: Any) -> Any:
    return event(choices=[{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}], **more)


def choice(**more: Any) -> Any:
    return event(choices=[{"index": 0, "finish_reason": None, **more}])


def without(document: Any, name: str) -> Any:
    return {key: value for key, value in document.items() if key != name}


A, B = piece("Hej "), piece("du")
STOP = choice(delta={"content": ""}) | {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]}
USED = event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0})
USUAL = (A, B, STOP, USED)
CALL = {"index": 0, "id": "c", "type": "function"}


def streamed(*documents: Any) -> world.Behaviour:
    events = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in documents]
    return world.streams(*events, b"data: [DONE]\n\n")


def asked(both: Both, **more: Any) -> Any:
    return both.dispatcher().invoke(messages=HEJ, user="on", **more)


def attempts(decision: Any) -> list[str]:
    return [f"{each.path}:{each.failure or 'ok'}" for each in decision.attempts]


ODD_FROM_THE_FIRST: Any = {
    "no choices": [event(), *USUAL],
    "choices are null": [event(choices=None), *USUAL],
    "choices are no list": [event(choices={"index": 0}), *USUAL],
    "a choice is null": [event(choices=[None]), *USUAL],
    "no id": [without(each, "id") for each in USUAL],
    "an id that is a number": [{**each, "id": 5} for each in USUAL],
    "no time": [without(each, "created") for each in USUAL],
    "a time with a fraction": [{**each, "created": 1.5} for each in USUAL],
    "no model": [without(each, "model") for each in USUAL],
    "delta is null": [choice(delta=None), *USUAL],
    "an error that is null": [{**A, "error": None}, B, STOP, USED],
}
ODD_LATER: Any = {
    "no choices": [A, event(), B, STOP, USED],
    "choices are null": [A, event(choices=None), B, STOP, USED],
    "a choice is null": [A, event(choices=[None]), B, STOP, USED],
    "no id": [A, without(B, "id"), STOP, USED],
    "delta is null": [A, choice(delta=None), B, STOP, USED],
    "no delta at the end": [A, B, choice(finish_reason="stop"), USED],
    "a last chunk whose choices are null": [A, B, STOP, {**USED, "choices": None}],
    "a last chunk without choices": [A, B, STOP, without(USED, "choices")],
    "a last chunk without an id": [A, B, STOP, without(USED, "id")],
}


def message(**more: Any) -> Any:
    answer = world.completion(MODEL)
    answer["choices"][0]["message"].update(more)
    return answer


ODD_PLAIN: Any = {
    "no role": {**message(), "choices": [{"index": 0, "message": {"content": "Hej"}, "finish_reason": "stop"}]},
    "a usage that is text": {**message(), "usage": "none"},
    "reasoning that is a number": message(reasoning=5),
    "annotations that are text": message(annotations="x"),
    "tool calls that are an object": message(tool_calls={"a": 1}),
    "a tool call without a function": message(tool_calls=[CALL]),
}


@pytest.mark.parametrize("name", ODD_FROM_THE_FIRST)
def test_a_stream_that_litellm_cannot_read_from_the_first_goes_direct(both: Both, name: str) -> None:
    both.answers(streamed(*ODD_FROM_THE_FIRST[name]))
    with asked(both, stream=True) as stream:
        text = "".join(each["choices"][0]["delta"].get("content") or "" for each in stream if _said(each))
    assert (text, attempts(stream.decision)) == ("Hej du", ["litellm:gateway_error", "openrouter:ok"])


def _said(chunk: Any) -> bool:
    choices = chunk.get("choices")
    return bool(isinstance(choices, list) and choices and choices[0] and choices[0].get("delta"))


@pytest.mark.parametrize("name", ODD_LATER)
def test_a_stream_that_litellm_cannot_read_later_is_counted_against_the_gateway_alone(both: Both, name: str) -> None:
    both.answers(streamed(*ODD_LATER[name]))
    dispatcher = both.dispatcher()
    stream = dispatcher.invoke(messages=HEJ, user="on", stream=True)
    with pytest.raises(SendingFailed, match="the gateway's own code"):
        list(stream)
    assert attempts(stream.decision) == ["litellm:interrupted"]
    lines = dispatcher.gate.status().breakers
    failed = [(line.path, line.model, line.status.failures) for line in lines if line.status.failures]
    assert failed == [(Path.LITELLM, None, 1)]


@pytest.mark.parametrize("name", ODD_PLAIN)
def test_a_plain_answer_that_litellm_cannot_read_goes_direct(both: Both, name: str) -> None:
    both.answers(world.says(200, ODD_PLAIN[name]))
    result = asked(both)
    assert result["choices"][0]["message"]["content"] == "Hej"
    assert attempts(result.decision) == ["litellm:gateway_error", "openrouter:ok"]


def test_three_hundred_equal_pieces_pass_through_the_gateway_as_it_is_configured(both: Both) -> None:
    both.answers(streamed(*[piece("----")] * 300, B, STOP, USED))
    with asked(both, stream=True) as stream:
        text = "".join(each["choices"][0]["delta"].get("content") or "" for each in stream)
    assert (text, attempts(stream.decision)) == ("----" * 300 + "du", ["litellm:ok"])


@pytest.mark.parametrize("stream", [False, True])
def test_litellm_wraps_every_real_error_of_openrouter_so_that_it_is_still_known(both: Both, stream: bool) -> None:
    body = write({"messages": HEJ, "stream": stream})
    call = call_for(Path.LITELLM, MODEL, body, both.upstreams)
    wrong = []
    with httpx.Client(trust_env=False, timeout=30) as http:
        for seen in SEEN:
            both.answers(world.says(seen.status, seen.document))
            answer = http.post(call.url, content=call.body, headers=dict(call.headers))
            fault, _ = classify(Path.LITELLM, answer.status_code, answer.headers, answer.content, wall=0.0)
            if fault is None or fault.kind is not seen.kind or seen.words not in fault.detail:
                wrong.append((seen.name, fault))
    assert wrong == []


@pytest.mark.parametrize("user", ["on", "off"])
def test_refusals_of_models_and_regions_are_shown_and_open_nothing_however_many(both: Both, user: str) -> None:
    dispatcher = both.dispatcher()
    for seen in REFUSALS:
        both.answers(world.says(seen.status, seen.document))
        with pytest.raises(UpstreamRejected) as error:
            dispatcher.invoke(messages=HEJ, user=user)
        assert seen.words in str(error.value)
        assert {each.failure for each in error.value.attempts} == {"model_refused"}
    status = dispatcher.gate.status()
    assert [(line.path, line.model) for line in status.breakers if line.status.failures or line.model] == []


def test_litellm_says_which_release_it_is_to_whoever_has_its_key(both: Both) -> None:
    with httpx.Client(base_url=both.gateway.url, trust_env=False, timeout=30) as http:
        answer = http.get(RELEASE_PATH, headers=key_header(MASTER_KEY))
        refused = http.get(RELEASE_PATH)
    assert release_in(answer) == pinned_release((resource("locks") / "litellm.txt").read_text(encoding="utf-8"))
    assert release_in(refused) is None
