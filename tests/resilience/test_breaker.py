from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rollout.resilience.breaker import TRANSITIONS, Breaker, BreakerEvent, BreakerRules, BreakerState
from rollout.resilience.source import Mark

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
RULES = BreakerRules(consecutive=3, window=8, minimum=6, ratio=0.5, first_open=10.0, longest_open=80.0)


def opened(now: float = 0.0, **more: Any) -> Breaker:
    breaker = Breaker(RULES)
    for _ in range(RULES.consecutive):
        breaker.failed(now, "it broke", probe=0, **more)
    assert breaker.state is OPEN
    return breaker


def test_the_table_of_transitions_knows_every_state_and_leads_to_states() -> None:
    assert set(TRANSITIONS) == set(BreakerState)
    for row in TRANSITIONS.values():
        assert set(row) <= set(BreakerEvent)
        assert row[BreakerEvent.RESET] is CLOSED  # from anywhere
        assert row[BreakerEvent.TRIPPED] is OPEN
    assert BreakerEvent.PROBE_OK not in TRANSITIONS[OPEN]  # only by way of a probe


def test_it_trips_on_failures_in_a_row_and_a_success_starts_the_row_again() -> None:
    breaker = Breaker(RULES)
    for well in (False, False, True, False, False):
        breaker.succeeded(probe=0) if well else breaker.failed(0.0, "it broke", probe=0)
    assert breaker.state is CLOSED
    breaker.failed(0.0, "it broke", probe=0)
    assert breaker.state is OPEN
    assert not breaker.allows(0.0)


def test_it_trips_on_a_bad_share_of_the_last_calls_but_never_on_too_few() -> None:
    breaker = Breaker(RULES)
    for each in range(6):
        assert breaker.state is CLOSED
        breaker.succeeded(probe=0) if each % 2 == 0 else breaker.failed(0.0, "it broke", probe=0)
    assert breaker.state is OPEN


def test_old_failures_leave_the_window() -> None:
    breaker = Breaker(RULES)
    for well in (False, False, True, *[True] * 6, False, False, True, False):
        breaker.succeeded(probe=0) if well else breaker.failed(0.0, "it broke", probe=0)
    assert breaker.state is CLOSED  # three of the last eight; five of all


def test_a_failure_that_may_not_trip_it_is_counted_all_the_same() -> None:
    breaker = Breaker(RULES)
    for _ in range(5):
        breaker.failed(0.0, "it broke", probe=0, trips=False)
    assert breaker.state is CLOSED
    breaker.failed(0.0, "it broke", probe=0)
    assert breaker.state is OPEN


def test_only_one_caller_probes_at_a_time() -> None:
    breaker = opened()
    assert not breaker.allows(9.9)
    assert breaker.allows(10.0)
    assert breaker.enter(10.0)
    assert breaker.state is HALF_OPEN
    assert not breaker.allows(11.0)


def test_a_probe_that_came_to_nothing_lets_the_next_one_through() -> None:
    breaker = opened()
    breaker.leave(breaker.enter(10.0))
    assert breaker.allows(10.0)
    assert breaker.enter(10.0)
    assert not breaker.allows(10.0)


def test_a_probe_that_is_lost_does_not_keep_it_open_for_good() -> None:
    breaker = opened()
    breaker.enter(10.0)
    assert not breaker.allows(10.0 + RULES.probe_seconds - 0.1)
    assert breaker.allows(10.0 + RULES.probe_seconds)


@pytest.mark.parametrize("jitter", [0.5, 0.75, 1.0])
def test_each_failed_probe_doubles_the_opening_time_up_to_the_cap(jitter: float) -> None:
    breaker, now = opened(jitter=jitter), 0.0
    times = []
    for _ in range(6):
        rest = breaker.status(now).opens_in
        assert rest is not None
        times.append(rest)
        now += rest
        breaker.failed(now, "it broke", probe=breaker.enter(now), jitter=jitter)
    assert times == pytest.approx([jitter * seconds for seconds in (10, 20, 40, 80, 80, 80)])


