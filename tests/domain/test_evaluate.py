"""The evaluator's laws."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.domain.evaluate import Decider, Evaluation, text_key, unknown_flag
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT, BrokenFlag, Flag, Override, Variant
from rollout.domain.local import SILENT, LocalOverrides
from rollout.domain.share import WHOLE

USERS = [f"user-{number}" for number in range(3_000)]
shares = st.integers(0, WHOLE)
any_text = st.text(st.characters(), max_size=40)
overrides = st.dictionaries(
    any_text,
    st.builds(Override, st.sampled_from(Variant), st.none(), st.none() | st.datetimes(timezones=st.just(UTC))),
    max_size=4,
)
flags = st.none() | st.builds(
    Flag,
    key=st.sampled_from([MAIN_FLAG, "other"]),
    salt=any_text,
    enabled=st.booleans(),
    killed=st.booleans(),
    share=shares | st.sampled_from([0, WHOLE]),
    hash_version=st.sampled_from([1, 1, 1, 2]),
    overrides=overrides,
) | st.builds(BrokenFlag, st.just(MAIN_FLAG), any_text)  # fmt: skip
locals_ = st.builds(
    LocalOverrides, st.booleans(), st.none() | st.booleans(), st.none() | shares, st.frozensets(any_text, max_size=3)
)


def a_flag(share: int = 50_000, **fields: object) -> Flag:
    return Flag(**{"key": MAIN_FLAG, "salt": "s", "share": share, **fields})  # type: ignore[arg-type]  # a builder


def inside(flag: Flag) -> set[str]:
    decider = Decider(flag)
    return {user for user in USERS if decider.is_on(user, 0.0)}


@given(shares, shares)
@settings(deadline=None, max_examples=50)  # thousands of users each
def test_a_growing_share_never_evicts_anyone(one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert inside(a_flag(low)) <= inside(a_flag(high))


@given(st.lists(shares, min_size=2, max_size=4))
@settings(deadline=None, max_examples=50)  # thousands of users each
def test_lowering_the_share_removes_exactly_those_added_last(path: list[int]) -> None:
    before = [inside(a_flag(share)) for share in path]
    after = [inside(a_flag(share)) for share in reversed(path)]
    assert before == after[::-1]


@given(shares)
@settings(deadline=None, max_examples=50)  # thousands of users each
def test_the_share_is_hit_as_closely_as_chance_allows(share: int) -> None:
    expected = share / WHOLE
    assert abs(len(inside(a_flag(share))) / len(USERS) - expected) < 0.04


def test_nobody_is_in_at_0_and_everybody_at_100() -> None:
    assert inside(a_flag(0)) == set()
    assert inside(a_flag(WHOLE)) == set(USERS)
    assert Decider(a_flag(WHOLE)).is_on(None, 0.0)


def test_the_steps_of_a_thousandth_of_a_percent_are_exact() -> None:
    bucket = Decider(a_flag()).bucket("ada")
    assert bucket is not None
    assert not Decider(a_flag(bucket)).is_on("ada", 0.0)
    assert Decider(a_flag(bucket + 1)).is_on("ada", 0.0)


@given(flags, locals_, st.none() | any_text, st.floats(allow_nan=True))
def test_the_value_alone_is_the_value_with_its_evidence(
    flag: Flag | BrokenFlag | None, local: LocalOverrides, who: str | None, now: float
) -> None:
    decider = Decider(flag, local)
    made = decider.evaluate(who, now, None)
    assert decider.is_on(who, now) is made.value
    assert made.value is (made.path == "litellm") is (made.variant == "on")
    assert made.bucket is None or made.value is (made.bucket < made.share)
    assert (made.bucket is not None) is (made.reason == "SPLIT")


@given(flags, locals_, any_text)
def test_the_same_question_gets_the_same_answer(
    flag: Flag | BrokenFlag | None, local: LocalOverrides, who: str
) -> None:
    assert Decider(flag, local).evaluate(who, 5.0, 1.0) == Decider(flag, local).evaluate(who, 5.0, 1.0)


@given(flags, locals_)
def test_a_kill_stops_everybody(flag: Flag | BrokenFlag | None, local: LocalOverrides) -> None:
    killed = replace(local, killed=True)
    if flag is None or flag.key == MAIN_FLAG:
        for who in (*local.force_users, "ada", None):
            assert Decider(flag, killed).evaluate(who, 0.0, None).cause == "kill_switch"


@given(locals_)
def test_the_environment_speaks_of_the_main_flag_alone(local: LocalOverrides) -> None:
    flag = a_flag(key="other")
    for who in (*local.force_users, "ada", None):
        assert Decider(flag, local).evaluate(who, 0.0, None) == Decider(flag).evaluate(who, 0.0, None)


@pytest.mark.parametrize(
    "who", ["日本", "🦉", "\ud83d", "\udfff-x", "\x00", " ", "a\u0301", "x" * 1_000_000, "-1", "NaN"]
)
def test_any_string_is_a_user_with_one_bucket(who: str) -> None:
    made = Decider(a_flag()).evaluate(who, 0.0, None)
    assert made.reason == "SPLIT"
    assert made.bucket == Decider(a_flag(1)).bucket(who)


def test_strings_that_look_alike_are_different_users() -> None:
    names = ["é", "e\u0301", "user", "user ", "USER", "us\u200ber"]
    assert len({Decider(a_flag()).bucket(name) for name in names}) == len(names)


@pytest.mark.parametrize("who", [None, ""])
def test_nobody_never_flips_between_the_paths(who: str | None) -> None:
    for share in (1, 50_000, 99_999):
        made = Decider(a_flag(share)).evaluate(who, 0.0, None)
        assert (made.value, made.cause) == (False, "no_targeting_key")


def test_a_number_is_the_same_user_as_its_text() -> None:
    decider = Decider(a_flag(overrides={"42": Override(Variant.ON)}))
    assert decider.evaluate(42, 0.0, None) == decider.evaluate("42", 0.0, None)
    assert text_key(42) == "42"


def test_an_object_that_cannot_be_said_is_nobody() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    assert Decider(a_flag()).evaluate(Mute(), 0.0, None).cause == "no_targeting_key"


def test_nobody_can_be_forced() -> None:
    forced = a_flag(overrides={"": Override(Variant.ON)})
    assert not Decider(forced, LocalOverrides(force_users=frozenset({""}))).is_on("", 0.0)
    assert not Decider(forced).is_on(None, 0.0)


def test_an_override_holds_until_its_moment_and_not_at_it() -> None:
    until = datetime(2027, 1, 1, tzinfo=UTC)
    override = Override(Variant.ON, expires_at=until)
    decider = Decider(a_flag(0, overrides={"ada": override}))
    for seconds in (-1.0, -0.001, 0.0, 1.0):
        now = until.timestamp() + seconds
        assert decider.is_on("ada", now) is (seconds < 0) is override.holds(datetime.fromtimestamp(now, UTC))


def test_an_override_that_ended_leaves_its_user_to_the_bucket() -> None:
    ended = Override(Variant.OFF, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    with_it, without = Decider(a_flag(overrides={"ada": ended})), Decider(a_flag())
    assert with_it.evaluate("ada", 2e9, None) == without.evaluate("ada", 2e9, None)


def test_the_environments_users_beat_a_stored_off_and_its_end() -> None:
    stored = Override(Variant.OFF, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    decider = Decider(a_flag(0, overrides={"ada": stored}), LocalOverrides(force_users=frozenset({"ada"})))
    assert decider.is_on("ada", 0.0)
    assert decider.is_on("ada", 4e9)


def test_a_broken_flag_hurts_only_itself() -> None:
    broken, good = Decider(BrokenFlag(MAIN_FLAG, "share is 'x'")), Decider(a_flag(WHOLE, key="other"))
    made = broken.evaluate("ada", 0.0, 3.0)
    assert (made.path, made.reason, made.cause, made.snapshot_age) == ("openrouter", "ERROR", "broken_flag", 3.0)
    assert good.is_on("ada", 0.0)


def test_a_hash_of_a_later_version_is_not_guessed() -> None:
    assert Decider(a_flag(WHOLE, hash_version=2)).evaluate("ada", 0.0, None).cause == "broken_flag"


def test_without_a_snapshot_the_environments_share_uses_the_published_salt() -> None:
    environment = Decider(None, LocalOverrides(share=50_000))
    stored = Decider(a_flag(salt=PUBLISHED_SALT))
    assert [environment.is_on(user, 0.0) for user in USERS] == [stored.is_on(user, 0.0) for user in USERS]


def test_without_anything_the_answer_is_direct() -> None:
    made = Decider(None, SILENT).evaluate("ada", 0.0, None)
    assert made == Evaluation(
        MAIN_FLAG, "openrouter", "off", False, "DEFAULT", "no_snapshot", None, 0, 0, None, 1  # type: ignore[arg-type]  # equal as text
    )  # fmt: skip


def test_an_unknown_flag_is_direct_and_an_error() -> None:
    assert unknown_flag("x")[:6] == ("x", "openrouter", "off", False, "ERROR", "unknown_flag")


def test_users_near_each_other_do_not_share_their_fate() -> None:
    flag = a_flag(10_000)
    first_hundred = sum(Decider(flag).is_on(str(number), 0.0) for number in range(100))
    assert 2 <= first_hundred <= 22


def test_nobody_is_forced_onto_the_gateway_by_a_flag_that_cannot_be_read() -> None:
    local = LocalOverrides(force_users=frozenset({"tester"}))
    for broken in (BrokenFlag(MAIN_FLAG, "unreadable"), Flag(MAIN_FLAG, "s", hash_version=99)):
        made = Decider(broken, local).evaluate("tester", 0.0, None)
        assert (made.path, made.reason, made.cause) == ("openrouter", "ERROR", "broken_flag")
