import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.dispatch.opening import Opening
from rollout.dispatch.senders.seam import SendFault
from rollout.dispatch.substance import JsonShape, Wanted, judge_answer, wanted_by
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
        ('```json\n{"a": 1}\n```', OBJECT, FailureKind.INVALID_JSON),
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


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
    st.lists(st.integers(0, 200)),
    st.booleans(),
)
def test_a_document_in_pieces_is_whole_exactly_when_nothing_of_it_is_missing(
    value: Any, cuts: Any, in_a_list: bool
) -> None:
    text = json.dumps([value] if in_a_list else {"a": value}, ensure_ascii=False)
    edges = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    shape = JsonShape()
    for index, start in enumerate(edges):
        assert not shape.is_whole
        shape.feed(text[start : edges[index + 1]] if index + 1 < len(edges) else "")
        if index + 2 == len(edges):
            break
    assert shape.is_whole
    shape.feed(" \n")
    assert shape.is_whole
    shape.feed("x")
    assert not shape.is_whole


@pytest.mark.parametrize("text", ["", "Hej", "```json", '"text"', "}", "{}}", '{"a": "\\"}'])
def test_what_is_no_document_is_never_whole(text: str) -> None:
    shape = JsonShape()
    shape.feed(text)
    assert not shape.is_whole


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
    tail = Tail(opening, wanted, path=path, model="a/b:free", keep=keep)
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
    assert not tailed(HEJ, DONE, keep=False).ready


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