def test_a_probe_that_went_well_closes_it_and_forgets_how_long_it_was_open() -> None:
    breaker = opened()
    breaker.failed(10.0, "it broke", probe=breaker.enter(10.0))
    breaker.succeeded(probe=breaker.enter(30.0))
    assert breaker.status(30.0) == Breaker(RULES).status(30.0)
    for _ in range(3):
        breaker.failed(30.0, "it broke", probe=0)
    assert breaker.status(30.0).opens_in == 10.0


@pytest.mark.parametrize(("named", "rest"), [(1.0, 1.0), (73.0, 73.0), (123.0, RULES.longest_open)])
def test_the_upstreams_own_time_is_used_where_it_names_one_as_far_as_the_rules_allow(named: float, rest: float) -> None:
    assert opened(retry_after=named).status(0.0).opens_in == rest


def test_a_probe_that_comes_back_after_a_reset_changes_nothing() -> None:
    for well in (True, False):
        breaker = opened()
        probe = breaker.enter(10.0)
        breaker.reset()
        breaker.succeeded(probe=probe) if well else breaker.failed(11.0, "it broke", probe=probe)
        assert breaker.state is CLOSED
        assert breaker.status(11.0).why is None


def test_a_probe_that_comes_back_well_after_a_trip_does_not_open_the_door() -> None:
    breaker = opened()
    probe = breaker.enter(10.0)
    breaker.trip(11.0, "it is gone", 300.0)
    breaker.succeeded(probe=probe)
    assert (breaker.state, breaker.status(11.0).why) == (OPEN, "it is gone")
    assert not breaker.allows(310.0)


@pytest.mark.parametrize("how", ["well", "badly", "nothing"])
@pytest.mark.parametrize("overtaken_by", ["a reset and a trip", "its time"])
def test_a_probe_that_was_overtaken_says_nothing_for_the_one_that_is_out(overtaken_by: str, how: str) -> None:
    breaker, now = opened(), 10.0
    stale = breaker.enter(now)
    if overtaken_by == "its time":
        now += RULES.probe_seconds
    else:
        breaker.reset()
        for _ in range(RULES.consecutive):
            breaker.failed(now, "it broke", probe=0)
        now += RULES.first_open
    probe = breaker.enter(now)
    assert probe not in (0, stale)
    if how == "well":
        breaker.succeeded(probe=stale)
    elif how == "badly":
        breaker.failed(now, "it broke", probe=stale)
    else:
        breaker.leave(stale)
    assert breaker.state is HALF_OPEN
    assert not breaker.allows(now), "one probe is out already"
    breaker.succeeded(probe=probe)
    assert breaker.state is CLOSED


@given(st.integers(0, 40), st.floats(0.5, 1.0))
def test_it_never_rests_longer_than_the_cap(probes: int, jitter: float) -> None:
    breaker, now = opened(jitter=jitter), 0.0
    for _ in range(probes):
        now += RULES.longest_open
        breaker.failed(now, "it broke", probe=breaker.enter(now), jitter=jitter)
    assert 0 < (breaker.status(now).opens_in or 0.0) <= RULES.longest_open


