from typing import Any

import pytest

from rollout.dispatch.request import choose_models, normalise
from rollout.domain.errors import InvalidRequest

HEJ = {"role": "user", "content": "Hej"}
TOOL = {"type": "function", "function": {"name": "look"}}
OTHER = {"type": "function", "function": {"name": "find"}}
LOOK = {"type": "function", "function": {"name": "look"}}


def body(**params: Any) -> Any:
    return normalise({"messages": [HEJ], **params}, {}).body


def message(**fields: Any) -> Any:
    return body(messages=[fields])["messages"][0]


def test_a_plain_request_is_sent_as_it_is() -> None:
    assert body(temperature=0.5, seed=1, extra={"a": 1}) == {
        "messages": [HEJ],
        "temperature": 0.5,
        "seed": 1,
        "extra": {"a": 1},
    }


def test_one_mapping_and_keywords_mean_the_same() -> None:
    assert normalise({"messages": [HEJ], "toolChoice": "auto"}, {}) == normalise(
        None, {"messages": [HEJ], "toolChoice": "auto"}
    )
    assert normalise({"messages": [HEJ], "user": "a"}, {"user": "b"}).user == "b"


def test_camel_case_beats_snake_case() -> None:
    assert body(toolChoice="none", tool_choice="auto")["tool_choice"] == "none"
    assert body(maxTokens=5, max_tokens=9)["max_tokens"] == 5
    assert body(max_tokens=9)["max_tokens"] == 9
    assert "maxTokens" not in body(maxTokens=5)


def test_what_is_none_is_not_given_and_no_limit_is_invented() -> None:
    assert body(max_tokens=None, tool_choice=None, stop=None) == {"messages": [HEJ]}


def test_the_user_is_text_on_the_wire_and_whatever_it_is_for_the_decision() -> None:
    request = normalise({"messages": [HEJ]}, {"user": 42})
    assert request.body["user"] == "42"
    assert request.user == 42


def test_the_caller_keeps_its_own_objects() -> None:
    given = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "toolChoice": "auto"}
    before = repr(given)
    normalise(given, {})
    assert repr(given) == before


def test_a_single_text_part_becomes_plain_text() -> None:
    assert message(role="user", content=[{"type": "text", "text": "a"}])["content"] == "a"
    assert message(role="user", content={"type": "text", "text": "a"})["content"] == "a"
    assert message(role="user", content=["a"])["content"] == "a"


def test_a_single_text_part_that_says_more_than_its_text_stays_a_part() -> None:
    part = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    assert message(role="user", content=[part])["content"] == [part]


@pytest.mark.parametrize("kind", ["input_text", "input_image", "input_file", "input_video"])
def test_parts_of_the_newer_names_are_kept(kind: str) -> None:
    part = {"type": kind, kind: "a"}
    assert message(role="user", content=[part])["content"] == [part]


def test_several_parts_stay_parts() -> None:
    image = {"type": "image_url", "image_url": {"url": "x", "detail": "low"}}
    assert message(role="user", content=["a", image])["content"] == [{"type": "text", "text": "a"}, image]


def test_a_tools_result_is_joined_text() -> None:
    sent = message(role="tool", content=["a", {"ä": 1}], name="look", tool_call_id="c1")
    assert sent == {"role": "tool", "name": "look", "tool_call_id": "c1", "content": 'a\n{"ä":1}'}


def test_a_tool_turn_can_be_replayed() -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    assert message(role="assistant", content=None, tool_calls=calls) == {
        "role": "assistant",
        "tool_calls": calls,
        "content": None,
    }


def test_a_tool_call_id_means_nothing_outside_a_tools_result() -> None:
    assert "tool_call_id" not in message(role="user", content="a", tool_call_id="c1")


@pytest.mark.parametrize(
    ("choice", "tools", "expected"),
    [
        ("none", [TOOL], "none"),
        ("auto", [], "auto"),
        ("required", [TOOL], LOOK),
        ("required", [TOOL, OTHER], "required"),
        ({"name": "look"}, [TOOL], LOOK),
        (LOOK, [TOOL], LOOK),
    ],
)
def test_a_tool_choice_is_said_as_openai_says_it(choice: Any, tools: Any, expected: Any) -> None:
    assert body(toolChoice=choice, tools=tools)["tool_choice"] == expected


