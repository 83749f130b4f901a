"""What the gateway made of an answer is put back; the answers here were captured from a real one."""

import copy
from typing import Any

import pytest

from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.parity import (
    LOST_FROM_STREAMS,
    restore,
    restore_chunk,
    upstream_model,
    usage_is_estimated,
)
from rollout.dispatch.streams import AsyncInvokeStream, InvokeStream
from tests.dispatch import conftest as world

MODEL = "qwen/qwen3-coder:free"


def gateway_answer(**choice: Any) -> dict[str, Any]:
    message = {"content": "Hej", "role": "assistant", "provider_specific_fields": {"refusal": None, "reasoning": None}}
    return {
        "id": "gen-1",
        "created": 1,
        "model": f"openrouter/{MODEL}",
        "object": "chat.completion",
        "choices": [
            {
                "finish_reason": "stop",
                "index": 0,
                "message": message,
                "provider_specific_fields": {"native_finish_reason": "stop"},
                **choice,
            }
        ],
        "usage": {"completion_tokens": 1, "prompt_tokens": 1, "total_tokens": 2, "cost": 0},
        "provider": "Venice",
    }


def upstream_answer() -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hej", "refusal": None, "reasoning": None}
    choice = {
        "logprobs": None,
        "finish_reason": "stop",
        "native_finish_reason": "stop",
        "index": 0,
        "message": message,
    }
    return {**gateway_answer(), "model": MODEL, "choices": [choice]}


def gateway_chunk(delta: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {
        "id": "gen-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": f"openrouter/{MODEL}",
        "choices": [{"index": 0, "delta": delta, **choice}],
    }


def restored(document: Any) -> tuple[Any, bool]:
    changed = restore(document, model=MODEL)
    return document, changed


def restored_chunk(chunk: Any) -> tuple[Any, bool]:
    changed = restore_chunk(chunk, model=MODEL)
    return chunk, changed


def test_a_plain_answer_is_what_the_upstream_wrote() -> None:
    assert restored(gateway_answer()) == (upstream_answer(), True)


def test_what_the_upstream_wrote_stays_as_it_is() -> None:
    assert restored(upstream_answer()) == (upstream_answer(), False)


@pytest.mark.parametrize(
    "one_thing",
    [
        {"model": f"openrouter/{MODEL}"},
        {"provider_specific_fields": {"provider": "Venice"}},
        {"choices": [{"logprobs": None, "provider_specific_fields": {"native_finish_reason": "stop"}}]},
        {"choices": [{"logprobs": None, "message": {"provider_specific_fields": {"refusal": None}}}]},
        {"choices": [{"logprobs": None, "message": {"reasoning": "Hm", "reasoning_content": "Hm"}}]},
        {"choices": [{"logprobs": None, "finish_reason": "stop", "native_finish_reason": "error"}]},
        {"choices": [{}]},
    ],
)
def test_whatever_is_put_back_is_said(one_thing: dict[str, Any]) -> None:
    before = copy.deepcopy(one_thing)
    after, changed = restored(one_thing)
    assert changed
    assert after != before


def test_restoring_twice_is_restoring_once() -> None:
    once, _ = restored(gateway_answer())
    assert restored(copy.deepcopy(once)) == (once, False)
    chunk, _ = restored_chunk(gateway_chunk({"content": "He"}))
    assert restored_chunk(copy.deepcopy(chunk)) == (chunk, False)


def test_a_refusal_stands_where_clients_look_for_it() -> None:
    message = {"content": None, "role": "assistant", "provider_specific_fields": {"refusal": "I cannot"}}
    answer, _ = restored(gateway_answer(message=message))
    assert answer["choices"][0]["message"] == {"content": None, "role": "assistant", "refusal": "I cannot"}


def test_reasoning_has_one_name_and_its_details() -> None:
    details = [{"type": "reasoning.text", "text": "Let me think", "format": "unknown", "index": 0}]
    message = {
        "content": "Hej",
        "role": "assistant",
        "reasoning_content": "Let me think",
        "provider_specific_fields": {"reasoning": "Let me think", "reasoning_details": details, "refusal": None},
    }
    answer, _ = restored(gateway_answer(message=message))
    assert answer["choices"][0]["message"] == {
        "content": "Hej",
        "role": "assistant",
        "reasoning": "Let me think",
        "reasoning_details": details,
        "refusal": None,
    }


@pytest.mark.parametrize("content", ["Hej", "", None])
def test_a_thought_in_tags_stands_at_the_head_of_the_content_again(content: Any) -> None:
    message = {"content": content, "role": "assistant", "reasoning_content": "\nHm\n"}
    answer, _ = restored(gateway_answer(message=message))
    assert answer["choices"][0]["message"] == {
        "content": f"<think>\nHm\n</think>{content or ''}",
        "role": "assistant",
    }


@pytest.mark.parametrize("elsewhere", [{"reasoning": None}, {"reasoning": "Other"}, {"reasoning_details": []}])
def test_reasoning_beside_a_field_of_the_upstreams_own_stays_where_it_is(elsewhere: Any) -> None:
    message = {"content": "Hej", "reasoning_content": "Hm", "provider_specific_fields": elsewhere}
    answer, _ = restored(gateway_answer(message=message))
    assert answer["choices"][0]["message"] == {"content": "Hej", "reasoning_content": "Hm", **elsewhere}


CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("written", "native", "calls", "said"),
    [
        ("stop", None, None, None),
        ("tool_calls", None, CALLS, None),
        ("tool_calls", "stop", CALLS, "stop"),
        ("tool_calls", "STOP", CALLS, "tool_calls"),
        ("tool_calls", "stop", None, "tool_calls"),
        ("stop", "stop", None, "stop"),
        ("stop", "end_turn", None, "stop"),
        ("length", None, None, "length"),
    ],
)
def test_a_reason_to_finish_that_the_native_one_shows_is_put_back(
    written: str, native: Any, calls: Any, said: Any
) -> None:
    message = {"content": "Hej", "role": "assistant", "tool_calls": calls}
    elsewhere = {"native_finish_reason": native}
    document = gateway_answer(message=message, finish_reason=written, provider_specific_fields=elsewhere)
    answer, _ = restored(document)
    assert answer["choices"][0]["finish_reason"] == said


