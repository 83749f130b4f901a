from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rollout.resilience.quota import (
    DAY_SECONDS,
    TURNING_SECONDS,
    Cap,
    Quota,
    QuotaLimits,
    QuotaRecord,
)

MORNING = 20_000 * DAY_SECONDS + 8 * 3600.0
MIDNIGHT = 20_001.0 * DAY_SECONDS
PER_MINUTE, PER_DAY = 5, 12


def full(quota: Quota, wall: float, most: int = 1000) -> int:
    """Reserve until something is in the way; return how many were taken."""
    taken = 0
    while taken < most and quota.reserve(wall).taken:
        taken += 1
    return taken


def test_a_full_minute_says_when_there_is_room_again() -> None:
    quota = Quota(QuotaLimits(3, None))
    for each in range(3):
        assert quota.reserve(MORNING + each).taken
    assert quota.reserve(MORNING + 10).wait == 50.0
    assert not quota.reserve(MORNING + 59.9).taken
    assert quota.reserve(MORNING + 60).taken
    assert quota.reserve(MORNING + 60).wait == 1.0  # the second of the three leaves a second later


def test_a_day_that_is_used_up_says_when_it_ends_and_begins_anew_at_midnight() -> None:
    quota = Quota(QuotaLimits(0, 4))
    assert full(quota, MIDNIGHT - 1) == 4
    assert quota.reserve(MIDNIGHT - 1).until == MIDNIGHT
    assert full(quota, MIDNIGHT) == 4


def test_zero_is_no_limit_and_costs_no_memory() -> None:
    quota = Quota(QuotaLimits(0, 0))
    assert full(quota, MORNING, most=5000) == 5000
    assert quota.record().moments == ()
    status = quota.status(MORNING)
    assert (status.per_day, status.left_today, status.used_today) == (None, None, 5000)
    assert (status.per_minute, status.used_this_minute) == (0, None)  # nobody counts by the minute


def test_asking_takes_nothing() -> None:
    quota = Quota(QuotaLimits(1, 1))
    assert [quota.look(MORNING).taken for _ in range(3)] == [True] * 3
    assert quota.reserve(MORNING).taken


def test_what_was_never_sent_is_put_back() -> None:
    quota = Quota(QuotaLimits(2, 2))
    assert full(quota, MORNING) == 2
    quota.give_back(MORNING)
    assert full(quota, MORNING) == 1
    assert quota.status(MORNING).used_today == 2


def test_what_was_taken_yesterday_is_not_put_back_into_today() -> None:
    quota = Quota(QuotaLimits(0, 2))
    assert quota.reserve(MIDNIGHT - 1).taken
    assert full(quota, MIDNIGHT + 1) == 2
    quota.give_back(MIDNIGHT - 1)
    assert full(quota, MIDNIGHT + 1) == 0


@pytest.mark.parametrize(
    ("seconds", "wait"), [(10.0, 10.0), (0.0, 1.0), (-5.0, 1.0), (999_999.0, 60.0), (float("inf"), 60.0)]
)
def test_the_upstreams_minute_is_waited_for_but_never_longer_than_a_minute_and_never_not_at_all(
    seconds: float, wait: float
) -> None:
    quota = Quota(QuotaLimits())
    quota.told_of_minute(MORNING, seconds)
    assert quota.reserve(MORNING).wait == wait
    assert quota.reserve(MORNING + wait).taken


@pytest.mark.parametrize("until", [None, MORNING - 1, MIDNIGHT + 1, MORNING + 1e9, float("nan"), float("inf")])
def test_an_absurd_end_of_a_daily_cap_is_midnight(until: float | None) -> None:
    quota = Quota(QuotaLimits())
    quota.told_of_day(MORNING, until)
    assert quota.reserve(MIDNIGHT - 1).until == MIDNIGHT
    assert quota.status(MORNING).blocked_until == MIDNIGHT
    assert quota.reserve(MIDNIGHT).taken
    assert quota.status(MIDNIGHT).blocked_until is None


def test_a_daily_cap_ends_when_the_upstream_said() -> None:
    quota = Quota(QuotaLimits())
    quota.told_of_day(MORNING, MORNING + 30)
    assert quota.reserve(MORNING + 29).until == MORNING + 30
    assert quota.reserve(MORNING + 30).taken


