import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.dispatch.assembling import MAX_CHARACTERS
from rollout.dispatch.opening import Opening
from rollout.dispatch.senders.seam import SendFault
from rollout.dispatch.substance import Wanted, judge_answer, wanted_by
from rollout.dispatch.tail import Tail
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.wire.chat import Usage

SCHEMA = {"type": "object", "required": ["name", "age"], "properties": {}}
OBJECT = {"response_format": {"type": "json_object"}}
BY_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}


def judged(message: Any, body: Any = None, **choice: Any) -> Any:
    document = {"choices": [{"message": message, "finish_reason": "stop", **choice}]}
    fault = judge_answer(document, wanted_by(body or {}))
    return fault and fault.kind


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, Wanted()),
        ({"max_tokens": 5}, Wanted(limited=True)),
        ({"max_completion_tokens": 5, "response_format": {"type": "text"}}, Wanted(limited=True)),
        (OBJECT, Wanted(json=True, an_object=True)),
        (BY_SCHEMA, Wanted(json=True, an_object=True, required=("name", "age"))),
        ({"response_format": {"type": "json_schema"}}, Wanted(json=True)),
        ({"response_format": "json"}, Wanted()),
    ],
)
def test_what_is_wanted_is_read_from_the_request(body: Any, expected: Any) -> None:
    assert wanted_by(body) == expected


@pytest.mark.parametrize(
    "message", [{"content": ""}, {"content": None}, {"content": " \n"}, {}, None, {"reasoning": "hm"}]
)
def test_an_answer_that_says_nothing_is_empty(message: Any) -> None:
    assert judged(message) is FailureKind.EMPTY


def test_a_tool_call_or_a_refusal_is_no_empty_answer_and_needs_to_be_no_json() -> None:
    messages: Any = [{"content": None, "tool_calls": [{}]}, {"content": "", "refusal": "no"}]
    for message in messages:
        assert judged(message) is None
        assert judged(message, BY_SCHEMA) is None


def test_a_choice_that_its_upstream_gave_up_is_a_failure_also_with_text_in_it() -> None:
    assert judged({"content": "He"}, finish_reason="error") is FailureKind.ERROR_FINISH
    moved = {"native_finish_reason": "error"}
    assert judged({"content": ""}, provider_specific_fields=moved) is FailureKind.ERROR_FINISH


@pytest.mark.parametrize(
    ("content", "body", "kind"),
    [
        ('{"a": 1}', OBJECT, None),
        ("[1]", OBJECT, FailureKind.INVALID_JSON),
        ('{"a": ', OBJECT, FailureKind.INVALID_JSON),
        ('{"a": NaN}', OBJECT, FailureKind.INVALID_JSON),
        ('{"name": 1, "age": 2, "more": 3}', BY_SCHEMA, None),
        ('{"name": 1}', BY_SCHEMA, FailureKind.INVALID_JSON),
        ("Hej", BY_SCHEMA, FailureKind.INVALID_JSON),
        ("Hej", {}, None),
        ("[" * 100_000, OBJECT, FailureKind.INVALID_JSON),
        ("\ud800", OBJECT, FailureKind.INVALID_JSON),
    ],
)
def test_json_that_was_asked_for_has_to_come(content: str, body: Any, kind: Any) -> None:
    assert judged({"content": content}, body) is kind


def test_what_the_callers_own_limit_cut_off_is_no_failure() -> None:
    for message in ({"content": '{"a'}, {"content": "", "reasoning": "hm"}):
        assert judged(message, {**OBJECT, "max_tokens": 2}, finish_reason="length") is None
        assert judged(message, OBJECT, finish_reason="length") is not None


def event(document: Any) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def delta(finish: Any = None, **fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]})


DONE = b"data: [DONE]\n\n"
HEJ = delta(content="Hej")


