"""What the follower makes of each answer, and the transitions of a client."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.client.follower import LONGEST_BACKOFF, Answer, backoff, decide, read_retry_after
from rollout.client.status import TRANSITIONS, Event, State


def decided(answer: Answer, failures: int = 0) -> tuple[Event, str | None, float]:
    return decide(answer, place="127.0.0.1:1", failures=failures, interval=1.0, chance=random.Random(1))


@pytest.mark.parametrize("status", [200, 304])
def test_a_good_answer_is_followed_by_the_interval(status: int) -> None:
    assert decided(Answer(status), failures=7) == (Event.CONFIRMED, None, 1.0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_said_and_asked_again_slowly(status: int) -> None:
    event, problem, delay = decided(Answer(status))
    assert (event, delay) == (Event.REFUSED, LONGEST_BACKOFF)
    assert problem
    assert "ROLLOUT_TOKEN" in problem


@given(st.integers(0, 10**6), st.floats(0.01, 3600), st.integers())
def test_waits_after_failures_stay_between_a_moment_and_fifteen_seconds(
    failures: int, interval: float, seed: int
) -> None:
    assert 0.05 <= backoff(failures, interval, random.Random(seed)) <= LONGEST_BACKOFF


def test_waits_after_failures_grow() -> None:
    def mean(failures: int) -> float:
        return sum(backoff(failures, 1.0, random.Random(seed)) for seed in range(300)) / 300

    assert mean(1) < mean(2) < mean(3) < mean(4)


@pytest.mark.parametrize("status", [301, 404, 418, 429, 500, 503, None])
def test_anything_else_is_a_failure_that_leaves_the_last_snapshot(status: int | None) -> None:
    event, problem, _ = decided(Answer(status, failure=None if status else "cannot be reached"))
    assert event is Event.FAILED
    assert problem
    assert "last snapshot" in problem


def test_a_sane_retry_after_is_honoured_and_an_insane_one_is_not() -> None:
    assert decided(Answer(503, retry_after=120.0))[2] == 120.0
    assert decided(Answer(503, retry_after=86_400.0))[2] <= LONGEST_BACKOFF
    assert decided(Answer(503, retry_after=-5.0))[2] <= LONGEST_BACKOFF


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("soon", None),
        ("-3", None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("9" * 5_000, float("9" * 12)),
        ("Thu, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_retry_after_reads_as_seconds_or_as_a_date(text: str | None, seconds: float | None) -> None:
    assert read_retry_after(text, 100.0) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_makes_reading_raise(text: str) -> None:
    read_retry_after(text, 100.0)


def test_every_state_is_in_the_table_and_only_closing_ends() -> None:
    assert set(TRANSITIONS) == set(State)
    for state, moves in TRANSITIONS.items():
        assert (Event.CLOSE in moves) is (state is not State.CLOSED)
    reached = {State.IDLE, State.LOCAL}
    for _ in State:
        reached |= {to for state in reached for to in TRANSITIONS[state].values()}
    assert reached == set(State)
