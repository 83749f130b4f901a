import json
from typing import Any

import pytest

from rollout.wire.chat import (
    DONE,
    Usage,
    choices_in,
    delivers,
    dump_json,
    error_event,
    error_in,
    error_of_choice,
    is_completion,
    models_document,
    parse_json,
    read_event,
    served_model,
    serves,
    usage_in,
)
from rollout.wire.sse import EventParser


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"delta": {"role": "assistant"}}, False),
        ({"delta": {"role": "assistant", "content": ""}, "finish_reason": None}, False),
        ({"delta": {"content": "x"}}, True),
        ({"delta": {"reasoning": "x"}}, True),
        ({"delta": {"tool_calls": [{"index": 0}]}}, True),
        ({"delta": {}, "finish_reason": "stop"}, False),
        ({"delta": {"content": None}, "text": "x"}, True),
        ({"delta": {"content": " \n\t"}}, False),
        ({"delta": {"content": " ", "reasoning": "\n"}}, False),
        ({"delta": {"content": " ", "reasoning": "x"}}, True),
        ({"delta": {"content": " x"}}, True),
        ({"text": " "}, False),
        ({"text": ["x"]}, True),
        ({"delta": "x"}, False),
        ({}, False),
    ],
)
def test_only_content_a_tool_call_or_reasoning_delivers(choice: Any, expected: Any) -> None:
    assert delivers(choice) is expected


@pytest.mark.parametrize("nothing", [{"choices": []}, {"choices": "x"}, {"choices": ["x"]}, {"choices": None}, {}])
def test_a_document_without_choices_has_none(nothing: Any) -> None:
    assert choices_in(nothing) == []


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"a": NaN}', b"[-Infinity]", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_json_is_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(raw)


def test_json_is_written_compactly_and_keeps_lone_surrogates() -> None:
    document = {"a": "\ud800å", "b": [1, 2.5, None]}
    assert json.loads(dump_json(document)) == document
    assert b" " not in dump_json(document)


def test_an_error_is_found_whatever_its_shape() -> None:
    assert error_in({"error": {"message": "x"}}) == {"message": "x"}
    assert error_in({"error": "x"}) == {"message": "x"}
    assert error_in({"error": None}) is None
    assert error_in({"choices": []}) is None
    assert error_in("error") is None


def test_a_completion_has_at_least_one_choice() -> None:
    assert is_completion({"choices": [{}]})
    assert not is_completion({"choices": []})
    assert not is_completion({"choices": {}})
    assert not is_completion([])


def test_the_model_that_answered_is_text_or_unknown() -> None:
    assert served_model({"model": "a/b"}) == "a/b"
    assert served_model({"model": 1}) is None
    assert served_model(None) is None


def test_an_error_event_is_one_whole_event() -> None:
    (event,) = EventParser().feed(error_event("broken\n\ntwice", kind="upstream_error", code="interrupted"))
    assert json.loads(event)["error"] == {
        "message": "broken\n\ntwice",
        "type": "upstream_error",
        "code": "interrupted",
        "param": None,
    }


def test_models_are_listed_as_openai_lists_them() -> None:
    (entry,) = models_document(["one/alpha:free"])["data"]
    assert entry == {"id": "one/alpha:free", "object": "model", "created": 0, "owned_by": "one"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "x"}, True),
        ({"content": [{"type": "text", "text": "x"}]}, True),
        ({"content": None, "tool_calls": [{"id": "1"}]}, True),
        ({"content": None, "refusal": "no"}, True),
        ({"content": "", "reasoning": "hm"}, False),
        ({"content": " \n", "tool_calls": []}, False),
        ({}, False),
        (None, False),
    ],
)
def test_text_a_tool_call_or_a_refusal_is_an_answer_and_reasoning_alone_is_none(message: Any, expected: Any) -> None:
    assert serves(message) is expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"finish_reason": "stop"}, None),
        ({"finish_reason": "stop", "native_finish_reason": "end_turn", "error": None}, None),
        ({"finish_reason": "error"}, {}),
        ({"finish_reason": "error", "error": {"code": 502}}, {"code": 502}),
        ({"finish_reason": "error", "error": "text"}, {"message": "text"}),
        ({"finish_reason": "stop", "native_finish_reason": "error"}, {}),
        ({"finish_reason": "stop", "provider_specific_fields": {"native_finish_reason": "error"}}, {}),
        ({"message": {"provider_specific_fields": {"error": {"message": "x"}}}}, {"message": "x"}),
        ({"delta": {"provider_specific_fields": {"native_finish_reason": "error"}}}, {}),
        ({"provider_specific_fields": {"native_finish_reason": "stop"}, "delta": None}, None),
    ],
)
def test_a_choice_that_failed_says_so_somewhere(choice: Any, expected: Any) -> None:
    assert error_of_choice(choice) == expected


NO_AMOUNTS: Any = [None, "", "NaN", True, [1], {"a": 1}, -1, float("nan")]
NO_DETAILS: Any = [None, [], "0.25", {}, *({"upstream_inference_cost": each} for each in NO_AMOUNTS)]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4, "cost": 0}, Usage(3, 4, 0.0)),
        ({"cost": 0.25}, Usage(None, None, 0.25)),
        ({"cost": "0.0001"}, Usage(None, None, 0.0001)),
        ({"cost": "free", "prompt_tokens": "3", "completion_tokens": True}, Usage(None, None, None)),
        ({"cost": True}, Usage(None, None, None)),
        *(({"cost": each}, Usage(None, None, None)) for each in (float("nan"), "NaN", "Infinity", float("inf"), [1])),
        ({"cost": 0, "cost_details": {"upstream_inference_cost": 0.25}}, Usage(None, None, 0.25)),
        ({"cost": "0", "cost_details": {"upstream_inference_cost": "0.25"}}, Usage(None, None, 0.25)),
        ({"cost": None, "cost_details": {"upstream_inference_cost": 0.25}}, Usage(None, None, 0.25)),
        ({"cost": 0.1, "cost_details": {"upstream_inference_cost": 0.25}}, Usage(None, None, 0.1)),
        ({"cost": 0, "cost_details": {"upstream_inference_cost": 0}}, Usage(None, None, 0.0)),
        (
            {
                "cost": 0,
                "cost_details": {"upstream_inference_cost": None, "upstream_inference_completions_cost": 0.5},
            },
            Usage(None, None, 0.5),
        ),
        *(({"cost": 0, "cost_details": details}, Usage(None, None, 0.0)) for details in NO_DETAILS),
        (None, None),
        ([], None),
    ],
)
def test_what_an_answer_used_is_read_as_far_as_it_is_sane(usage: Any, expected: Any) -> None:
    assert usage_in({"usage": usage}) == expected
    assert usage_in(usage) is None or usage is None


@pytest.mark.parametrize("data", [b"", b" ", b"\n", b"null", b" null\n"])
def test_an_event_that_says_nothing_is_nothing(data: bytes) -> None:
    assert read_event(data) is None


@pytest.mark.parametrize("data", [DONE, b" [DONE]", b"[DONE] \t", b"[DONE]\n"])
def test_the_end_mark_is_read_with_white_space_around_it(data: bytes) -> None:
    assert read_event(data) == DONE


def test_a_chunk_is_an_object() -> None:
    assert read_event(b' {"choices": []}') == {"choices": []}
    for data in (b"5", b"true", b'"[DONE]"', b'["DONE"]', b"[]", b"{", b"DONE", b"[DONE]x", b"\xff"):
        with pytest.raises(ValueError):
            read_event(data)