def tailed(*pieces: bytes, body: Any = None, path: Path = Path.OPENROUTER, keep: bool = True) -> Any:
    wanted = wanted_by(body or {})
    opening = Opening(path, {}, limited=wanted.limited)
    left = list(pieces)
    while not opening.committed:
        assert opening.feed(left.pop(0), wall=0.0) is None
    tail = Tail(opening, wanted, path=path, model="a/b:free", keep=keep, says_cost=True)
    for piece in left:
        tail.feed(piece)
    return tail


def failed(tail: Any) -> Any:
    return tail.fault and tail.fault.kind


def test_a_stream_that_comes_to_its_end_is_fine_and_says_what_it_used() -> None:
    usage = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0}})
    tail = tailed(HEJ, delta(content=" du"), delta("stop"), usage, DONE, b"")
    assert (failed(tail), tail.done, tail.usage) == (None, True, Usage(1, 2, 0.0))
    assert len(tail.ready) == 4
    looked_at = tailed(HEJ, DONE, keep=False)
    assert (list(looked_at.ready), list(looked_at.verdicts)) == ([], [True])


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([HEJ, b""], FailureKind.TRUNCATED),
        ([HEJ, delta("stop"), b""], FailureKind.TRUNCATED),
        ([HEJ, delta("error")], FailureKind.ERROR_FINISH),
        ([HEJ, event({"error": {"code": 502, "message": "gone"}})], FailureKind.INTERRUPTED),
        ([HEJ, b"data: {not json}\n\n"], FailureKind.INTERRUPTED),
        ([HEJ, b"data: [1]\n\n"], FailureKind.INTERRUPTED),
        ([HEJ, b"data: \xff\xfe\n\n"], FailureKind.INTERRUPTED),
        ([delta(reasoning="hm"), delta("stop"), DONE], FailureKind.EMPTY),
        ([HEJ, *[b"data: " + b"x" * 1_000_000] * 17], FailureKind.INTERRUPTED),
    ],
)
def test_a_stream_that_breaks_after_its_first_token_is_a_fault(pieces: Any, kind: FailureKind) -> None:
    assert failed(tailed(*pieces)) is kind


def test_json_in_a_stream_has_to_be_whole_at_its_end() -> None:
    start, end = delta(content='{"a": "'), delta(content='}"}')
    assert failed(tailed(start, end, DONE, body=OBJECT)) is None
    assert failed(tailed(start, delta("stop"), DONE, body=OBJECT)) is FailureKind.INVALID_JSON
    assert failed(tailed(start, delta("length"), DONE, body={**OBJECT, "max_tokens": 3})) is None
    assert failed(tailed(HEJ, delta(tool_calls=[{}]), DONE, body=OBJECT)) is None


def test_an_end_that_the_gateway_made_up_is_none() -> None:
    estimated = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    assert failed(tailed(HEJ, delta("stop"), estimated, DONE, path=Path.LITELLM)) is FailureKind.TRUNCATED
    assert failed(tailed(HEJ, delta("stop"), estimated, DONE)) is None


BLANK = delta(content=" \n")


def test_white_space_is_held_back_and_comes_in_its_place_once_something_was_said() -> None:
    opening = Opening(Path.OPENROUTER, {})
    for piece in (BLANK, BLANK):
        assert opening.feed(piece, wall=0.0) is None
        assert not opening.committed
    assert opening.feed(HEJ, wall=0.0) is None
    assert opening.committed
    assert bytes(opening.held) == BLANK + BLANK + HEJ
    said = [chunk["choices"][0]["delta"]["content"] for chunk in tailed(BLANK, HEJ, BLANK, DONE).ready]
    assert said == [" \n", "Hej", " \n"]


def test_a_stream_of_white_space_alone_is_empty_while_another_path_can_still_answer() -> None:
    opening = Opening(Path.OPENROUTER, {})
    assert opening.feed(BLANK, wall=0.0) is None
    fault = opening.feed(DONE, wall=0.0)
    assert fault is not None
    assert fault.kind is FailureKind.EMPTY


def test_only_tokens_move_a_stream() -> None:
    silent = (b": busy\n\n", delta(role="assistant", content=""), BLANK)
    for piece, moves in (*((each, False) for each in silent), (HEJ, True)):
        tail = tailed(HEJ)
        tail.moved = False
        tail.feed(piece)
        assert tail.moved is moves


