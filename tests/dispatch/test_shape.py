"""What a body has to look like before anything is sent, whoever hands it in."""

import json
from typing import Any

import pytest

from rollout.dispatch.completions import Refused, asked
from rollout.dispatch.request import normalise
from rollout.dispatch.shape import check_shape, shown
from rollout.domain.errors import InvalidRequest
from tests.dispatch.bodies import HEJ, UNCHANGED, WITH_A_FILE, any_of


def refusal(body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check_shape(body)
    return caught.value


def of(content: Any, role: Any = "user", **fields: Any) -> Any:
    return {"messages": [HEJ, {"role": role, "content": content, **fields}]}


def brief(value: Any) -> str:
    return repr(value)[:60]


WRONG: Any = [
    ({}, "messages", "a list with at least one message"),
    *(
        ({"messages": each}, "messages", "a list with at least one message")
        for each in any_of([], {}, "Hej", 5, None, HEJ)
    ),
    *(
        ({"messages": [each]}, "messages[0]", "an object with role")
        for each in any_of("Hej", None, 5, [], ["user", "Hej"])
    ),
    *((of("Hej", role), "messages[1].role", "one of assistant") for role in ("boss", "", None, 5, ["user"], "User")),
    *(
        (of(each), "messages[1].content", "a text or a list of parts")
        for each in any_of(5, True, {}, {"type": "text"}, 0.5)
    ),
    *((of(None, role), "messages[1].content", "is missing") for role in ("user", "system", "developer", "tool")),
    *((of([HEJ["content"], each]), "messages[1].content[0]", "an object such as") for each in any_of("Hej", 5)),
    *(
        (of([{"type": "text", "text": "a"}, each]), "messages[1].content[1]", "an object")
        for each in any_of(5, None, [], "a")
    ),
    *(
        (of([{"type": each}]), "messages[1].content[0].type", "the name of a type")
        for each in any_of(None, "", 5, ["text"])
    ),
    (of([{"text": "Hej"}]), "messages[1].content[0].type", "the name of a type"),
    *(
        (of([{"type": "text", "text": each}]), "messages[1].content[0].text", "a text")
        for each in any_of(5, None, ["a"], {})
    ),
    (of([{"type": "text"}]), "messages[1].content[0].text", "has no text"),
    *(
        (of([{"type": "image_url", "image_url": each}]), "messages[1].content[0].image_url", "an object with a url")
        for each in any_of(None, {}, "", 5, [], {"url": ""}, {"url": None}, {"url": 5}, {"uri": "https://a.b"})
    ),
    (of([{"type": "image_url", "url": "https://a.b"}]), "messages[1].content[0].image_url", "an object with a url"),
    (of([{"type": "video_url"}]), "messages[1].content[0].video_url", "an object with a url"),
    (of([{"type": "file_url", "file_url": {}}]), "messages[1].content[0].file_url", "an object with a url"),
    (of([{"type": "file", "file": "a.pdf"}]), "messages[1].content[0].file", "an object"),
    (of([{"type": "input_audio"}]), "messages[1].content[0].input_audio", "an object"),
    (of([{"type": "refusal"}], "assistant"), "messages[1].content[0].refusal", "a text"),
    (of("Hej", name=5), "messages[1].name", "a text"),
    (of("Hej", "tool", tool_call_id=5), "messages[1].tool_call_id", "a text"),
    *(
        (of(None, "assistant", tool_calls=each), "messages[1].tool_calls", "a list")
        for each in any_of({}, "a", [5], [None])
    ),
    *(({"messages": [HEJ], "temperature": each}, "temperature", "a number") for each in any_of("0.5", True, [], {})),
    *(
        ({"messages": [HEJ], "max_tokens": each}, "max_tokens", "a whole number")
        for each in any_of(0, -1, "9", 1.5, True, [])
    ),
    *(({"messages": [HEJ], name: "9"}, name, "number") for name in ("n", "seed", "top_k", "top_p", "min_p", "top_a")),
    *(
        ({"messages": [HEJ], "stop": each}, "stop", "a text or a list of texts")
        for each in any_of(5, {}, [5], ["a", None])
    ),
    *(
        ({"messages": [HEJ], "tools": each}, "tools", "a list of tools")
        for each in any_of("look", {}, 5, ["look"], [None])
    ),
    *(({"messages": [HEJ], "tool_choice": each}, "tool_choice", "'auto'") for each in any_of(5, [], True)),
    *(
        ({"messages": [HEJ], "response_format": each}, "response_format", "an object such")
        for each in any_of("json", {}, [])
    ),
    *(({"messages": [HEJ], name: [1]}, name, "an object") for name in ("provider", "logit_bias", "stream_options")),
    *(({"messages": [HEJ], name: "yes"}, name, "true or false") for name in ("logprobs", "parallel_tool_calls")),
]


@pytest.mark.parametrize(("body", "field", "says"), WRONG, ids=brief)
def test_a_body_of_another_shape_is_refused_with_the_path_to_what_is_wrong(body: Any, field: str, says: str) -> None:
    error = refusal(body)
    assert error.field == field
    assert error.message.startswith(field)
    assert says in error.message


@pytest.mark.parametrize(("body", "field", "says"), WRONG, ids=brief)
def test_the_endpoint_refuses_with_the_same_words(body: Any, field: str, says: str) -> None:
    with pytest.raises(Refused) as caught:
        asked({}, body)
    assert caught.value.status == 400
    assert caught.value.document["error"]["param"] == field
    assert says in caught.value.document["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        *UNCHANGED.values(),
        *({"messages": [each]} for each in WITH_A_FILE.values()),
        of([]),
        of(None, "assistant"),
        of("Hej\ud800"),
        of(({"type": "text", "text": "a"},)),
        {"messages": (HEJ,), "stop": ("a",), "top_k": -1, "temperature": 0},
        dict.fromkeys(("stop", "tools", "temperature", "max_tokens", "provider"), None) | {"messages": [HEJ]},
    ],
    ids=brief,
)
def test_what_openrouter_may_understand_passes(body: Any) -> None:
    check_shape(body)


def test_the_functions_accept_what_they_always_did_and_check_what_comes_of_it() -> None:
    said = normalise({"messages": [{"role": "user", "content": {"type": "text", "text": "Hej"}}]}, {}).body
    assert said["messages"] == [HEJ]
    for wrong in ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, {"messages": [HEJ], "n": "2"}):
        with pytest.raises(InvalidRequest) as caught:
            normalise(wrong, {})
        assert str(caught.value) == str(refusal(wrong))


@pytest.mark.parametrize(
    "value",
    ["x" * 10_000_000, ["x"] * 1_000_000, {str(each): 1 for each in range(100_000)}, 9**9999],
    ids=["text", "list", "object", "number"],
)
def test_an_error_quotes_a_huge_value_in_a_few_words(value: Any) -> None:
    assert len(shown(value)) < 400
    assert len(refusal({"messages": [HEJ], "response_format": [value]}).message) < 600


def test_an_error_quotes_a_value_that_is_nested_too_deeply() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, {"a": deep}):
        assert len(shown(value)) < 100
    assert "messages[1].content[0]" in refusal(of([deep])).message


def test_a_body_with_very_many_parts_is_read_to_its_end() -> None:
    many = [{"type": "text", "text": "x"}] * 100_000
    check_shape(of(many))
    assert refusal(of([*many, {"type": "text"}])).field == "messages[1].content[100000].text"
    huge = {"messages": [{"role": "user", "content": "x" * 10 * 1024 * 1024}]}
    assert asked({}, json.loads(json.dumps(huge))).body == huge
