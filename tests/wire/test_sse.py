import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.wire.sse import EventParser, EventTooLong, WholeLines

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


@given(st.lists(st.integers(0, len(STREAM) + 20)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_only_whole_lines_go_on_and_no_byte_is_lost(cuts: Any, newline: Any) -> None:
    raw = STREAM.replace(b"\n", newline)
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    lines = WholeLines()
    passed = b""
    for a, b in itertools.pairwise(edges):
        passed += lines.feed(raw[a:b])
        assert passed == b"" or passed[-1:] in (b"\n", b"\r")
    assert passed + lines.end() == raw
    assert lines.end() == b""


def test_half_a_line_waits_for_its_end() -> None:
    lines = WholeLines()
    assert lines.feed(b"data: a\n\ndata: ") == b"data: a\n\n"
    assert lines.feed(b"b") == b""
    assert lines.feed(b"\n\n") == b"data: b\n\n"
    assert lines.end() == b""