def test_a_cut_is_told_by_its_kind() -> None:
    for kind, expected in (
        (FailureKind.TIMEOUT, FailureKind.TIMEOUT),
        (FailureKind.UNREACHABLE, FailureKind.INTERRUPTED),
    ):
        tail = tailed(HEJ)
        tail.cut(SendFault(kind, "x"))
        assert failed(tail) is expected
        assert tail.fault.cut is (expected is FailureKind.INTERRUPTED)


INVALID = FailureKind.INVALID_JSON


def by_schema(schema: Any) -> Any:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def both_ways(text: str, body: Any, sizes: Any = (1, 3, 10_000)) -> set[Any]:
    """Return the verdicts on a text as a plain answer and as streams in pieces of these sizes."""
    verdicts = {judged({"content": text}, body)}
    for size in sizes:
        pieces = [delta(content=text[at : at + size]) for at in range(0, len(text), size)]
        verdicts.add(failed(tailed(*pieces, delta("stop"), DONE, body=body)))
    return verdicts


def fenced(inside: str, mark: str = "```", word: str = "json", newline: str = "\n") -> str:
    return f"{mark}{word}{newline}{inside}{newline}{mark}"


ANSWER = '{"a": "``` ~~~ \\" } 👋"}'


@pytest.mark.parametrize(
    "text",
    [
        *(
            fenced(ANSWER, mark, word)
            for mark in ("```", "~~~", "````", "~~~~~")
            for word in ("", "json", "JSON", "js+x")
        ),
        fenced(ANSWER, newline="\r\n"),
        fenced(ANSWER, newline="\r"),
        f"\n \r\n{fenced(ANSWER)}\n\n ",
        f"``` json \n\n  {ANSWER}\n\n``` \t",
        f"```json\n{ANSWER}```",
        f"```json {ANSWER}```",
        f"~~~ {ANSWER} ~~~",
        f"```{ANSWER}\n```",
        f"```JSON{ANSWER}```",
        '```{"a":\n1}```',
    ],
)
def test_one_markdown_fence_around_the_whole_json_is_accepted(text: str) -> None:
    assert both_ways(text, OBJECT) == {None}


@pytest.mark.parametrize(
    "text",
    [
        f"Here it is:\n{fenced(ANSWER)}",
        f"{fenced(ANSWER)}\nDone.",
        f"{fenced(ANSWER)}\n{fenced(ANSWER)}",
        fenced(fenced(ANSWER)),
        fenced(ANSWER[:-1]),
        fenced(""),
        fenced("Hej"),
        f"```json\n{ANSWER}",
        f"{ANSWER}\n```",
        f"```json\n{ANSWER}\n~~~",
        f"````json\n{ANSWER}\n```",
        f"``json\n{ANSWER}\n``",
        f"```the answer is\n{ANSWER}\n```",
        f"```answer: {ANSWER}```",
        f"```json {ANSWER}``` ```json {ANSWER}```",
        f"```{ANSWER}``",
        "```json```",
        "``` ```",
        "```",
        "``````",
        "```json",
        fenced("[1]"),
    ],
)
def test_what_is_not_one_fence_around_an_object_is_no_json_object(text: str) -> None:
    assert both_ways(text, OBJECT) == {INVALID}


def test_what_a_schema_requires_has_to_stand_in_the_fence_too() -> None:
    assert both_ways(fenced('{"name": 1, "age": 2}'), BY_SCHEMA) == {None}
    assert both_ways(fenced('{"name": 1}'), BY_SCHEMA) == {INVALID}


def test_an_answer_in_a_fence_is_delivered_as_it_came() -> None:
    text = fenced(ANSWER)
    tail = tailed(delta(content=text[:9]), delta(content=text[9:]), DONE, body=OBJECT)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in tail.ready) == text


