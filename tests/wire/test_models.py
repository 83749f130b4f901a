"""The upstream's model list."""

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.cascade import ListedModel
from rollout.domain.errors import InvalidRequest
from rollout.wire.models import DailyUse, decode_key, decode_models

FREE = {"prompt": "0", "completion": "0"}


def _decoded(*entries: Any) -> tuple[ListedModel, ...]:
    return decode_models(json.dumps({"data": entries}))


def test_a_model_is_read_with_what_the_cascade_is_chosen_by() -> None:
    entry = {"id": "a/b:free", "pricing": FREE, "supported_parameters": ["tools"], "context_length": 131_072}
    assert _decoded(entry) == (ListedModel("a/b:free", free=True, tools=True, context_length=131_072),)
    assert decode_models(json.dumps({"data": [entry]}).encode()) == _decoded(entry)


@pytest.mark.parametrize(
    ("model", "pricing"),
    [
        ("a/b", FREE),
        ("a/b:free", {}),
        ("a/b:free", None),
        ("a/b:free", "0"),
        ("a/b:free", {"prompt": "0", "completion": "0.000001"}),
        ("a/b:free", {"prompt": "0", "request": "-1"}),
        ("a/b:free", {"prompt": "nothing"}),
        ("a/b:free", {"prompt": "NaN"}),
        ("a/b:free", {"prompt": "sNaN"}),
        ("a/b:free", {"prompt": ""}),
        ("a/b:free", {"prompt": None}),
        ("a/b:free", {"prompt": False}),
        ("a/b:free", {"prompt": []}),
        ("a/b:free", {"prompt": {"deep": [[[0]]]}}),
        ("a/b:free", {"prompt": "1e99999999999999999999"}),
    ],
)
def test_only_an_id_that_says_so_with_every_price_zero_is_free(model: str, pricing: Any) -> None:
    (listed,) = _decoded({"id": model, "pricing": pricing})
    assert listed == ListedModel(model, free=False)


@pytest.mark.parametrize("price", ["0", "0.0", "0.00000000", "-0", "0e5", 0, 0.0])
def test_zero_is_zero_however_it_is_written(price: object) -> None:
    assert _decoded({"id": "a/b:free", "pricing": {"prompt": price}})[0].free


@pytest.mark.parametrize(
    "entry",
    [
        *(None, 5, "a/b:free", [], {}),
        {"id": None},
        {"id": 5},
        {"id": ""},
        {"id": "no author:free"},
        {"id": "a/b c:free"},
        {"id": "\ud800/b:free"},
        {"id": "a/" + "b" * 300},
        {"id": "<script>/x:free"},
    ],
)
def test_an_entry_that_cannot_be_read_is_left_out_alone(entry: Any) -> None:
    good = {"id": "a/b:free", "pricing": FREE}
    assert [model.id for model in _decoded(entry, good)] == ["a/b:free"]


@pytest.mark.parametrize("written", ["many", None, True, 1.5, [], {}])
def test_a_context_length_that_is_no_number_counts_as_none(written: Any) -> None:
    entry = {"id": "a/b", "context_length": written, "supported_parameters": {"tools": True}}
    assert _decoded(entry) == (ListedModel("a/b", free=False),)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<!doctype html><title>Just a moment...</title>",
        b"\xff\xfe",
        b"null",
        b"5",
        b"[]",
        b'"data"',
        b"{}",
        b'{"data": null}',
        b'{"data": {}}',
        b'{"data": "models"}',
        b'{"error": {"message": "no"}}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_model_list_is_refused_in_one_sentence(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="the upstream's answer is no model list"):
        decode_models(body)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-12-15", date(2026, 12, 15)),
        ("2026-12-15T23:30:00Z", date(2026, 12, 15)),
        ("2026-12-15T23:30:00-02:00", date(2026, 12, 16)),
        (None, None),
        ("", None),
        ("soon", None),
        ("2026-02-30", None),
        (1765756800, None),
        ([], None),
        (True, None),
        ("0001-01-01T00:00:00+14:00", None),
    ],
)
def test_a_last_day_is_a_day_and_a_misprint_is_none(written: Any, read: date | None) -> None:
    assert _decoded({"id": "a/b:free", "pricing": FREE, "expiration_date": written})[0].expires == read


@pytest.mark.parametrize(
    ("said", "use"),
    [
        ({"free_model_daily_requests": {"used": 7, "limit": 50, "remaining": 43}}, DailyUse(7, 50)),
        ({"free_model_daily_requests": {"used": 7, "limit": None}, "is_free_tier": True}, DailyUse(7, 0)),
        ({"free_model_daily_requests": {"used": "7", "limit": 1000}}, DailyUse(None, 1000)),
        ({"free_model_daily_requests": {"used": -1, "limit": True}}, DailyUse()),
        ({"free_model_daily_requests": 5, "is_free_tier": False}, DailyUse(None, 1000)),
        ({"is_free_tier": True, "limit": None}, DailyUse(None, 50)),
        ({"is_free_tier": "yes"}, DailyUse()),
        ({}, DailyUse()),
        (None, DailyUse()),
        ([], DailyUse()),
    ],
)
def test_what_is_left_of_the_day_is_read_or_known_by_the_tier(said: Any, use: DailyUse) -> None:
    assert decode_key(json.dumps({"data": said})) == use


@pytest.mark.parametrize("body", [b"", b"<!doctype html>", b"\xff", b"[]", b"5", b"{}", b"[" * 100_000])
def test_what_is_no_answer_about_a_key_says_nothing(body: bytes) -> None:
    assert decode_key(body) == DailyUse()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(["a/b:free", "0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "pricing", "prompt", "context_length", "supported_parameters"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)


@given(st.lists(_JSON, max_size=4))
def test_whatever_is_listed_is_read_or_left_out(entries: list[Any]) -> None:
    for model in decode_models(json.dumps({"data": entries})):
        assert isinstance(model.id, str)
        assert isinstance(model.context_length, int)