def test_a_response_format_beats_a_schema() -> None:
    schema = {"name": "n", "schema": {"type": "object"}}
    assert body(outputSchema={**schema, "strict": True})["response_format"] == {
        "type": "json_schema",
        "json_schema": {**schema, "strict": True},
    }
    assert body(output_schema={**schema, "strict": "yes"})["response_format"]["json_schema"] == schema
    assert body(outputSchema=schema, response_format={"type": "text"})["response_format"] == {"type": "text"}


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"messages": None}, "messages must be a list"),
        ({"messages": []}, "at least one message"),
        ({"messages": "Hej"}, "messages must be a list"),
        ({"messages": ["Hej"]}, r"messages\[0\] must be an object"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "role must be one of"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "role must be one of"),
        ({"messages": [{"role": "user"}]}, "content is missing"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "Unsupported message content part"),
        ({"messages": [{"role": "user", "content": [{"type": ["x"]}]}]}, "Unsupported message content part"),
        ({"messages": [{"role": "user", "content": 5}]}, "Unsupported message content part"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "has no text"),
        ({"messages": [{"role": "tool", "content": object()}]}, "must be text or JSON"),
        ({"toolChoice": "required"}, "no tools were configured"),
        ({"toolChoice": "required", "tools": [{}]}, "a tool needs a name"),
        ({"toolChoice": "sometimes"}, "tool_choice must be"),
        ({"toolChoice": {"a": 1}}, "tool_choice must be"),
        ({"tools": "look"}, "tools must be a list"),
        ({"responseFormat": {"type": "json_schema"}}, "requires a defined schema object"),
        ({"responseFormat": "json"}, "must be an object"),
        ({"outputSchema": {"name": "n"}}, "requires both name and schema"),
        ({"max_tokens": 0}, "at least 1"),
        ({"max_tokens": True}, "at least 1"),
        ({"maxTokens": "many"}, "at least 1"),
        ({"stream": "yes"}, "stream must be true or false"),
        ({"model": 5}, "model must be a model id"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_what_to_do(params: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        body(**params)


@pytest.mark.parametrize("params", ["Hej", [HEJ], 5])
def test_parameters_are_a_mapping(params: Any) -> None:
    with pytest.raises(InvalidRequest, match="one mapping"):
        normalise(params, {})


def test_parameter_names_are_text() -> None:
    with pytest.raises(InvalidRequest, match="parameter names"):
        normalise({1: 2}, {})  # type: ignore[dict-item]  # callers are not type-checked


def test_a_model_of_the_cascade_is_tried_first_and_any_other_is_replaced() -> None:
    cascade = ("a", "b", "c")
    assert choose_models(None, cascade) == (("a", "b", "c"), False)
    assert choose_models("a", cascade) == (("a", "b", "c"), False)
    assert choose_models("b", cascade) == (("b", "a", "c"), False)
    assert choose_models("gpt-4o", cascade) == (("a", "b", "c"), True)


def test_without_a_cascade_the_model_asked_for_is_tried_alone_and_none_at_all_is_a_clear_error() -> None:
    assert choose_models("a", ()) == (("a",), False)
    with pytest.raises(InvalidRequest, match="rollout cascade set") as caught:
        choose_models(None, ())
    assert caught.value.field == "cascade"


def test_what_stands_in_extra_body_is_as_good_as_said_directly() -> None:
    request = normalise({"messages": [HEJ], "extra_body": {"seed": 7, "model": "a/b:free", "stream": True}}, {})
    assert (request.model, request.stream) == ("a/b:free", True)
    assert request.body.keys() == {"messages", "seed", "stream"}


@pytest.mark.parametrize("extra", ["seed", [1], {"extra_body": {}}])
def test_an_extra_body_that_is_none_is_refused(extra: Any) -> None:
    with pytest.raises(InvalidRequest, match="extra_body"):
        normalise({"messages": [HEJ], "extra_body": extra}, {})