def test_a_field_nobody_knows_goes_back_to_its_message() -> None:
    message = {"content": "Hej", "role": "assistant", "provider_specific_fields": {"x_more": {"k": 1}}}
    answer, _ = restored(gateway_answer(message=message))
    assert answer["choices"][0]["message"]["x_more"] == {"k": 1}


def test_a_finish_reason_error_is_an_error_again() -> None:
    elsewhere = {"error": {"code": 502, "message": "upstream failed"}, "native_finish_reason": "error"}
    answer, _ = restored(gateway_answer(provider_specific_fields=elsewhere))
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["error"]) == ("error", {"code": 502, "message": "upstream failed"})


@pytest.mark.parametrize(
    ("said", "upstreams"),
    [
        (f"openrouter/{MODEL}", MODEL),
        ("free-1", MODEL),
        (MODEL, MODEL),
        ("other/served:free", "other/served:free"),
        ("openrouter/auto", "openrouter/auto"),  # the upstream's own id begins so, too
    ],
)
def test_a_model_is_named_as_the_upstream_names_it(said: str, upstreams: str) -> None:
    assert upstream_model(said, MODEL) == upstreams


@pytest.mark.parametrize("document", [None, [], "text", 1, {}, {"choices": None}, {"choices": [None, 1]}, {"model": 7}])
def test_what_is_no_answer_passes_untouched(document: Any) -> None:
    before = copy.deepcopy(document)
    assert restored(document) == (before, False)
    assert restored_chunk(document) == (before, False)


def test_strange_things_in_an_answer_are_left_where_they_are() -> None:
    strange = {"choices": [{"message": "no object", "logprobs": None, "provider_specific_fields": [1]}]}
    assert restored(strange) == ({"choices": [{"message": "no object", "logprobs": None}]}, False)


def test_a_chunk_has_the_shape_that_a_chunk_of_the_direct_path_has() -> None:
    chunk, changed = restored_chunk(gateway_chunk({"content": "He"}))
    assert changed
    assert chunk["model"] == MODEL
    assert chunk["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "He"},
            "finish_reason": None,
            "native_finish_reason": None,
            "logprobs": None,
        }
    ]


def test_the_last_chunk_has_content_too_but_nobody_guesses_the_native_reason() -> None:
    chunk, _ = restored_chunk(gateway_chunk({}, finish_reason="stop"))
    (choice,) = chunk["choices"]
    assert choice["delta"] == {"role": "assistant", "content": ""}
    assert "native_finish_reason" not in choice
    assert "choices.native_finish_reason" in LOST_FROM_STREAMS


def test_a_chunk_of_a_tool_call_has_no_content() -> None:
    calls = [{"function": {"arguments": "{"}, "type": "function", "index": 0}]
    chunk, _ = restored_chunk(gateway_chunk({"tool_calls": calls}))
    assert chunk["choices"][0]["delta"] == {"role": "assistant", "content": None, "tool_calls": calls}


def test_a_usage_without_a_cost_is_the_gateways_guess_at_a_stream_that_was_cut() -> None:
    counted = {"completion_tokens": 4, "prompt_tokens": 9, "total_tokens": 13}
    assert usage_is_estimated({"choices": [], "usage": counted})
    assert not usage_is_estimated({"choices": [], "usage": {**counted, "cost": 0.0}})
    assert not usage_is_estimated({"choices": [], "usage": None})
    assert not usage_is_estimated({"choices": []})
    assert not usage_is_estimated(None)


def test_answers_and_chunks_in_python_name_the_upstreams_model_on_both_paths(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    dispatcher = Dispatcher(client)
    hej = [{"role": "user", "content": "Hej"}]
    for user in ("on", "off"):
        assert dispatcher.invoke(messages=hej, user=user)["model"] == world.CASCADE[0]  # type: ignore[index]  # no stream
        stream = dispatcher.invoke(messages=hej, user=user, stream=True)
        assert isinstance(stream, InvokeStream)
        assert {chunk["model"] for chunk in stream} == {world.CASCADE[0]}
    assert upstream.via_gateway[0].body["model"] == f"openrouter/{world.CASCADE[0]}"


async def test_asynchronous_chunks_name_the_upstreams_model_on_both_paths(client: world.FixedClient) -> None:
    dispatcher = Dispatcher(client)
    for user in ("on", "off"):
        stream = await dispatcher.ainvoke(messages=[{"role": "user", "content": "Hej"}], user=user, stream=True)
        assert isinstance(stream, AsyncInvokeStream)
        assert {chunk["model"] async for chunk in stream} == {world.CASCADE[0]}
