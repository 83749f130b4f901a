"""What people and programs may call things."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.errors import InvalidValue
from rollout.domain.evaluate import Decider
from rollout.domain.flag import Flag
from rollout.domain.identity import (
    MAX_CASCADE,
    MAX_DESCRIPTION,
    MAX_NAME,
    MAX_REASON,
    MAX_USER_ID,
    check_cascade,
    check_description,
    check_flag_key,
    check_name,
    check_reason,
    check_user_id,
    user_id,
)

CHECKS: dict[Callable[[Any], object], int] = {
    check_user_id: MAX_USER_ID,
    check_reason: MAX_REASON,
    check_name: MAX_NAME,
    check_description: MAX_DESCRIPTION,
}
printable = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\u2028\u2029"), max_size=80)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("bad", ["\0", "a\nb", "a\tb", "\x7f", "\x9b", "\ud800", "\u2028", "\u2029"])
def test_control_characters_and_lone_surrogates_are_refused(check: Callable[[Any], object], bad: str) -> None:
    with pytest.raises(InvalidValue, match="control character") as caught:
        check(f"a{bad}b")
    str(caught.value).encode()  # the message itself can be shown
    assert caught.value.field is not None


@pytest.mark.parametrize(("check", "longest"), CHECKS.items())
def test_the_longest_is_taken_and_one_more_is_refused(check: Callable[[Any], object], longest: int) -> None:
    assert check("å" * longest) == "å" * longest
    with pytest.raises(InvalidValue, match=f"{longest} is the most"):
        check("å" * (longest + 1))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("other", [17, b"anna", ["anna"], True, 1.5])
def test_what_is_no_text_is_refused(check: Callable[[Any], object], other: object) -> None:
    with pytest.raises(InvalidValue, match="must be text"):
        check(other)


@given(printable.filter(lambda text: bool(text.strip())))
def test_a_user_id_loses_what_cannot_be_seen_around_it_and_nothing_else(text: str) -> None:
    kept = user_id(text)
    assert kept in text
    assert user_id(kept) == kept
    assert not kept or (check_user_id(f"\u200b {text}\ufeff\t") == kept)


@pytest.mark.parametrize("blank", ["\u3164", "\u2800", "\uffa0", "\u115f", "\u034f", "\u00a0", "\u2060"])
def test_a_character_that_shows_nothing_is_no_part_of_an_id_at_its_ends(blank: str) -> None:
    assert check_user_id(f"{blank}anna{blank}") == user_id(f"anna{blank}") == "anna"
    assert user_id(blank) == ""
    with pytest.raises(InvalidValue, match="is empty"):
        check_user_id(blank)


class Colour(Enum):
    RED = "red"


class Mixed(str, Enum):  # noqa: UP042 - as applications write it; its `str` is not its value
    RED = "red"


class Anonymous:
    """As Django's AnonymousUser."""

    is_anonymous = True
    is_authenticated = False

    def __str__(self) -> str:
        return "AnonymousUser"


class OldAnonymous:
    """As frameworks had it when it was still a method."""

    def is_authenticated(self) -> bool:
        return False


class Member:
    is_anonymous = False
    is_authenticated = True

    def __str__(self) -> str:
        return "anna"


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("who", "read"),
    [
        (None, ""),
        ("", ""),
        (" \u200b\ufeff", ""),
        ("  anna\n", "anna"),
        ("\ufeffanna\u200b", "anna"),
        ("an na", "an na"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("a/b", "a/b"),
        (42, "42"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"anna", "anna"),
        ("sørén".encode(), "sørén"),
        ("sørén".encode("latin-1"), "sørén"),
        (bytearray(b" anna "), "anna"),
        (Colour.RED, "red"),
        (Mixed.RED, "red"),
        (Anonymous(), ""),
        (OldAnonymous(), ""),
        (Member(), "anna"),
        (Broken(), ""),
        (object(), ""),
    ],
)
def test_whatever_stands_for_a_user_is_read_as_its_framework_means_it(who: object, read: str) -> None:
    assert user_id(who) == read


def test_an_object_without_words_is_nobody_rather_than_somebody_else_in_each_process() -> None:
    assert (
        Decider(Flag("enableLiteLLM", "salt", share=50_000)).evaluate(object(), 0.0, None).cause == "no_targeting_key"
    )


@given(st.text(max_size=40))
def test_any_text_is_either_taken_or_refused_with_a_reason(text: str) -> None:
    for check in CHECKS:
        try:
            check(text)
        except InvalidValue as error:
            assert error.message  # noqa: PT017 - either outcome is right; what is refused has to say why


@pytest.mark.parametrize("empty", ["", " ", "\u00a0", "\u3000 "])
def test_nothing_at_all_names_nobody(empty: str) -> None:
    for check in (check_user_id, check_name):
        with pytest.raises(InvalidValue, match="is empty"):
            check(empty)
    assert check_reason(empty) is None
    assert check_description(empty) == ""


def test_reasons_names_and_descriptions_are_trimmed() -> None:
    assert check_reason(None) is None
    assert check_reason("  why ") == "why"
    assert check_name(" eva ") == "eva"
    assert check_description(" a flag ") == "a flag"


@pytest.mark.parametrize("key", ["a", "enableLiteLLM", "A.b-c_9", "x" * 80])
def test_flag_keys(key: str) -> None:
    assert check_flag_key(key) == key


@pytest.mark.parametrize("key", ["", "9a", "-a", "a b", "a/b", "å", "a\n", "x" * 81, None, 17, "a'", "a<b"])
def test_what_cannot_be_a_flag_key(key: object) -> None:
    with pytest.raises(InvalidValue, match="cannot be a flag's key") as caught:
        check_flag_key(key)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "models",
    [
        ["z-ai/glm-4.5-air:free"],
        ("a/b:free", "c/d:free"),
        [f"a/b{number}:free" for number in range(MAX_CASCADE)],
        ["~x/y_z:free"],
    ],
)
def test_cascades(models: Any) -> None:
    assert check_cascade(models) == tuple(models)


@pytest.mark.parametrize(
    ("models", "why"),
    [
        ([], "empty cascade"),
        (None, "is a list"),
        ("a/b", "is a list"),
        ({"a/b": 1}, "is a list"),
        (["a/b:free", "a/b:free"], "more than once"),
        ([f"a/b{number}" for number in range(MAX_CASCADE + 1)], "at most 20"),
        (["a"], "no model id"),
        (["a/b/c"], "no model id"),
        (["a/b:"], "no model id"),
        (["/b"], "no model id"),
        (["a/b\n"], "no model id"),
        (["a/" + "b" * 200], "no model id"),
        ([None], "no model id"),
        (["a/b"], "is not free"),
        (["a/b:free", "a/b:thinking"], "is not free"),
        (["../../etc/passwd"], "no model id"),
    ],
)
def test_what_cannot_be_a_cascade(models: Any, why: str) -> None:
    with pytest.raises(InvalidValue, match=why) as caught:
        check_cascade(models)
    assert caught.value.field == "models"


def test_a_team_that_pays_may_name_any_model() -> None:
    assert check_cascade(["a/b", "c/d:free"], allow_paid=True) == ("a/b", "c/d:free")
    with pytest.raises(InvalidValue, match="no model id"):
        check_cascade(["a"], allow_paid=True)
