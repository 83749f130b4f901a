"""Snapshots as documents: what goes out comes back, and nothing that comes in can do harm."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.errors import InvalidRequest
from rollout.domain.flag import BrokenFlag, Flag, Override, Variant
from rollout.domain.snapshot import Snapshot
from rollout.wire.snapshot import decode, encode, flag_document

# one lone surrogate at a time: two that make a pair are one character in JSON
text = st.text(max_size=12) | st.sampled_from(["\ud83d", "🦉", "user-42", "\x00", "a\udfffb"])
moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])).filter(
    lambda at: datetime(2, 1, 1, tzinfo=UTC) < at < datetime(9999, 12, 30, tzinfo=UTC)
)
overrides = st.dictionaries(
    text, st.builds(Override, st.sampled_from(Variant), st.none() | text, st.none() | moments), max_size=4
)
good_flags = st.builds(
    Flag,
    key=st.just(""),
    salt=text.filter(bool),
    description=text,
    enabled=st.booleans(),
    killed=st.booleans(),
    share=st.integers(0, 100_000),
    hash_version=st.integers(0, 9),
    revision=st.integers(0, 10**18),
    overrides=overrides,
)
flags = good_flags | st.builds(BrokenFlag, key=st.just(""), why=text)
snapshots = st.builds(
    Snapshot,
    installation=text.filter(bool),
    revision=st.integers(0, 10**18),
    digest=text,
    flags=st.dictionaries(text, flags, max_size=4).map(
        lambda made: {key: replace(flag, key=key) for key, flag in made.items()}
    ),
    cascade=st.lists(text, max_size=4).map(tuple),
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def a_document(**flag: Any) -> dict[str, Any]:
    """Return a good document with one flag, changed as asked; a value of `...` takes the field away."""
    good = {
        "description": "",
        "enabled": True,
        "killed": False,
        "percentage": 12.5,
        "share": 12_500,
        "salt": "s",
        "hash_version": 1,
        "revision": 3,
        "overrides": {"user-42": {"variant": "on", "expires_at": None}},
    }
    good |= flag
    return {
        "format": 1,
        "installation": "i",
        "revision": 3,
        "digest": "d",
        "cascade": ["a/b:free"],
        "flags": {
            "enableLiteLLM": {name: value for name, value in good.items() if value is not ...},
            "other": a_good(),
        },
    }


def a_good() -> dict[str, Any]:
    return {
        "description": "",
        "enabled": True,
        "killed": False,
        "percentage": 0.001,
        "share": 1,
        "salt": "t",
        "hash_version": 1,
        "revision": 1,
        "overrides": {},
    }


def without_reasons(snapshot: Snapshot) -> Snapshot:
    def bare(flag: Flag | BrokenFlag) -> Flag | BrokenFlag:
        if isinstance(flag, BrokenFlag):
            return flag
        return replace(flag, overrides={user: replace(said, reason=None) for user, said in flag.overrides.items()})

    return replace(snapshot, flags={key: bare(flag) for key, flag in snapshot.flags.items()})


@given(snapshots)
def test_what_was_written_reads_the_same_but_for_the_reasons(snapshot: Snapshot) -> None:
    assert decode(encode(snapshot)) == without_reasons(snapshot)


@given(snapshots)
def test_text_reads_as_bytes_do(snapshot: Snapshot) -> None:
    assert decode(encode(snapshot).decode()) == decode(encode(snapshot))


def test_the_reasons_of_overrides_never_leave_for_the_clients() -> None:
    flag = Flag("f", "s", overrides={"u": Override(Variant.ON, reason="asked by Ada")})
    assert b"Ada" not in encode(Snapshot("i", 1, "d", {"f": flag}, ()))


def test_a_flag_reads_in_the_api_as_the_contract_says() -> None:
    until = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    flag = Flag("f", "s", "d", False, True, 12_500, 1, 7, {"u": Override(Variant.OFF, "why", until)})
    assert flag_document(flag) == {
        "key": "f",
        "description": "d",
        "enabled": False,
        "killed": True,
        "percentage": 12.5,
        "salt": "s",
        "hash_version": 1,
        "overrides": {"u": {"variant": "off", "reason": "why", "expires_at": "2027-01-02T03:04:05.000000Z"}},
        "revision": 7,
    }


@given(documents)
def test_any_document_inside_reads_or_is_refused(document: object) -> None:
    for whole in (document, a_document() | {"flags": document}, a_document() | {"flags": {"enableLiteLLM": document}}):
        with suppress(InvalidRequest):
            decode(json.dumps(whole))


@given(documents, st.sampled_from(sorted(a_good())))
def test_any_value_in_a_flag_hurts_that_flag_at_most(value: object, field: str) -> None:
    read = decode(json.dumps(a_document(**{field: value})))
    assert isinstance(read.flags["enableLiteLLM"], Flag | BrokenFlag)
    assert read.flags["other"] == Flag("other", "t", share=1, revision=1)


@given(st.binary(max_size=60))
def test_any_bytes_read_or_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(raw)


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 12.5}, {"share": True}, {"share": "12500"}, {"share": -1}, {"share": 100_001}, {"share": ...},
        {"share": None, "percentage": 50}, {"enabled": 1}, {"enabled": ...}, {"killed": "false"}, {"killed": ...},
        {"salt": ""}, {"salt": None}, {"salt": 7}, {"hash_version": "1"}, {"hash_version": ...}, {"revision": -1},
        {"description": 5}, {"overrides": ...}, {"overrides": []}, {"overrides": {"u": "on"}},
        {"overrides": {"u": {"variant": "maybe"}}}, {"overrides": {"u": {"variant": ["on"]}}},
        {"overrides": {"u": {"variant": "on", "expires_at": "2027-01-01T00:00:00"}}},
        {"overrides": {"u": {"variant": "on", "expires_at": "soon"}}},
        {"overrides": {"u": {"variant": "on", "expires_at": 1}}},
        {"overrides": {"u": {"variant": "on", "expires_at": "0001-01-01T00:00:00+14:00"}}},
        {"broken": "the row is gone"},
    ],
)  # fmt: skip
def test_a_wrong_flag_is_broken_and_hurts_only_itself(wrong: dict[str, Any]) -> None:
    read = decode(json.dumps(a_document(**wrong)))
    broken = read.flags["enableLiteLLM"]
    assert isinstance(broken, BrokenFlag)
    assert broken.why
    assert isinstance(read.flags["other"], Flag)


def test_fields_of_a_newer_server_are_left_aside() -> None:
    document = a_document(rules=[{"if": "beta"}]) | {"signature": "x"}
    assert decode(json.dumps(document)).flags == decode(json.dumps(a_document())).flags


def test_the_share_decides_and_the_percentage_is_never_read() -> None:
    flag = decode(json.dumps(a_document(percentage=99))).flags["enableLiteLLM"]
    assert isinstance(flag, Flag)
    assert flag.share == 12_500


@pytest.mark.parametrize("why", ["x" * 500, {"deep": 1}])
def test_what_is_wrong_is_said_briefly(why: object) -> None:
    broken = decode(json.dumps(a_document(share=why))).flags["enableLiteLLM"]
    assert isinstance(broken, BrokenFlag)
    assert len(broken.why) < 200


def test_a_number_of_ten_thousand_digits_breaks_its_flag_alone() -> None:
    raw = json.dumps(a_document()).replace("12500", "9" * 10_000)
    read = decode(raw)
    assert isinstance(read.flags["enableLiteLLM"], BrokenFlag)
    assert isinstance(read.flags["other"], Flag)


def test_nan_and_infinity_break_their_flag_alone() -> None:
    for word in ("NaN", "Infinity", "-Infinity"):
        read = decode(json.dumps(a_document()).replace("12500", word))
        assert isinstance(read.flags["enableLiteLLM"], BrokenFlag)


def test_one_unreadable_model_does_not_keep_the_rest_from_arriving() -> None:
    assert decode(json.dumps(a_document() | {"cascade": ["a/b:free", 7, None]})).cascade == ("a/b:free",)
    assert decode(json.dumps(a_document() | {"cascade": 7})).cascade == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda d: [d],
        lambda d: d | {"format": 2},
        lambda d: d | {"format": True},
        lambda d: d | {"format": None},
        lambda d: d | {"installation": ""},
        lambda d: d | {"installation": 7},
        lambda d: d | {"revision": "3"},
        lambda d: d | {"digest": None},
        lambda d: d | {"flags": []},
    ],
)
def test_what_is_no_snapshot_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(InvalidRequest):
        decode(json.dumps(change(a_document())))


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", "[" * 100_000, "{", "null", "NaN", "1" * 9_999, b'"\xed\xa0\x80"'])
def test_hostile_bytes_are_refused_in_a_sentence(raw: bytes | str) -> None:
    with pytest.raises(InvalidRequest, match="snapshot"):
        decode(raw)
