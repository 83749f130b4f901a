import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.wire.chat import (
    delivers,
    dump_json,
    error_event,
    error_in,
    is_completion,
    models_document,
    parse_json,
    served_model,
)
from rollout.wire.sse import EventParser, EventTooLong, is_keep_alive

STREAM = 'event: x\n: a comment\ndata: {"a": "å👋"}\n\ndata: one\ndata: two\nid: 4\n\n\ndata\n\ndata:[DONE]'.encode()
EVENTS = ['{"a": "å👋"}'.encode(), b"one\ntwo", b"", b"[DONE]"]


def parsed(*pieces: Any, **limits: Any) -> Any:
    parser = EventParser(**limits)
    return [event for piece in pieces for event in parser.feed(piece)] + parser.end()


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_events_are_read_with_every_kind_of_newline(newline: Any) -> None:
    assert parsed(STREAM.replace(b"\n", newline)) == EVENTS


@given(st.lists(st.integers(0, len(STREAM) + 20)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_the_same_wherever_the_packets_are_split(cuts: Any, newline: Any) -> None:
    raw = STREAM.replace(b"\n", newline)
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    assert parsed(*(raw[a:b] for a, b in itertools.pairwise(edges))) == EVENTS


def test_an_endless_line_and_an_endless_event_are_refused() -> None:
    with pytest.raises(EventTooLong):
        parsed(b"data: ", *[b"x" * 10] * 11, max_bytes=100)
    with pytest.raises(EventTooLong):
        parsed(*[b"data: xxxxxxxxxx\n"] * 11, max_bytes=100)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b": OPENROUTER PROCESSING\n\n", True),
        (b":a\r\n\r\n:b\n\n", True),
        (b"\n", True),
        (b"", True),
        (b"data: x\n\n", False),
        (b": a\n\ndata: x\n\n", False),
        (b'ent": "x"}\n\n', False),
    ],
)
def test_comments_and_blank_lines_are_no_progress(data: Any, expected: Any) -> None:
    assert is_keep_alive(data) is expected


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ({"choices": [{"delta": {"role": "assistant"}}]}, False),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}, False),
        ({"choices": [{"delta": {"content": "x"}}]}, True),
        ({"choices": [{"delta": {"reasoning": "x"}}]}, True),
        ({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}, True),
        ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, True),
        ({"choices": []}, False),
        ({"choices": "x"}, False),
        ({"choices": ["x"]}, False),
        ([], False),
        (None, False),
    ],
)
def test_only_content_a_tool_call_reasoning_or_an_end_delivers(chunk: Any, expected: Any) -> None:
    assert delivers(chunk) is expected


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
    (event,) = parsed(error_event("broken\n\ntwice", kind="upstream_error", code="interrupted"))
    assert json.loads(event)["error"] == {
        "message": "broken\n\ntwice",
        "type": "upstream_error",
        "code": "interrupted",
        "param": None,
    }


def test_models_are_listed_as_openai_lists_them() -> None:
    (entry,) = models_document(["one/alpha:free"])["data"]
    assert entry == {"id": "one/alpha:free", "object": "model", "created": 0, "owned_by": "one"}
