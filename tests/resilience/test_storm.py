"""Storms without sockets: what is served when first attempts fail, and what is sent when nothing answers at all."""

from collections.abc import Callable, Sequence
from math import inf

import pytest

from rollout.domain.failure import LEADS_ON, MODEL_FAULTS, FailureKind
from rollout.domain.flag import Path
from rollout.resilience.breaker import BreakerState
from rollout.resilience.quota import FURTHER_SHARE, QuotaLimits
from tests.resilience.storm import MODELS, REQUESTS, Asked, Fails, Storm, spread

K = FailureKind
LITELLM = Path.LITELLM
# not here: what stops a request after one attempt, what comes after a part, and what the gateway says of itself
STOPS = {K.UNAUTHORIZED, K.INTERRUPTED, K.GATEWAY_COOLDOWN, K.GATEWAY_ERROR, K.NOT_FREE}
KINDS = sorted(LEADS_ON - STOPS)
IN_TURN = (K.UPSTREAM_BUSY, K.SERVER_ERROR, K.EMPTY, K.ERROR_FINISH)
FROM = {"sixty callers": (60, 60), "one caller": (1, 60), "sixty callers with one body": (60, 1), "one request": (1, 1)}
PACES = {"in turn": (10.0, 0.05), "overlapping": (10.0, 2.0), "all at once": (0.0, 0.5)}

on_both_paths = pytest.mark.parametrize("path", list(Path))
from_all = pytest.mark.parametrize("callers", FROM)
at_every_pace = pytest.mark.parametrize("pace", PACES)


def out(kind: K, begins: float, ends: float) -> Fails:
    """Return an upstream that is out between two moments."""
    return lambda _, attempt, __: kind if begins <= attempt.started < ends else None


def bad(models: Sequence[str], kind: K) -> Fails:
    """Return an upstream some of whose models always fail."""
    return lambda _, attempt, __: kind if attempt.model in models else None


def taking(seconds: float) -> Callable[[K | None], float]:
    """Return how long attempts take; one that times out takes longer."""
    return lambda kind: 3.0 if kind is K.TIMEOUT else seconds


def storm(fails: Callable[..., K | None], path: Path, callers: str, pace: str, **more: object) -> Storm:
    (seconds, takes), (who, what) = PACES[pace], FROM[callers]
    lasting = {"seconds_of": taking(takes), "total": 60.0}
    made = Storm(fails, path=path, **{**lasting, **more})  # type: ignore[arg-type]
    return made.play(spread(seconds=seconds, callers=who, bodies=what))


@on_both_paths
@from_all
@at_every_pace
def test_if_every_first_attempt_fails_the_others_answer(path: Path, callers: str, pace: str) -> None:
    mixed = storm(lambda asked, _, sent: IN_TURN[asked.number % 4] if sent == 1 else None, path, callers, pace)
    assert mixed.served >= 57
    for kind in KINDS:
        assert storm(lambda _, __, sent, kind=kind: kind if sent == 1 else None, path, callers, pace).served >= 57, kind


@on_both_paths
@from_all
@at_every_pace
def test_if_three_first_attempts_in_ten_fail_everybody_is_served(path: Path, callers: str, pace: str) -> None:
    for seed in range(3):
        played = storm(
            lambda asked, _, sent: KINDS[asked.number % len(KINDS)] if sent == 1 and asked.number % 10 < 3 else None,
            path,
            callers,
            pace,
            seed=seed,
        )
        assert played.served == REQUESTS


@on_both_paths
@from_all
@at_every_pace
def test_one_model_that_never_answers_leaves_nobody_without_an_answer(path: Path, callers: str, pace: str) -> None:
    # the gateway itself is not reached whatever model is asked: that is no model's fault
    for kind in set(KINDS) - ({K.UNREACHABLE} if path is LITELLM else set()):
        for bad in MODELS[:2]:
            played = storm(
                lambda _, attempt, __, kind=kind, bad=bad: kind if attempt.model == bad else None, path, callers, pace
            )
            assert played.served >= 59, (kind, bad)


@on_both_paths
@at_every_pace
@pytest.mark.parametrize("callers", ["sixty callers", "one caller"])
def test_three_models_of_five_that_are_out_leave_the_other_two_answering(path: Path, callers: str, pace: str) -> None:
    # not here: what a request alone may bring about; nobody rests for it, so three of them are all its attempts
    for kind in MODEL_FAULTS.intersection(KINDS) - {K.UNREACHABLE}:
        for models in (MODELS[:3], MODELS[2:], MODELS[::2]):
            played = storm(bad(models, kind), path, callers, pace)
            assert played.served >= 54, (kind, models, played.served)


