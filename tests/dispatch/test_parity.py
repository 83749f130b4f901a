"""What the gateway made of an answer is put back; the answers here were captured from a real one."""

import copy
import json
from typing import Any

import pytest

from rollout.dispatch.invoke import Dispatcher
from rollout.dispatch.parity import (
    LOST_FROM_STREAMS,
    restore,
    restore_chunk,
    upstream_error,
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


def test_a_plain_answer_is_what_the_upstream_wrote_and_says_what_was_put_back() -> None:
    restored, changed = restore(gateway_answer(), model=MODEL)
    assert restored == upstream_answer()
    assert changed == (
        "model",
        "choices.native_finish_reason",
        "choices.message.refusal",
        "choices.message.reasoning",
        "choices.logprobs",
    )


def test_what_the_upstream_wrote_stays_as_it_is() -> None:
    assert restore(upstream_answer(), model=MODEL) == (upstream_answer(), ())


def test_restoring_twice_is_restoring_once() -> None:
    once, _ = restore(gateway_answer(), model=MODEL)
    assert restore(once, model=MODEL) == (once, ())


def test_the_answer_handed_in_is_left_alone() -> None:
    given = gateway_answer()
    before = copy.deepcopy(given)
    restore(given, model=MODEL)
    assert given == before


def test_a_refusal_stands_where_clients_look_for_it() -> None:
    message = {"content": None, "role": "assistant", "provider_specific_fields": {"refusal": "I cannot"}}
    restored, changed = restore(gateway_answer(message=message), model=MODEL)
    assert restored["choices"][0]["message"] == {"content": None, "role": "assistant", "refusal": "I cannot"}
    assert "choices.message.refusal" in changed


def test_reasoning_has_one_name_and_its_details() -> None:
    details = [{"type": "reasoning.text", "text": "Let me think", "format": "unknown", "index": 0}]
    message = {
        "content": "Hej",
        "role": "assistant",
        "reasoning_content": "Let me think",
        "provider_specific_fields": {"reasoning": "Let me think", "reasoning_details": details, "refusal": None},
    }
    restored, _ = restore(gateway_answer(message=message), model=MODEL)
    assert restored["choices"][0]["message"] == {
        "content": "Hej",
        "role": "assistant",
        "reasoning": "Let me think",
        "reasoning_details": details,
        "refusal": None,
    }


def test_reasoning_under_another_name_alone_is_kept() -> None:
    message = {"content": "Hej", "role": "assistant", "reasoning_content": "Hm"}
    restored, _ = restore(gateway_answer(message=message), model=MODEL)
    assert restored["choices"][0]["message"]["reasoning_content"] == "Hm"


def test_a_field_nobody_knows_goes_back_to_its_message() -> None:
    message = {"content": "Hej", "role": "assistant", "provider_specific_fields": {"x_more": {"k": 1}}}
    restored, changed = restore(gateway_answer(message=message), model=MODEL)
    assert restored["choices"][0]["message"]["x_more"] == {"k": 1}
    assert "choices.message.x_more" in changed


def test_a_finish_reason_error_is_an_error_again() -> None:
    elsewhere = {"error": {"code": 502, "message": "upstream failed"}, "native_finish_reason": "error"}
    restored, changed = restore(gateway_answer(provider_specific_fields=elsewhere), model=MODEL)
    choice = restored["choices"][0]
    assert (choice["finish_reason"], choice["error"]) == ("error", {"code": 502, "message": "upstream failed"})
    assert "choices.finish_reason" in changed


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
    assert restore(document, model=MODEL) == (document, ())
    assert restore_chunk(document, model=MODEL) == (document, ())


def test_strange_things_in_an_answer_are_left_where_they_are() -> None:
    strange = {"choices": [{"message": "no object", "logprobs": None, "provider_specific_fields": [1]}]}
    restored, changed = restore(strange, model=MODEL)
    assert restored == {"choices": [{"message": "no object", "logprobs": None}]}
    assert changed == ()


def test_a_chunk_has_the_shape_that_a_chunk_of_the_direct_path_has() -> None:
    restored, changed = restore_chunk(gateway_chunk({"content": "He"}), model=MODEL)
    assert restored["model"] == MODEL
    assert restored["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "He"},
            "finish_reason": None,
            "native_finish_reason": None,
            "logprobs": None,
        }
    ]
    assert changed[0] == "model"


def test_the_last_chunk_has_content_too_but_nobody_guesses_the_native_reason() -> None:
    restored, _ = restore_chunk(gateway_chunk({}, finish_reason="stop"), model=MODEL)
    (choice,) = restored["choices"]
    assert choice["delta"] == {"role": "assistant", "content": ""}
    assert "native_finish_reason" not in choice
    assert "choices.native_finish_reason" in LOST_FROM_STREAMS


def test_a_chunk_of_a_tool_call_has_no_content() -> None:
    calls = [{"function": {"arguments": "{"}, "type": "function", "index": 0}]
    restored, _ = restore_chunk(gateway_chunk({"tool_calls": calls}), model=MODEL)
    assert restored["choices"][0]["delta"] == {"role": "assistant", "content": None, "tool_calls": calls}


def test_the_upstreams_own_error_is_read_out_of_the_gateways() -> None:
    own = {
        "message": "Rate limit exceeded: free-models-per-day",
        "code": 429,
        "metadata": {"limit_source": "openrouter_free_tier_daily"},
    }
    quoted = json.dumps({"error": own, "user_id": "user_1"})
    message = f"litellm.RateLimitError: RateLimitError: OpenrouterException - {quoted}"
    assert upstream_error({"message": message, "code": "429"}) == own
    assert upstream_error({"message": message + ". Received Model Group=free-1\nAvailable Fallbacks=None"}) == own


@pytest.mark.parametrize(
    "message",
    [
        None,
        7,
        "",
        "No connected db.",
        "APIError: OpenrouterException - Provider disconnected",
        "OpenrouterException - {",
    ],
)
def test_a_message_without_the_upstreams_words_yields_none(message: Any) -> None:
    assert upstream_error({"message": message}) is None


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