ROOTS: Any = [{"type": "string"}, {"type": ["string", "null"]}, {"enum": ["a", 1, None]}, {"$ref": "#/$defs/x"}, {}]
VALUES = [
    '"Hej"',
    '"a\\"b\\\\"',
    '"\\ud83d\\udc4b"',
    '"👋"',
    "5",
    "-1.5e-3",
    "true",
    "false",
    "null",
    "[]",
    "[1, [2]]",
    "{}",
]
BROKEN = [
    '"Hej',
    "Hej",
    "tru",
    "nulll",
    "1.",
    "-",
    "1 2",
    "[1",
    "[1]]",
    "[1,]",
    "{'a': 1}",
    "{}{}",
    '"a" "b"',
    "NaN",
    "01",
]


@pytest.mark.parametrize("root", ROOTS)
def test_json_of_any_root_is_judged_alike_plain_and_in_a_stream(root: Any) -> None:
    for text in VALUES:
        assert both_ways(f" {text}\n\n", by_schema(root)) == {None}
        assert both_ways(fenced(text), by_schema(root)) == {None}
    for text in BROKEN:
        assert both_ways(text, by_schema(root)) == {INVALID}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
    st.integers(1, 30),
    st.booleans(),
)
def test_a_document_in_pieces_is_whole_exactly_if_nothing_of_it_is_missing(value: Any, size: int, raw: bool) -> None:
    text = json.dumps(value, ensure_ascii=not raw)
    assert both_ways(text, by_schema({}), [size]) == {None}
    if isinstance(value, str | list | dict):
        assert both_ways(text[:-1], by_schema({}), [size]) == {INVALID}


def test_a_character_whose_halves_come_apart_is_whole_and_half_of_one_is_no_json() -> None:
    halves = [delta(content=each) for each in ('{"a": "', "\ud83d", "\udc4b", '"}')]
    assert failed(tailed(*halves, DONE, body=OBJECT)) is None
    del halves[1]
    assert failed(tailed(*halves, DONE, body=OBJECT)) is INVALID


@pytest.mark.parametrize("text", ["[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a": NaN}', '{"name": 1}'])
def test_depth_constants_and_missing_keys_are_judged_alike(text: str) -> None:
    assert both_ways(text, BY_SCHEMA, [5_000]) == {INVALID}


def test_each_choice_of_a_stream_is_judged_as_in_a_plain_answer() -> None:
    second = event({"choices": [{"index": 1, "delta": {"content": "Hej"}, "finish_reason": None}]})
    whole = delta(content="{}")
    assert failed(tailed(whole, second, DONE, body=OBJECT)) is INVALID
    limited = {**OBJECT, "max_tokens": 3}
    # through the gateway nobody learns why the second choice ended
    assert failed(tailed(whole, second, delta("stop"), DONE, body=limited, path=Path.LITELLM)) is None


def test_an_endless_answer_in_json_ends_in_an_error_and_not_in_memory() -> None:
    piece = delta(content="1" * 1_000_000)
    tail = tailed(delta(content="["), *[piece] * (MAX_CHARACTERS // 1_000_000 + 1), body=OBJECT)
    assert failed(tail) is FailureKind.INTERRUPTED


def a_tool(name: str = "f", **schema: Any) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **schema}}}


WITH_TOOLS: Any = {"tools": [a_tool("needs", required=["a"]), a_tool("takes", properties={}), {"type": "custom"}]}


