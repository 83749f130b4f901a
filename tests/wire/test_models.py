"""The upstream's model list."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.cascade import ListedModel
from rollout.domain.errors import InvalidRequest
from rollout.wire.models import decode_models

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
