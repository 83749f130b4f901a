"""What a process knows of its last requests: counts, times, and when each path was last seen to fail."""

from __future__ import annotations

import sys
import threading

import pytest

from rollout.dispatch.decision import Decision, Exchange
from rollout.dispatch.recent import ENOUGH, KEPT, WINDOW_SECONDS, Recent
from rollout.domain.evaluate import Cause, Reason
from rollout.domain.failure import AttemptRecord, FailureKind
from rollout.domain.flag import Path

GATEWAY, DIRECT = Path.LITELLM, Path.OPENROUTER


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recent(clock: Clock) -> Recent:
    return Recent(clock)


def an_exchange(
    path: Path = GATEWAY, *, served_by: Path | None = GATEWAY, failure: FailureKind | None = None, seconds: float = 0.05
) -> Exchange:
    """A request that its path answered, that was rescued, or that nobody answered."""
    tried = [path] if served_by in {path, None} else [path, served_by]
    attempts = tuple(
        AttemptRecord(one, "a/b:free", 200, None if one is served_by else FailureKind.SERVER_ERROR, 1.0)
        for one in tried
        if one is not None
    )
    rescued = path if served_by not in {path, None} else None
    decision = Decision(
        path, served_by, rescued, "a/b:free", False, Reason.SPLIT, Cause.PERCENTAGE, 1, 1, attempts, seconds
    )
    return Exchange(decision, stream=False, failure=failure, status=200, seconds=seconds)


def test_requests_are_told_apart_by_who_answered_them(recent: Recent) -> None:
    for _ in range(8):
        recent.note(an_exchange())
    for _ in range(4):
        recent.note(an_exchange(served_by=DIRECT))
    recent.note(an_exchange(served_by=None, failure=FailureKind.SERVER_ERROR))
    seen = recent.summary(GATEWAY)
    assert (seen.requests, seen.rescued, seen.failed, seen.errors_in_a_row) == (13, 4, 1, 1)
    assert seen.is_over_the_limit
    assert recent.summary(DIRECT).requests == 0, "a rescue is no request of the direct path's own"
    assert recent.summary(DIRECT).last_served is not None


def test_ten_percent_may_fail_and_more_may_not(recent: Recent) -> None:
    for _ in range(18):
        recent.note(an_exchange())
    for _ in range(2):
        recent.note(an_exchange(served_by=DIRECT))
    assert not recent.summary(GATEWAY).is_over_the_limit
    recent.note(an_exchange(served_by=DIRECT))
    assert recent.summary(GATEWAY).is_over_the_limit


def test_a_few_requests_say_nothing_and_three_errors_in_a_row_do(recent: Recent) -> None:
    for _ in range(ENOUGH - 1):
        recent.note(an_exchange(served_by=DIRECT))
    assert not recent.summary(GATEWAY).is_enough
    assert not recent.summary(GATEWAY).is_over_the_limit
    for _ in range(3):
        recent.note(an_exchange(DIRECT, served_by=None, failure=FailureKind.UNREACHABLE))
    assert recent.summary(DIRECT).is_over_the_limit


def test_trouble_is_over_after_ten_good_answers_and_the_window_still_remembers_it(recent: Recent) -> None:
    for _ in range(5):
        recent.note(an_exchange(served_by=DIRECT))
    for _ in range(ENOUGH):
        assert recent.summary(GATEWAY).is_unwell or not recent.summary(GATEWAY).is_enough
        recent.note(an_exchange())
    assert not recent.summary(GATEWAY).is_unwell
    assert recent.summary(GATEWAY).is_over_the_limit


def test_what_is_older_than_the_window_is_forgotten_but_for_when_it_failed(recent: Recent, clock: Clock) -> None:
    for _ in range(20):
        recent.note(an_exchange(served_by=DIRECT))
    clock.now += WINDOW_SECONDS + 1
    seen = recent.summary(GATEWAY)
    assert seen.requests == 0
    assert not seen.is_over_the_limit
    assert seen.last_failure is not None
    assert seen.last_failure.at == 1_000.0


def test_answers_that_become_slow_are_told_from_those_before(recent: Recent) -> None:
    for _ in range(30):
        recent.note(an_exchange(seconds=0.05))
    for _ in range(ENOUGH):
        recent.note(an_exchange(seconds=3.0))
    seen = recent.summary(GATEWAY)
    assert (seen.before, seen.lately) == (0.05, 3.0)


@pytest.mark.parametrize("failure", [FailureKind.CANCELLED, FailureKind.REJECTED])
def test_what_a_caller_did_says_nothing_of_a_path(recent: Recent, failure: FailureKind) -> None:
    for _ in range(20):
        recent.note(an_exchange(served_by=None, failure=failure))
    assert recent.summary(GATEWAY).requests == 0


def test_it_holds_a_bounded_number_of_requests_from_many_threads(recent: Recent) -> None:
    def ask() -> None:
        for _ in range(KEPT):
            recent.note(an_exchange())
            recent.summary(GATEWAY)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert recent.summary(GATEWAY).requests == KEPT