class AnyBreaker(RuleBasedStateMachine):
    """Whatever happens to a breaker, in any order; callers hold to the rule that only who was let in comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now = Breaker(replace(RULES, probe_seconds=1e9)), 0.0  # no probe is ever lost
        self.probe = 0
        self.stale: list[int] = []
        self.calls = 0

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.allows(self.now))
    @rule()
    def one_enters(self) -> None:
        closed = self.breaker.state is CLOSED
        probe = self.breaker.enter(self.now)
        assert bool(probe) is not closed
        if probe:
            assert not self.probe, "one was out already"
            assert probe not in self.stale
            self.probe = probe
        self.calls += not probe

    @precondition(lambda self: self.calls)
    @rule(well=st.booleans())
    def a_call_comes_back(self, well: bool) -> None:
        self.calls -= 1
        before = self.breaker.state
        if well:
            self.breaker.succeeded(probe=0)
        else:
            self.breaker.failed(self.now, "it broke", probe=0)
        assert self.breaker.state is before or (before, self.breaker.state) == (CLOSED, OPEN)

    @precondition(lambda self: self.probe)
    @rule(how=st.sampled_from(("well", "badly", "nothing")))
    def the_probe_comes_back(self, how: str) -> None:
        self._comes_back(self.probe, how)
        self.probe = 0
        if how == "well":
            assert self.breaker.state is CLOSED
        elif how == "badly":
            assert self.breaker.state is OPEN
        else:
            assert self.breaker.allows(self.now)

    @precondition(lambda self: self.stale)
    @rule(how=st.sampled_from(("well", "badly", "nothing")))
    def a_probe_comes_back_that_a_reset_overtook(self, how: str) -> None:
        before = self.breaker.state
        self._comes_back(self.stale.pop(), how)
        assert self.breaker.state is before or (before, self.breaker.state) == (CLOSED, OPEN)

    def _comes_back(self, probe: int, how: str) -> None:
        if how == "well":
            self.breaker.succeeded(probe=probe)
        elif how == "badly":
            self.breaker.failed(self.now, "it broke", probe=probe)
        else:
            self.breaker.leave(probe)

    @rule()
    def an_operator_resets_it(self) -> None:
        if self.probe:
            self.stale.append(self.probe)
            self.probe = 0
        self.breaker.reset()
        assert self.breaker.state is CLOSED
        assert self.breaker.allows(self.now)

    @invariant()
    def while_one_probes_nobody_else_does(self) -> None:
        if self.probe:
            assert not self.breaker.allows(self.now)

    @invariant()
    def it_tells_the_truth(self) -> None:
        status = self.breaker.status(self.now)
        assert (status.opens_in is None) is (status.state is CLOSED)
        assert status.state is CLOSED or status.why is not None
        assert 0 <= (status.opens_in or 0.0) <= RULES.longest_open


TestAnyBreaker = AnyBreaker.TestCase


def test_failures_with_one_mark_count_for_half_of_what_trips_it() -> None:
    rules = replace(RULES, consecutive=4, ratio=None)
    same_caller, same_body = Breaker(rules), Breaker(rules)
    for each in range(50):
        same_caller.failed(0.0, "it broke", probe=0, mark=Mark(1, each))
        same_body.failed(0.0, "it broke", probe=0, mark=Mark(each, 1))
    assert (same_caller.state, same_body.state) == (CLOSED, CLOSED)
    same_caller.failed(0.0, "it broke", probe=0, mark=Mark(2, 100))
    assert same_caller.state is CLOSED, "three of four count"
    same_caller.failed(0.0, "it broke", probe=0, mark=Mark(2, 101))
    assert same_caller.state is OPEN


def test_what_no_body_can_cause_counts_at_once() -> None:
    breaker = Breaker(replace(RULES, consecutive=4, ratio=None))
    for each in range(50):
        breaker.failed(0.0, "it broke", probe=0, mark=Mark(1, 1) if each else None)
    assert breaker.state is CLOSED
    breaker.failed(0.0, "it broke", probe=0)
    assert breaker.state is OPEN


def test_one_mark_alone_never_makes_a_bad_share_of_the_last_calls() -> None:
    breaker = Breaker(RULES)
    for each in range(40):
        breaker.succeeded(probe=0) if each % 4 == 0 else breaker.failed(0.0, "it broke", probe=0, mark=Mark(1, each))
    assert breaker.state is CLOSED


def test_a_call_that_was_let_through_anyway_closes_it_or_makes_it_rest_anew() -> None:
    breaker = opened()
    breaker.failed(8.0, "it broke", probe=0, pressed=True)
    assert (breaker.state, breaker.status(8.0).opens_in) == (OPEN, RULES.first_open)
    breaker.succeeded(probe=0)
    assert breaker.state is OPEN, "a call from before says nothing"
    breaker.succeeded(probe=0, pressed=True)
    assert breaker.state is CLOSED
