import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.wire.sse import BOM, EventParser, EventTooLong, WholeEvents, blocks_of

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


@pytest.mark.parametrize("line", [b"data:\n", b"data\n", b"data: \n"])
def test_lines_with_nothing_in_them_are_no_way_around_the_limit(line: bytes) -> None:
    with pytest.raises(EventTooLong):
        parsed(*[line] * 200, max_bytes=10_000)
    assert parsed(*[line] * 3, b"\n", max_bytes=10_000) == [b"\n\n"]


@given(st.lists(st.integers(0, len(STREAM) + 20)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_only_whole_events_go_on_and_no_byte_is_lost(cuts: Any, newline: Any) -> None:
    raw = STREAM.replace(b"\n", newline)
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    events = WholeEvents()
    passed = b""
    for a, b in itertools.pairwise(edges):
        passed += events.feed(raw[a:b])
        plain = passed.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        assert plain == b"" or plain.endswith(b"\n\n")
    assert passed + events.end() == raw
    assert events.end() == b""


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_half_an_event_waits_for_its_end(newline: bytes) -> None:
    events = WholeEvents()
    one, two = (b"data: %b%b%b" % (each, newline, newline) for each in (b"a", b"b"))
    assert events.feed(one + b"data: ") == one
    assert events.feed(b"b") == b""
    assert events.feed(newline) == b""
    assert events.feed(newline) == two
    assert events.end() == b""


def test_what_is_longer_than_any_event_waits_for_nothing() -> None:
    events = WholeEvents(max_bytes=100)
    assert events.feed(b": x\n" * 25) == b""
    assert events.feed(b": x\n") == b": x\n" * 26


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_byte_order_mark_at_the_head_means_nothing(newline: bytes, size: int) -> None:
    raw = BOM + STREAM.replace(b"\n", newline)
    assert parsed(*(raw[at : at + size] for at in range(0, len(raw), size))) == EVENTS


@pytest.mark.parametrize(
    ("raw", "odd"),
    [
        (b"data: a\n\n", False),
        (b": c\n\ndata: a\n\ndata\n\n", False),
        (b"data: a\r\n\r\n: c\r\n\r\n", False),
        (BOM + b"data: a\n\n", True),
        (b"id: 1\ndata: a\n\n", True),
        (b"event: x\n\n", True),
        (b"retry: 5\n\n", True),
        (b"mood: good\n\n", True),
        (b"data : a\n\n", True),
    ],
)
def test_a_parser_notes_what_is_neither_data_nor_a_comment(raw: bytes, odd: bool) -> None:
    parser = EventParser()
    parser.feed(raw)
    assert parser.odd is odd


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_blocks_hold_data_and_comments_alone_and_one_has_data_for_each_event(newline: bytes) -> None:
    raw = BOM + STREAM.replace(b"\n", newline)
    blocks = list(blocks_of(raw))
    assert sum(has_data for _, has_data in blocks) == len(EVENTS)
    kept = b"".join(block for block, _ in blocks)
    assert parsed(kept) == EVENTS
    assert b": a comment" in kept
    assert not any(each in kept for each in (b"event:", b"id:", BOM))