@on_both_paths
@pytest.mark.parametrize("kind", IN_TURN)
def test_one_model_that_still_answers_is_found(path: Path, kind: K) -> None:
    for well in MODELS:
        played = Storm(bad([each for each in MODELS if each != well], kind), path=path).play(spread(seconds=60.0))
        assert played.served >= 48, well


@on_both_paths
@from_all
@at_every_pace
@pytest.mark.parametrize("models", [1, 2, 3, 5])
def test_an_outage_of_the_upstream_is_not_multiplied(path: Path, callers: str, pace: str, models: int) -> None:
    for kind in KINDS:
        played = storm(lambda *_, kind=kind: kind, path, callers, pace, models=MODELS[:models])
        assert (played.served, played.sent <= 72) == (0, True), (kind, played.sent)
    mixed = storm(lambda asked, _, sent: KINDS[(7 * asked.number + sent) % len(KINDS)], path, callers, pace)
    assert mixed.sent <= 72


@on_both_paths
@pytest.mark.parametrize("models", [1, 2, 3, 5])
def test_an_outage_that_comes_upon_healthy_traffic_is_not_multiplied(path: Path, models: int) -> None:
    before = [(at, asked._replace(number=1000 + asked.number)) for at, asked in spread()]
    for kind in KINDS:
        for takes, seconds in ((0.05, 10.0), (2.0, 0.0)):
            world = Storm(out(kind, 1020.0, inf), taking(takes), path=path, models=MODELS[:models])
            world.play([*before, *((20.0 + at, asked) for at, asked in spread(seconds=seconds))])
            assert sum(at >= 1020.0 for at in world.sent_at) <= 72, kind


@on_both_paths
@pytest.mark.parametrize("models", [1, 2, 3, 5])
def test_after_an_outage_of_twenty_seconds_somebody_is_served_within_twenty_five(path: Path, models: int) -> None:
    asked = [(each / 3, Asked(each, each, each)) for each in range(240)]
    for kind in KINDS:
        world = Storm(out(kind, 1010.0, 1030.0), path=path, models=MODELS[:models]).play(asked)
        assert any(1030.0 < at <= 1055.0 for at in world.served_at.values()), kind


@on_both_paths
@pytest.mark.parametrize("kind", IN_TURN)
def test_further_attempts_leave_half_of_the_accounts_minute_to_first_attempts(path: Path, kind: K) -> None:
    world = Storm(lambda _, __, sent: kind if sent < 3 else None, path=path, limits=QuotaLimits(20, 0)).play(spread())
    begun = len(world.attempts)
    assert world.sent - begun <= 20 * FURTHER_SHARE
    assert begun >= 10
    one_each = Storm(lambda _, __, sent: kind if sent == 1 else None, path=path, limits=QuotaLimits(20, 0))
    assert one_each.play(spread()).served >= 8
    assert len(one_each.attempts) >= 10
    assert one_each.sent == 20, "what is kept for first attempts is used by them"


POISONS = sorted(
    {
        K.GATEWAY_ERROR,
        K.MODEL_REFUSED,
        K.SERVER_ERROR,
        K.NO_ANSWER,
        K.TIMEOUT,
        K.EMPTY,
        K.TRUNCATED,
        K.ERROR_FINISH,
        K.UNREACHABLE,
    }
)


@on_both_paths
@pytest.mark.parametrize("kind", POISONS)
@pytest.mark.parametrize(
    ("callers", "bodies"), [(1, 1), (1, 50), (50, 1)], ids=["one body", "one caller", "one body from many"]
)
@pytest.mark.parametrize("times", [5, 50])
def test_what_one_body_or_one_caller_brings_about_opens_no_breaker_of_others(
    path: Path, kind: K, callers: int, bodies: int, times: int
) -> None:
    world = Storm(lambda asked, _, __: kind if asked.number < 100 else None, path=path)
    world.play(spread(times, 5.0, callers=callers, bodies=bodies))
    assert {line.status.state for line in world.gate.status().breakers} == {BreakerState.CLOSED}
    assert world.sent <= times + 14
    world.play([(at, Asked(100 + asked.number, 500 + asked.number, 5000)) for at, asked in spread(20, 2.0)])
    assert {way for number, ways in world.ways.items() if number >= 100 for way in ways} == {f"{path} a"}
    assert world.served == 20