def test_a_status_names_the_cap_that_ends_last_and_none_that_is_over() -> None:
    quota = Quota(QuotaLimits(2, 3))

    def blocked(wall: float) -> object:
        status = quota.status(wall)
        return status.blocked_until, status.blocked_by

    assert full(quota, MORNING) == 2
    assert blocked(MORNING) == (None, None)  # full by our own count: there is room again by itself
    quota.told_of_minute(MORNING, 30)
    assert blocked(MORNING) == (MORNING + 30, Cap.MINUTE)
    quota.told_of_day(MORNING, MORNING + 20)
    assert blocked(MORNING) == (MORNING + 30, Cap.MINUTE)
    quota.told_of_day(MORNING, MORNING + 40)
    assert blocked(MORNING) == (MORNING + 40, Cap.DAY)
    assert blocked(MORNING + 40) == (None, None)
    assert full(quota, MORNING + 60) == 1
    assert blocked(MORNING + 60) == (MIDNIGHT, Cap.DAY)  # used up by our own count
    assert blocked(MIDNIGHT) == (None, None)


def test_yesterdays_daily_cap_heard_right_after_midnight_does_not_cost_today() -> None:
    quota = Quota(QuotaLimits())
    quota.told_of_day(MIDNIGHT + 2, None)
    assert not quota.reserve(MIDNIGHT + 3).taken
    assert quota.reserve(MIDNIGHT + TURNING_SECONDS).taken


def test_yesterdays_count_heard_right_after_midnight_does_not_cost_today() -> None:
    quota = Quota(QuotaLimits(20, 50))
    quota.told_of_use(MIDNIGHT + 30, used=50, per_day=50)  # the upstream's answer is cached for a minute
    assert quota.reserve(MIDNIGHT + 31).taken
    quota.told_of_use(MIDNIGHT + TURNING_SECONDS, used=50, per_day=50)
    assert not quota.reserve(MIDNIGHT + TURNING_SECONDS).taken


def test_the_upstreams_count_and_limit_correct_ours() -> None:
    quota = Quota(QuotaLimits(0, None))
    assert full(quota, MORNING, most=3) == 3
    quota.told_of_use(MORNING, used=7, per_day=10)
    assert full(quota, MORNING) == 3
    quota.told_of_use(MORNING, used=2, per_day=None)  # behind ours: what we sent may not be counted yet
    assert quota.status(MORNING).left_today == 0


def test_an_operator_forgets_caps_but_not_what_was_sent_in_this_minute() -> None:
    quota = Quota(QuotaLimits(3, 3))
    quota.told_of_day(MORNING, None)
    quota.told_of_minute(MORNING, 60)
    assert quota.forget_caps(MORNING)
    assert full(quota, MORNING) == 3
    assert quota.forget_caps(MORNING)
    assert full(quota, MORNING) == 0
    assert full(quota, MORNING + 60) == 3


def test_lower_limits_count_what_was_sent_under_the_higher_ones() -> None:
    quota = Quota(QuotaLimits(10, None))
    assert full(quota, MORNING, most=8) == 8
    quota.limit(QuotaLimits(2, 20))
    assert not quota.reserve(MORNING + 1).taken
    assert full(quota, MORNING + 60) == 2


def test_a_clock_that_goes_back_over_midnight_begins_no_day_twice() -> None:
    quota = Quota(QuotaLimits(0, 4))
    assert full(quota, MIDNIGHT + 1) == 4
    assert full(quota, MIDNIGHT - 1) == 0
    assert full(quota, MIDNIGHT + 1) == 0


def test_a_clock_that_was_a_year_ahead_blocks_nothing_for_longer_than_a_day_once_it_is_right() -> None:
    ahead = MORNING + 365 * DAY_SECONDS
    quota = Quota(QuotaLimits(0, 4))
    assert full(quota, ahead, most=2) == 2
    quota.told_of_minute(ahead, 60)
    quota.told_of_day(ahead, None)
    quota = Quota(QuotaLimits(0, 4), quota.record())
    assert quota.reserve(MORNING).until == MIDNIGHT
    assert quota.status(MORNING).blocked_until == MIDNIGHT
    assert full(quota, MIDNIGHT) == 4


def test_a_clock_that_goes_back_a_little_grants_no_minute_twice_and_blocks_one_at_the_most() -> None:
    quota = Quota(QuotaLimits(3, None))
    assert full(quota, MORNING) == 3
    for back in (30.0, 61.0, 7200.0):
        assert quota.reserve(MORNING - back).wait == 60.0
    assert full(quota, MORNING - 7200.0 + 60) == 3


