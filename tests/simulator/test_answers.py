"""The upstream as it behaves when nothing goes wrong."""

import json
from typing import Any

import httpx
import openai
import pytest

from rollout.simulator.schemas import SchemaError, smallest

MODEL = "qwen/qwen3-coder:free"
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 12},
        "stars": {"type": "integer", "minimum": 1},
        "kind": {"enum": ["book", "film"]},
        "tags": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/tag"}},
        "note": {"type": "string"},
    },
    "required": ["title", "stars", "kind", "tags"],
    "$defs": {"tag": {"type": ["null", "boolean"]}},
}
TOOL = {"type": "function", "function": {"name": "rate", "parameters": SCHEMA}}


def sdk(upstream: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=upstream.base_url, api_key="sk-or-test", max_retries=0)


def test_the_official_sdk_gets_a_plain_answer(upstream: Any) -> None:
    with sdk(upstream) as client:
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hvad er klokken?"}], user="anna"
        )
    said = answer.choices[0].message.content or ""
    assert "simulated" in said
    assert MODEL in said
    assert said.endswith("Hvad er klokken?")
    assert answer.id.startswith("gen-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.model_dump()["cost"] == 0
    assert upstream.entries()[-1]["user"] == "anna"


def test_the_official_sdk_gets_the_same_text_as_a_stream(upstream: Any) -> None:
    with sdk(upstream) as client:
        messages: Any = [{"role": "user", "content": "Hej ☀ 你好 🦊"}]
        plain = client.chat.completions.create(model=MODEL, messages=messages)
        with client.chat.completions.create(model=MODEL, messages=messages, stream=True) as stream:
            chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == plain.choices[0].message.content
    assert sum(map(bool, pieces)) > 1
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_dump()["cost"] == 0
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_a_stream_begins_with_a_keep_alive_comment_and_a_role_and_ends_with_done(upstream: Any) -> None:
    answer = upstream.ask(stream=True)
    events = answer.text.split("\n\n")
    assert answer.headers["content-type"] == "text/event-stream"
    assert events[0] == ": OPENROUTER PROCESSING"
    first = json.loads(events[1].removeprefix("data: "))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["id"] == answer.headers["x-generation-id"]
    assert events[-2:] == ["data: [DONE]", ""]


def test_the_last_user_message_is_clipped(upstream: Any) -> None:
    messages = [{"role": "user", "content": "old"}, {"role": "user", "content": [{"type": "text", "text": "z" * 999}]}]
    said = upstream.ask(messages=messages).json()["choices"][0]["message"]["content"]
    assert said.endswith("z" * 200 + "...")
    assert "z" * 201 not in said


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "rate"}}])
def test_a_forced_tool_is_called_with_arguments_that_fit(upstream: Any, choice: object) -> None:
    choices = upstream.ask(tools=[TOOL], tool_choice=choice).json()["choices"]
    call = choices[0]["message"]["tool_calls"][0]
    assert choices[0]["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "rate"
    assert json.loads(call["function"]["arguments"]) == smallest(SCHEMA)


def test_a_forced_tool_is_streamed_in_pieces_that_join(upstream: Any) -> None:
    asked: Any = {"messages": [{"role": "user", "content": "rate it"}], "tools": [TOOL], "tool_choice": "required"}
    with sdk(upstream) as client, client.chat.completions.create(model=MODEL, stream=True, **asked) as stream:
        choices = [choice for chunk in stream for choice in chunk.choices]
    calls = [call.function for choice in choices for call in choice.delta.tool_calls or ()]
    assert calls[0] is not None
    assert calls[0].name == "rate"
    assert json.loads("".join(call.arguments or "" for call in calls if call)) == smallest(SCHEMA)
    assert choices[-1].finish_reason == "tool_calls"


def test_offered_tools_need_not_be_called(upstream: Any) -> None:
    assert upstream.ask(tools=[TOOL]).json()["choices"][0]["finish_reason"] == "stop"


def test_a_model_without_tools_refuses_them(upstream: Any) -> None:
    answer = upstream.ask(model="northwind/breeze-8b:free", tools=[TOOL])
    assert answer.status_code == 404
    assert "tool use" in answer.json()["error"]["message"]


def test_a_schema_is_answered_with_the_smallest_value_that_fits(upstream: Any) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "rating", "schema": SCHEMA}}
    said = upstream.ask(response_format=wanted).json()["choices"][0]["message"]["content"]
    assert json.loads(said) == {
        "title": "simulated...",
        "stars": 1,
        "kind": "book",
        "tags": [False, False],
    }
    plain = upstream.ask(response_format={"type": "json_object"}).json()["choices"][0]["message"]["content"]
    assert json.loads(plain)["you_said"] == "Hej!"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 5}, 5),
        ({"default": "d"}, "d"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 2}, {}]}, 3),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "number", "exclusiveMaximum": 0}, -1),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "maxLength": 3}, "sim"),
        ({"type": "null"}, None),
        (True, {}),
        ({"allOf": [{"properties": {"a": {"type": "boolean"}}, "required": ["a"]}, {"type": "object"}]}, {"a": False}),
        ({"allOf": [{"type": "string"}, {"minLength": 2}]}, "simulated"),
    ],
)
def test_the_smallest_value_of(schema: object, value: object) -> None:
    assert smallest(schema) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/none"},
        {"$ref": "https://example.com/schema"},
        {"type": "array", "minItems": 5_000},
        "text",
    ],
)
def test_a_schema_that_fits_nothing_is_refused(upstream: Any, schema: object) -> None:
    with pytest.raises(SchemaError):
        smallest(schema)
    tool = {"type": "function", "function": {"name": "rate", "parameters": schema}}
    assert upstream.ask(tools=[tool], tool_choice="required").status_code == 400


def test_models_are_listed_with_prices_as_texts(upstream: Any) -> None:
    listed = {each["id"]: each for each in httpx.get(f"{upstream.base_url}/models").json()["data"]}
    free = [each for each in listed.values() if each["id"].endswith(":free")]
    assert MODEL in listed
    assert "z-ai/glm-4.5-air:free" not in listed
    assert len(free) == 9
    assert all(set(each["pricing"].values()) == {"0"} for each in free)
    assert sum(each["expiration_date"] is not None for each in free) == 1
    assert {"tools" in each["supported_parameters"] for each in free} == {True, False}
    assert listed["openai/gpt-5"]["pricing"]["completion"] == "0.00001"
    assert MODEL.removesuffix(":free") in listed


def test_one_model_is_found_by_its_id_and_404_when_gone(upstream: Any) -> None:
    assert httpx.get(f"{upstream.base_url}/model/{MODEL}").json()["data"]["id"] == MODEL
    gone = httpx.get(f"{upstream.base_url}/model/z-ai/glm-4.5-air:free")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, 404)


def test_the_key_endpoint_needs_a_key_and_costs_no_quota(upstream: Any) -> None:
    before = upstream.client.get(f"{upstream.base_url}/key").json()["data"]
    upstream.ask()
    after = upstream.client.get(f"{upstream.base_url}/key").json()["data"]
    used = "free_model_daily_requests"
    assert after[used]["used"] == before[used]["used"] + 1
    assert after[used]["limit"] is None
    assert after["is_free_tier"] is True
    assert after["limit_remaining"] is None
    assert httpx.get(f"{upstream.base_url}/key").status_code == 401


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/nothing", "/simulator/nothing"])
def test_an_unknown_route_is_a_json_404(upstream: Any, path: str) -> None:
    answer = httpx.get(upstream.base_url.removesuffix("/api/v1") + path)
    assert answer.status_code == 404
    assert path in answer.json()["error"]["message"]