def calls_both_ways(name: str, arguments: Any, body: Any, **choice: Any) -> set[Any]:
    """Return the verdicts on a tool call as a plain answer and in a stream, in one piece and in many."""
    whole = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    verdicts = {judged({"content": None, "tool_calls": [whole]}, body, **choice)}
    first = {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": ""}}
    letters = [{"index": 0, "function": {"arguments": each}} for each in arguments or ""]
    finish = delta(choice.get("finish_reason", "tool_calls"))
    for pieces in ([{"index": 0, **whole}], [first, *letters]):
        verdicts.add(failed(tailed(*(delta(tool_calls=[each]) for each in pieces), finish, DONE, body=body)))
    return verdicts


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("needs", '{"a": 1}', None),
        ("needs", ' {"a": "\\"}"}\n', None),
        ("needs", '{"a": ', INVALID),
        ("needs", "a = 1", INVALID),
        ("needs", fenced("{}"), INVALID),
        ("needs", '{"a": 1}{"a": 1}', INVALID),
        ("needs", "", INVALID),
        ("needs", " ", INVALID),
        ("takes", "", None),
        ("takes", "{}", None),
        ("takes", "{", INVALID),
        ("unknown", "", None),
        ("unknown", "{", INVALID),
    ],
)
def test_a_tool_is_called_with_json_and_with_what_it_requires(name: str, arguments: str, kind: Any) -> None:
    assert calls_both_ways(name, arguments, WITH_TOOLS) == {kind}
    assert calls_both_ways(name, arguments, {**WITH_TOOLS, **OBJECT}) == {kind}
    legacy = {"functions": [each["function"] for each in WITH_TOOLS["tools"][:2]]}
    call = {"name": name, "arguments": arguments}
    assert judged({"function_call": call}, legacy) is kind
    assert failed(tailed(delta(function_call=call), DONE, body=legacy)) is kind


def test_arguments_that_the_callers_own_limit_cut_off_are_no_failure() -> None:
    assert calls_both_ways("needs", '{"a', {**WITH_TOOLS, "max_tokens": 3}, finish_reason="length") == {None}
    assert calls_both_ways("needs", '{"a', WITH_TOOLS, finish_reason="length") == {INVALID}


def test_arguments_are_looked_at_only_if_tools_were_offered() -> None:
    assert calls_both_ways("needs", "{", {}) == {None}
    assert calls_both_ways("needs", "{", {"tools": []}) == {None}


def test_arguments_that_are_an_object_and_calls_without_a_function_pass() -> None:
    for call in ({"function": {"name": "needs", "arguments": {"a": 1}}}, {"type": "custom", "custom": {"input": "{"}}):
        assert judged({"tool_calls": [call]}, WITH_TOOLS) is None
        assert failed(tailed(delta(tool_calls=[call]), DONE, body=WITH_TOOLS)) is None


def pieces_of(*calls: Any) -> list[bytes]:
    return [delta(tool_calls=[{**more, "function": function}]) for more, function in calls]


@pytest.mark.parametrize("indexes", [(0, 1), (0, 0), (None, None)])
def test_two_calls_in_a_stream_are_told_apart_by_their_index_or_by_their_id(indexes: Any) -> None:
    one, two = ({"index": index, "id": f"call_{at}"} for at, index in enumerate(indexes))
    whole = [(each, {"name": "needs", "arguments": '{"a": 1}'}) for each in (one, two)]
    assert failed(tailed(*pieces_of(*whole), DONE, body=WITH_TOOLS)) is None
    cut = (two, {"name": "needs", "arguments": '{"a"'})
    assert failed(tailed(*pieces_of(whole[0], cut), DONE, body=WITH_TOOLS)) is INVALID


def test_calls_in_a_stream_may_take_turns_and_repeat_their_id() -> None:
    calls = [({"index": at % 2, "id": f"call_{at % 2}"}, {"arguments": each}) for at, each in enumerate("{{}}")]
    assert failed(tailed(*pieces_of(*calls), DONE, body=WITH_TOOLS)) is None


@pytest.mark.parametrize("strange", [{"tool_calls": "x"}, {"tool_calls": [1]}, {"function_call": 5}])
def test_a_strange_tool_call_is_no_reason_to_break(strange: Any) -> None:
    assert judged({"content": "Hej", **strange}, WITH_TOOLS) is None
    assert failed(tailed(delta(content="Hej", **strange), DONE, body=WITH_TOOLS)) is None


def test_which_tools_need_arguments_is_read_from_the_request() -> None:
    assert wanted_by(WITH_TOOLS).tools == frozenset({"needs"})
    assert wanted_by({"tools": [1, {"function": {"name": 5}}, {}]}).tools == frozenset()
    assert wanted_by({"tools": "x"}).tools == frozenset()
    assert wanted_by({}).tools is None
