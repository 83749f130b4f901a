import asyncio
from typing import Any

import pytest

from rollout.domain.failure import GATEWAY_FAULTS, FailureKind
from rollout.domain.flag import Path
from rollout.resilience.policy import Attempt, Outcome, Verdict, adrive, attempts, drive

MODELS = ("a:free", "b:free")


def played(outcomes: Any, path: Any = Path.LITELLM, **more: Any) -> Any:
    """Play a policy against outcomes; return what it tried and how it ended."""
    policy = attempts(path, MODELS, **{"now": 100.0, "total": 60.0, "per_attempt": 20.0, **more})
    left = list(outcomes)
    tried: list[Attempt] = []

    def send(attempt: Any) -> Any:
        tried.append(attempt)
        return left.pop(0), None

    verdict, _ = drive(policy, send)
    assert not left
    return tried, verdict


def test_an_attempt_that_serves_is_the_only_one() -> None:
    tried, verdict = played([Outcome(None, 101.0)])
    assert [(each.path, each.model, each.number) for each in tried] == [(Path.LITELLM, "a:free", 1)]
    assert verdict == Verdict(tried[0], None)


@pytest.mark.parametrize("kind", sorted(GATEWAY_FAULTS))
def test_a_fault_of_the_gateway_is_rescued_once_with_the_same_model(kind: FailureKind) -> None:
    tried, verdict = played([Outcome(kind, 105.0), Outcome(FailureKind.SERVER_ERROR, 106.0)])
    assert tried[1] == Attempt(Path.OPENROUTER, "a:free", 2, 105.0, 125.0, rescued_from=Path.LITELLM)
    assert verdict.failure is FailureKind.SERVER_ERROR


@pytest.mark.parametrize("kind", sorted(set(FailureKind) - GATEWAY_FAULTS))
def test_what_is_no_fault_of_the_gateway_is_not_sent_again(kind: FailureKind) -> None:
    tried, verdict = played([Outcome(kind, 105.0)])
    assert len(tried) == 1
    assert verdict.failure is kind


def test_nothing_is_sent_again_once_something_was_delivered() -> None:
    tried, _ = played([Outcome(FailureKind.SERVER_ERROR, 105.0, committed=True)])
    assert len(tried) == 1


def test_the_direct_path_has_nobody_to_rescue_it() -> None:
    tried, _ = played([Outcome(FailureKind.UNREACHABLE, 105.0)], path=Path.OPENROUTER)
    assert len(tried) == 1


def test_a_rescue_that_is_not_wanted_does_not_happen() -> None:
    tried, _ = played([Outcome(FailureKind.UNREACHABLE, 105.0)], rescue=False)
    assert len(tried) == 1


def test_the_total_deadline_bounds_the_rescue_and_forbids_a_late_one() -> None:
    tried, _ = played([Outcome(FailureKind.TIMEOUT, 155.0), Outcome(None, 156.0)])
    assert tried[1].deadline == 160.0
    tried, verdict = played([Outcome(FailureKind.TIMEOUT, 160.0)])
    assert len(tried) == 1
    assert verdict.failure is FailureKind.TIMEOUT


def test_an_attempt_has_no_more_time_than_the_total() -> None:
    tried, _ = played([Outcome(None, 100.5)], total=5.0)
    assert tried[0].deadline == 105.0


async def test_the_asynchronous_loop_plays_the_same_policy() -> None:
    left = [Outcome(FailureKind.UNREACHABLE, 101.0), Outcome(None, 102.0)]
    tried = []

    async def send(attempt: Any) -> Any:
        await asyncio.sleep(0)
        tried.append(attempt.path)
        return left.pop(0), len(tried)

    policy = attempts(Path.LITELLM, MODELS, now=100.0, total=60.0, per_attempt=20.0)
    verdict, brought = await adrive(policy, send)
    assert tried == [Path.LITELLM, Path.OPENROUTER]
    assert (verdict.failure, brought) == (None, 2)