class AnyQuota(RuleBasedStateMachine):
    """A quota under a wall clock that jumps, through restarts, with an upstream that names caps."""

    def __init__(self) -> None:
        super().__init__()
        self.wall, self.elapsed = MORNING, 0.0
        self.quota = Quota(QuotaLimits(PER_MINUTE, PER_DAY))
        self.sent: list[float] = []  # by time as it passed: what the clock went back is not time
        self.of_day: Counter[int] = Counter()
        self.newest_day = 0

    def ask(self) -> None:
        answer = self.quota.reserve(self.wall)
        assert 0 <= answer.wait <= 60
        if answer.until is not None:
            assert self.wall < answer.until <= (self.wall // DAY_SECONDS + 1) * DAY_SECONDS
        if answer.taken:
            self.sent.append(self.elapsed)
            self.of_day[int(self.wall // DAY_SECONDS)] += 1

    @rule(times=st.integers(1, 8))
    def some_ask(self, times: int) -> None:
        for _ in range(times):
            self.ask()

    @rule(seconds=st.one_of(st.floats(0, 70), st.sampled_from((3600.0, DAY_SECONDS / 3, 2.5 * DAY_SECONDS))))
    def time_passes(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds

    @rule(seconds=st.one_of(st.floats(0, 200), st.sampled_from((3600.0, DAY_SECONDS / 2))))
    def the_clock_goes_back(self, seconds: float) -> None:
        self.newest_day = max(self.newest_day, int(self.wall // DAY_SECONDS))
        # further than a day the count of a day is not promised, only that nothing is blocked for good
        self.wall = max(self.wall - seconds, (self.newest_day - 1) * DAY_SECONDS)

    @rule(seconds=st.floats(-10, 1e6))
    def the_upstream_names_the_minute(self, seconds: float) -> None:
        self.quota.told_of_minute(self.wall, seconds)

    @rule(seconds=st.one_of(st.none(), st.floats(-10, 1e6)))
    def the_upstream_names_the_day(self, seconds: float | None) -> None:
        self.quota.told_of_day(self.wall, None if seconds is None else self.wall + seconds)

    @rule(used=st.integers(0, 20))
    def the_upstream_names_its_count(self, used: int) -> None:
        self.quota.told_of_use(self.wall, used=used, per_day=None)

    @rule()
    def it_starts_again(self) -> None:
        record = self.quota.record()
        self.quota = Quota(QuotaLimits(PER_MINUTE, PER_DAY), record)
        assert self.quota.record() == record

    @rule()
    def the_next_day_but_one_all_is_well(self) -> None:
        self.wall += 2 * DAY_SECONDS
        self.elapsed += 2 * DAY_SECONDS
        before = len(self.sent)
        self.ask()
        assert len(self.sent) == before + 1

    @invariant()
    def no_minute_holds_more_than_its_limit(self) -> None:
        for first, last in zip(self.sent, self.sent[PER_MINUTE:], strict=False):
            assert last - first >= 60 - 1e-3

    @invariant()
    def no_day_holds_more_than_its_limit(self) -> None:
        assert all(count <= PER_DAY for count in self.of_day.values())

    @invariant()
    def its_status_adds_up(self) -> None:
        status = self.quota.status(self.wall)
        assert status.left_today is not None
        assert status.left_today == max(0, PER_DAY - status.used_today)
        assert 0 <= (status.used_this_minute or 0) <= PER_MINUTE
        assert (status.blocked_until is None) is (status.blocked_by is None)
        assert status.blocked_until is None or self.wall < status.blocked_until <= status.resets_at + 60
        assert self.wall < status.resets_at <= self.wall + DAY_SECONDS


TestAnyQuota = AnyQuota.TestCase


@given(st.lists(st.floats(0, 3e9), max_size=10), st.integers(0, 40_000), st.integers(0, 100), st.floats(0, 4e9))
def test_no_record_whatever_its_moments_blocks_for_longer_than_the_day(
    moments: list[float], day: int, used: int, blocked: float
) -> None:
    quota = Quota(QuotaLimits(3, 5), QuotaRecord(day, used, tuple(sorted(moments)), blocked))
    answer = quota.reserve(MORNING)
    assert 0 <= answer.wait <= 60
    assert answer.until is None or answer.until == MIDNIGHT or answer.until == blocked < MIDNIGHT


def test_further_attempts_may_use_half_of_the_minute_and_first_ones_all_of_it() -> None:
    quota = Quota(QuotaLimits(10, 0))
    for _ in range(5):
        assert quota.look(MORNING, further=True).taken
        quota.take(MORNING, further=True)
    room = quota.look(MORNING + 20, further=True)
    assert (room.taken, room.wait, room.kept) == (False, 40.0, True)
    for _ in range(5):
        assert quota.look(MORNING + 20).taken
        quota.take(MORNING + 20)
    assert (quota.look(MORNING + 20).taken, quota.look(MORNING + 20).kept) == (False, False)
    assert quota.look(MORNING + 60, further=True).taken


def test_a_further_attempt_that_was_never_sent_is_put_back_into_its_half_too() -> None:
    quota = Quota(QuotaLimits(2, 0))
    quota.take(MORNING, further=True)
    assert not quota.look(MORNING, further=True).taken
    quota.give_back(MORNING, further=True)
    assert quota.look(MORNING, further=True).taken
