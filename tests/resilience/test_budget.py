from hypothesis import example, given
from hypothesis import strategies as st

from rollout.resilience.budget import FLOOR_MOST, FLOOR_PER_SECOND, MOST, RATIO, RetryBudget

STEPS = st.lists(
    st.one_of(
        st.just("request"),
        st.just("retry"),
        st.floats(0, 100),  # seconds that pass
        st.floats(-1e6, -1),  # a clock that goes back
    ),
    max_size=200,
)


@given(STEPS)
@example(["retry"] * 5)
@example(["request"] * 200 + ["retry"] * 30)
@example([-1000.0, "retry", "retry", "retry", 30.0, "retry", "retry", "retry"])
def test_retries_stay_under_a_share_of_requests_and_a_floor(steps: list[str | float]) -> None:
    now, passed, requests, retries = 1000.0, 0.0, 0, 0
    budget = RetryBudget(now)
    for step in steps:
        if step == "request":
            budget.deposit()
            requests += 1
        elif step == "retry":
            retries += budget.withdraw(now)
        else:
            assert isinstance(step, float)
            now += step
            passed += max(0.0, step)
        assert retries <= RATIO * requests + FLOOR_PER_SECOND * passed + FLOOR_MOST + 1e-6


@given(STEPS)
def test_its_level_says_whether_there_is_a_retry_in_it(steps: list[str | float]) -> None:
    now = 1000.0
    budget = RetryBudget(now)
    for step in steps:
        if isinstance(step, float):
            now += step
        elif step == "request":
            budget.deposit()
        else:
            level = budget.level(now)
            assert 0 <= level <= MOST
            assert budget.level(now) == level  # asking changes nothing
            assert budget.withdraw(now) is (level >= 1)


@given(STEPS)
def test_whatever_happened_a_retry_is_possible_again_before_long(steps: list[str | float]) -> None:
    now = 1000.0
    budget = RetryBudget(now)
    for step in steps:
        if isinstance(step, float):
            now += step
        elif step == "request":
            budget.deposit()
        else:
            budget.withdraw(now)
    budget.withdraw(now)  # it has seen the clock as it is now
    assert budget.withdraw(now + 1 / FLOOR_PER_SECOND + 1e-3)


def test_a_request_that_comes_alone_can_make_all_three_attempts() -> None:
    budget = RetryBudget(0.0)
    assert [budget.withdraw(0.0) for _ in range(3)] == [True, True, False]
    budget.deposit()
    assert [budget.withdraw(60.0) for _ in range(3)] == [True, True, False]


def test_no_more_than_ten_are_ever_saved_up() -> None:
    budget = RetryBudget(0.0)
    for _ in range(1000):
        budget.deposit()
    assert sum(budget.withdraw(1e9) for _ in range(100)) == MOST


def test_a_long_quiet_time_saves_up_no_more_than_the_floor() -> None:
    budget = RetryBudget(0.0)
    assert sum(budget.withdraw(1e9) for _ in range(100)) == FLOOR_MOST


def test_at_twenty_requests_a_minute_a_third_that_fail_can_all_be_retried() -> None:
    budget = RetryBudget(0.0)
    refused = 0
    for each in range(200):  # ten minutes
        budget.deposit()
        if each % 3 == 0:
            refused += not budget.withdraw(each * 3.0)
    assert refused == 0
