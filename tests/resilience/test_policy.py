import asyncio
import inspect
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.failure import GATEWAY_FAULTS, MODEL_FAULTS, REACTIONS, FailureKind, Reaction
from rollout.domain.flag import Path
from rollout.resilience.backoff import CAP_SECONDS, full_jitter
from rollout.resilience.gate import Gate
from rollout.resilience.permit import Permit, Refusal
from rollout.resilience.policy import (
    MAX_ATTEMPTS,
    SHORTEST_WAIT,
    Attempt,
    Outcome,
    Verdict,
    adrive,
    attempts,
    drive,
)
from rollout.resilience.quota import QuotaLimits
from rollout.resilience.scope import PATH_RULES

UNLIMITED = QuotaLimits(0, 0)
MORNING = 20_000 * 86_400 + 8 * 3600.0
LITELLM, DIRECT = Path.LITELLM, Path.OPENROUTER
A, B, C, D = MODELS = ("a:free", "b:free", "c:free", "d:free")
K = FailureKind
OF = {reaction: sorted(kind for kind in FailureKind if REACTIONS[kind] is reaction) for reaction in Reaction}


class Scene(NamedTuple):
    """What an attempt comes to, after so many seconds."""

    failure: FailureKind | None = None
    seconds: float = 1.0
    committed: bool = False
    retry_after: float | None = None
    sent: bool = True


class Watching(Gate):
    """A gate that keeps a list of the permits it granted and took back; it behaves like any other."""

    granted: list[Permit]
    settled: list[Permit]
    retries: int

    def admit(self, path: Path, model: str, *more: Any) -> Any:
        admitted = super().admit(path, model, *more)
        if isinstance(admitted, Permit):
            self.granted.append(admitted)
        return admitted

    def may_retry(self) -> bool:
        may = super().may_retry()
        self.retries += may
        return may


class Stage:
    """A world with time in it, in which a policy is played; sleeping takes as long as it should, or a bit more."""

    def __init__(self, limits: QuotaLimits = UNLIMITED, *, chance: float = 0.5, oversleep: float = 0.0) -> None:
        self.now, self.oversleep = 100.0, oversleep
        self.trace: list[Any] = []
        self.gate = Watching(limits, clock=lambda: self.now, wall=lambda: MORNING + self.now, chance=lambda: chance)
        self.gate.granted, self.gate.settled, self.gate.retries = [], [], 0
        self.scenes: list[Scene] = []

    def sleep(self, seconds: float) -> None:
        self.trace.append(seconds)
        self.now += seconds + self.oversleep

    def send(self, attempt: Attempt) -> tuple[Outcome, int]:
        self.trace.append(attempt)
        scene = self.scenes.pop(0) if self.scenes else Scene()
        self.now = min(self.now + scene.seconds, max(self.now, attempt.deadline))
        self.gate.settle(attempt.permit, scene.failure, scene.retry_after, sent=scene.sent)
        self.gate.settled.append(attempt.permit)
        return Outcome(scene.failure, self.now, scene.committed, scene.retry_after, scene.sent), len(self.trace)

    def policy(self, path: Path = LITELLM, models: Sequence[str] = MODELS, **more: Any) -> Any:
        settings = {"now": self.now, "total": 60.0, "per_attempt": 20.0, **more}
        return attempts(path, models, gate=self.gate, **settings)

    def play(self, *scenes: Scene | FailureKind | None, **more: Any) -> Verdict:
        """Play a policy in which attempts come to this, and well after that."""
        self.trace.clear()
        self.scenes = [scene if isinstance(scene, Scene) else Scene(scene) for scene in scenes]
        verdict, brought = drive(self.policy(**more), self.send, sleep=self.sleep, clock=lambda: self.now)
        assert (brought is None) is (verdict.attempt is None)
        return verdict

    @property
    def tried(self) -> list[Attempt]:
        return [each for each in self.trace if isinstance(each, Attempt)]

    @property
    def way(self) -> list[str]:
        return [f"{each.path} {each.model[0]}" for each in self.tried]

    @property
    def pauses(self) -> list[float]:
        return [each for each in self.trace if isinstance(each, float)]

    def rest(self, path: Path, *models: str) -> None:
        """Make models rest on a path for five minutes, or all of the path for a short time."""
        for model in models:
            self.gate.settle(Permit(path, model), K.MODEL_GONE)
        for _ in range(0 if models else PATH_RULES[path].consecutive):
            self.gate.settle(Permit(path, A), K.UNREACHABLE)


def test_an_attempt_that_serves_is_the_only_one() -> None:
    stage = Stage()
    verdict = stage.play(None)
    assert verdict == Verdict(stage.tried[0], None)
    assert stage.tried == [Attempt(LITELLM, A, 1, 100.0, 120.0, stage.gate.granted[0])]


@pytest.mark.parametrize("kind", sorted(GATEWAY_FAULTS - MODEL_FAULTS))
def test_a_fault_of_the_gateway_is_rescued_once_with_the_same_model_at_no_cost(kind: FailureKind) -> None:
    stage = Stage()
    verdict = stage.play(kind)
    assert stage.way == ["litellm a", "openrouter a"]
    assert stage.tried[1][:5] == (DIRECT, A, 2, 101.0, 121.0)
    assert [each.rescued_from for each in stage.tried] == [None, LITELLM]
    assert (verdict.failure, stage.pauses, stage.gate.retries) == (None, [], 0)


@pytest.mark.parametrize("kind", sorted(GATEWAY_FAULTS & MODEL_FAULTS))
def test_where_the_model_may_be_at_fault_the_rescue_asks_the_others_first_at_no_cost(kind: FailureKind) -> None:
    stage = Stage()
    verdict = stage.play(kind)
    assert stage.way == ["litellm a", "openrouter b"]
    assert [each.rescued_from for each in stage.tried] == [None, LITELLM]
    assert (verdict.failure, stage.pauses, stage.gate.retries) == (None, [], 0)
    stage.play(kind, models=[A])
    assert stage.way == ["litellm a", "openrouter a"]  # there is no other


def test_an_empty_retry_budget_ends_a_request_and_says_so() -> None:
    stage = Stage()
    while stage.gate.may_retry():
        pass
    verdict = stage.play(Scene(K.EMPTY), path=DIRECT, models=(A,))
    assert stage.way == ["openrouter a"]
    assert verdict == Verdict(
        stage.tried[0], K.EMPTY, Refusal(K.RESTING, 0.0, "too many requests are being retried just now")
    )


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize("kind", sorted(set(OF[Reaction.NEXT_MODEL] + OF[Reaction.TRY_AGAIN]) - GATEWAY_FAULTS))
def test_a_fallback_to_another_model_is_no_retry(kind: FailureKind, path: Path) -> None:
    stage = Stage()
    while stage.gate.may_retry():
        pass
    before = stage.gate.retries
    assert stage.play(kind, kind, path=path).failure is None
    assert stage.way == [f"{path} a", f"{path} b", f"{path} c"]
    assert stage.gate.retries == before


def test_an_attempt_of_which_nothing_was_sent_is_no_retry_and_costs_none_of_the_three() -> None:
    stage = Stage()
    while stage.gate.may_retry():
        pass
    unsent = Scene(K.UNREACHABLE, sent=False)
    assert stage.play(unsent, path=DIRECT, models=(A,)).failure is None
    assert stage.way == ["openrouter a", "openrouter a"]
    stage = Stage()
    stage.play(unsent, *[K.SERVER_ERROR] * 9, path=DIRECT)
    assert len(stage.tried) == MAX_ATTEMPTS + 1
    stage.play(*[unsent] * 9, path=DIRECT)
    assert len(stage.tried) == MAX_ATTEMPTS + 1, "once, not for ever"


def test_if_every_other_model_rests_the_resting_ones_are_asked_as_long_as_something_has_served_lately() -> None:
    stage = Stage()
    for model in (B, C, D):
        for _ in range(4):
            stage.gate.settle(Permit(DIRECT, model), K.UPSTREAM_BUSY)
        stage.gate.settle(Permit(DIRECT, A), None)
        stage.now += 1
    assert stage.play(K.MODEL_GONE, path=DIRECT).failure is None
    assert stage.way == ["openrouter a", "openrouter b"], "the one that has rested longest"
    stage.play(path=DIRECT)
    assert stage.way == ["openrouter b"], "its answer ended its rest"
    stage.now += 61
    for model in (B, C, D):
        for _ in range(2):
            stage.gate.settle(Permit(DIRECT, model), K.MODEL_GONE)
    stage.gate.settle(Permit(DIRECT, A), None)
    assert stage.play(K.UPSTREAM_BUSY, path=DIRECT).failure is K.UPSTREAM_BUSY
    assert stage.way == ["openrouter a"], "what is known to be gone is not asked"


@pytest.mark.parametrize("kind", sorted(GATEWAY_FAULTS))
def test_a_rescue_happens_even_where_no_retry_is_left(kind: FailureKind) -> None:
    stage = Stage()
    while stage.gate.may_retry():
        pass
    assert stage.play(kind, K.SERVER_ERROR, models=(A,)).failure is K.SERVER_ERROR
    assert stage.way == ["litellm a", "openrouter a"]


def test_the_rescue_comes_with_the_model_that_failed_then_with_the_others_in_order() -> None:
    stage = Stage()
    stage.play(K.UPSTREAM_BUSY, K.GATEWAY_COOLDOWN, K.MODEL_GONE)
    assert stage.way == ["litellm a", "litellm b", "openrouter b", "openrouter a"]


def test_the_rescue_from_a_model_that_may_be_at_fault_comes_to_it_last() -> None:
    stage = Stage()
    stage.play(K.UPSTREAM_BUSY, K.TIMEOUT, K.MODEL_GONE, K.MODEL_GONE)
    assert stage.way == ["litellm a", "litellm b", "openrouter a", "openrouter c"]


def test_nobody_is_rescued_twice_or_from_the_direct_path_or_against_his_will() -> None:
    stage = Stage()
    stage.play(K.UNREACHABLE, *[K.UNREACHABLE] * 9)
    assert [each.path for each in stage.tried] == [LITELLM, DIRECT, DIRECT, DIRECT]
    stage = Stage()
    stage.play(*[K.UNREACHABLE] * 9, path=DIRECT)
    assert [each.path for each in stage.tried] == [DIRECT] * 3
    stage = Stage()
    stage.play(*[K.TIMEOUT] * 9, rescue=False)
    assert [each.path for each in stage.tried] == [LITELLM] * 3


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize("kind", sorted(set(OF[Reaction.STOP]) - GATEWAY_FAULTS))
def test_what_stops_a_request_stops_it_on_both_paths(kind: FailureKind, path: Path) -> None:
    stage = Stage()
    assert stage.play(kind, path=path).failure is kind
    assert len(stage.trace) == 1


@pytest.mark.parametrize("kind", OF[Reaction.NEXT_MODEL])
def test_another_model_is_asked_at_once_and_this_one_never_again(kind: FailureKind) -> None:
    stage = Stage()
    stage.play(kind, kind, path=DIRECT)
    assert stage.way == ["openrouter a", "openrouter b", "openrouter c"]
    assert stage.pauses == []
    stage = Stage()
    assert stage.play(kind, kind, path=DIRECT, models=(A, B)).failure is kind
    assert stage.way == ["openrouter a", "openrouter b"]


@pytest.mark.parametrize("kind", OF[Reaction.TRY_AGAIN])
def test_what_may_pass_is_tried_again_after_a_pause_with_another_model_if_there_is_one(kind: FailureKind) -> None:
    stage = Stage()
    stage.play(kind, kind, path=DIRECT)
    assert stage.way == ["openrouter a", "openrouter b", "openrouter c"]
    assert stage.pauses == [0.125, 0.25]
    stage = Stage()
    stage.play(kind, kind, path=DIRECT, models=(A,))
    assert stage.way == ["openrouter a"] * 3


def test_after_the_last_model_the_one_that_may_do_better_is_asked_again_not_the_busy_one() -> None:
    stage = Stage()
    stage.play(K.UPSTREAM_BUSY, K.SERVER_ERROR, path=DIRECT, models=(A, B))
    assert stage.way == ["openrouter a", "openrouter b", "openrouter b"]


def test_a_model_that_failed_is_asked_again_where_the_untried_ones_rest() -> None:
    stage = Stage()
    stage.rest(DIRECT, B, C, D)
    assert stage.play(K.SERVER_ERROR, path=DIRECT).failure is None
    assert stage.way == ["openrouter a", "openrouter a"]
    assert stage.pauses == [0.125]


def test_a_model_is_not_asked_again_before_it_wants_to_be() -> None:
    stage = Stage()
    busy = Scene(K.RATE_LIMITED, retry_after=7.0)
    stage.play(busy, path=DIRECT, models=(A,))
    assert stage.pauses == [7.0]
    stage = Stage()
    stage.play(busy, Scene(K.SERVER_ERROR), path=DIRECT, models=(A, B))
    assert stage.way == ["openrouter a", "openrouter b", "openrouter b"]  # b is ready sooner
    stage = Stage()
    stage.play(busy, Scene(K.SERVER_ERROR, retry_after=30.0), path=DIRECT, models=(A, B))
    assert stage.way == ["openrouter a", "openrouter b", "openrouter a"]
    assert stage.tried[2].started >= 101.0 + 7.0


@pytest.mark.parametrize("absurd", [61.0, 999_999.0, math.inf, math.nan])
def test_a_wait_that_is_not_sane_is_not_waited(absurd: float) -> None:
    stage = Stage()
    stage.play(Scene(K.RATE_LIMITED, retry_after=absurd), path=DIRECT, models=(A,), total=1e9)
    assert len(stage.trace) == 1


def test_a_minute_that_is_full_is_waited_for_and_the_same_model_asked() -> None:
    stage = Stage()
    verdict = stage.play(Scene(K.MINUTE_CAP, retry_after=12.0))
    assert stage.way == ["litellm a", "litellm a"]
    assert stage.pauses == [pytest.approx(12.0)]
    assert verdict.failure is None


@pytest.mark.parametrize("path", list(Path))
def test_a_minute_that_ends_after_the_deadline_is_refused_with_when(path: Path) -> None:
    stage = Stage(QuotaLimits(1, 0))
    stage.play(path=path)
    verdict = stage.play(path=path, total=30.0)
    assert (verdict.attempt, verdict.failure, stage.trace) == (None, K.MINUTE_CAP, [])
    assert verdict.refusal is not None
    assert verdict.refusal.retry_after == 59.0
    assert stage.play(path=path, total=70.0).failure is None
    assert (stage.pauses, stage.way) == ([59.0], [f"{path} a"])


def test_a_retry_for_which_the_minute_has_no_room_in_time_costs_nothing_and_says_when() -> None:
    stage = Stage(QuotaLimits(1, 0))
    verdict = stage.play(K.SERVER_ERROR, path=DIRECT)
    assert verdict.refusal is not None
    assert (verdict.failure, verdict.refusal.kind, verdict.refusal.retry_after) == (K.SERVER_ERROR, K.MINUTE_CAP, 59.0)
    assert (len(stage.trace), stage.gate.retries) == (1, 0)


def test_a_day_that_is_used_up_stops_both_paths_and_says_when() -> None:
    stage = Stage()
    assert stage.play(K.DAY_CAP).failure is K.DAY_CAP
    for path in Path:
        verdict = stage.play(path=path)
        assert (verdict.attempt, verdict.failure, stage.trace) == (None, K.DAY_CAP, [])
        assert verdict.refusal is not None
        assert 0 < verdict.refusal.retry_after <= 86_400


def test_nothing_is_sent_again_once_something_was_delivered() -> None:
    for kind in FailureKind:
        stage = Stage()
        assert stage.play(Scene(kind, committed=True)).failure is kind
        assert len(stage.trace) == 1


def test_the_total_deadline_bounds_attempts_and_forbids_late_ones() -> None:
    stage = Stage(chance=0.0)
    stage.play(*[Scene(K.TIMEOUT, 20.0)] * 3)
    assert [each.deadline for each in stage.tried] == [120.0, 140.0, 160.0]
    assert stage.now <= 160.0
    stage = Stage()
    stage.play(Scene(K.SERVER_ERROR, 4.95), path=DIRECT, total=5.0)
    assert len(stage.trace) == 1  # there is no time to pause and ask again
    stage = Stage()
    stage.play(Scene(K.TIMEOUT, 20.0), total=15.0)
    assert len(stage.trace) == 1  # nor to be rescued


def test_who_oversleeps_sends_nothing_after_the_deadline() -> None:
    stage = Stage(oversleep=100.0)
    stage.play(K.SERVER_ERROR, path=DIRECT)
    assert len(stage.tried) == 1
    stage = Stage(QuotaLimits(1, 0), oversleep=100.0)
    stage.play()
    verdict = stage.play(total=70.0)
    assert (stage.tried, verdict.failure, len(stage.gate.granted)) == ([], K.MINUTE_CAP, 1)


def test_a_gateway_that_rests_is_passed_by() -> None:
    for resting in ((), MODELS):
        stage = Stage()
        stage.rest(LITELLM, *resting)
        stage.play()
        assert stage.way == ["openrouter a"]
        assert (stage.tried[0].rescued_from, stage.tried[0].number) == (LITELLM, 1)


def test_a_model_that_rests_is_passed_by() -> None:
    stage = Stage()
    stage.rest(LITELLM, A)
    stage.play()
    assert stage.way == ["litellm b"]


def test_where_everything_rests_the_caller_is_told_when_and_nobody_sleeps_in_vain() -> None:
    stage = Stage()
    stage.rest(LITELLM)
    stage.rest(DIRECT)
    verdict = stage.play()
    assert (verdict.attempt, verdict.failure, stage.trace) == (None, K.UNREACHABLE, [])
    assert verdict.refusal is not None
    assert 0 < verdict.refusal.retry_after <= 5.0
    stage = Stage()
    stage.rest(LITELLM, *MODELS)
    stage.rest(DIRECT, *MODELS)
    assert stage.play().failure is K.RESTING


def test_a_rescue_into_a_path_that_rests_ends_with_the_failure_and_the_time() -> None:
    stage = Stage()
    stage.rest(DIRECT)
    verdict = stage.play(K.TIMEOUT)
    assert (stage.way, verdict.failure) == (["litellm a"], K.TIMEOUT)
    assert verdict.refusal is not None
    assert verdict.refusal.kind is K.UNREACHABLE


def test_nobody_pauses_or_spends_a_retry_only_to_be_refused() -> None:
    stage = Stage()
    stage.rest(DIRECT, B, C, D)
    verdict = stage.play(K.MODEL_GONE, path=DIRECT)
    assert (stage.pauses, stage.gate.retries) == ([], 0)
    assert verdict.refusal is not None
    assert (verdict.failure, verdict.refusal.kind) == (K.MODEL_GONE, K.RESTING)


def test_a_model_that_is_not_free_is_passed_by_on_both_paths() -> None:
    for path in Path:
        stage = Stage()
        stage.gate.charged(A)
        stage.gate.not_free([B])
        stage.play(path=path)
        assert stage.way == [f"{path} c"]
        stage.gate.not_free([B, C, D])
        assert stage.play(path=path).failure is K.NOT_FREE


def test_if_the_only_model_fails_requests_cost_little_more_than_one_attempt_each() -> None:
    stage = Stage()
    sent = 0
    for _ in range(300):
        stage.gate.reset()  # no breaker helps
        stage.play(*[K.SERVER_ERROR] * 9, path=DIRECT, models=(A,))
        sent += len(stage.tried)
    seconds = stage.now - 100.0
    assert sent <= 300 + 0.1 * 300 + 0.1 * seconds + 2
    assert stage.gate.retries >= sent - 300


SCENES = st.lists(
    st.builds(
        Scene,
        st.sampled_from([None, *FailureKind]),
        st.one_of(st.floats(0, 30), st.floats(-50, 0)),  # a clock that goes back, too
        st.sampled_from([False] * 9 + [True]),
        st.one_of(st.none(), st.floats(0, 70), st.floats()),
    ),
    max_size=8,
)
REQUESTS = st.lists(
    st.tuples(SCENES, st.sampled_from(Path), st.integers(1, 4), st.booleans(), st.floats(0, 90)), min_size=1, max_size=8
)
LIMITS = st.sampled_from([QuotaLimits(0, 0), QuotaLimits(2, 0), QuotaLimits(0, 5), QuotaLimits(3, 8)])


@given(REQUESTS, LIMITS, st.floats(0, 1, exclude_max=True), st.sampled_from([0.0, 0.003, 40.0]))
def test_whatever_comes_the_laws_of_sending_hold(
    requests: list[Any], limits: QuotaLimits, chance: float, oversleep: float
) -> None:
    stage = Stage(limits, chance=chance, oversleep=oversleep)
    for scenes, path, models, rescue, idle in requests:
        stage.now += idle
        began, before = stage.now, stage.gate.retries
        verdict = stage.play(*scenes, path=path, models=MODELS[:models], rescue=rescue)
        end, tried = began + 60.0, stage.tried
        left = [each for each in tried if each.path is path]

        assert len(tried) <= MAX_ATTEMPTS + (path is LITELLM and rescue) + any(not scene.sent for scene in scenes)
        assert [each.number for each in tried] == list(range(1, len(tried) + 1))
        # of those that could not be sent the first on each path is free
        unsent = {each.path: each for each, scene in reversed([*zip(tried, scenes, strict=False)]) if not scene.sent}
        asked = [(each.path, each.model) for each in tried if unsent.get(each.path) is not each]
        assert stage.gate.retries - before >= len(asked) - len(set(asked))  # a fallback and a rescue cost no retry
        for attempt, scene in zip(tried, scenes, strict=False):
            assert attempt.started < end
            assert attempt.started < attempt.deadline <= min(end, attempt.started + 20.0)
            over = scene.failure is None or scene.committed
            assert not over or attempt is tried[-1]
            assert not over or stage.trace[-1] is attempt
        # once direct, always direct; only the gateway is rescued, and what is rescued says so
        assert [each.path for each in tried] == [*[path] * len(left), *[DIRECT] * (len(tried) - len(left))]
        assert all(each.rescued_from is (None if each.path is path else LITELLM) for each in tried)
        assert rescue or len(left) == len(tried)
        # alone in its world, nobody pauses for nothing
        assert not stage.trace or stage.trace[-1] in tried or oversleep
        for pause in stage.pauses:
            assert SHORTEST_WAIT <= pause <= 60.0 or pause < CAP_SECONDS
        for way in Path:
            moved_on = set()
            for attempt, scene in zip(tried, scenes, strict=False):
                if attempt.path is way:
                    assert attempt.model not in moved_on
                    if scene.failure and REACTIONS[scene.failure] is Reaction.NEXT_MODEL:
                        moved_on.add(attempt.model)
        assert stage.gate.granted == stage.gate.settled
        assert len(set(map(id, stage.gate.granted))) == len(stage.gate.granted)

        assert verdict.attempt is (tried[-1] if tried else None)
        if verdict.refusal is not None:
            assert 0 <= verdict.refusal.retry_after < math.inf
        assert tried or verdict.refusal is not None


@given(REQUESTS, LIMITS, st.floats(0, 1, exclude_max=True))
def test_both_loops_play_the_same(requests: list[Any], limits: QuotaLimits, chance: float) -> None:
    one, other = Stage(limits, chance=chance), Stage(limits, chance=chance)

    async def send(attempt: Attempt) -> tuple[Outcome, int]:
        await asyncio.sleep(0)
        return other.send(attempt)

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)
        other.sleep(seconds)

    async def play() -> None:
        for scenes, path, models, rescue, idle in requests:
            one.now += idle
            other.now += idle
            other.trace.clear()
            other.scenes = list(scenes)
            settings: Any = {"path": path, "models": MODELS[:models], "rescue": rescue}
            verdict = one.play(*scenes, **settings)
            assert (await adrive(other.policy(**settings), send, sleep=sleep, clock=lambda: other.now))[0] == verdict
            assert other.trace == one.trace

    asyncio.run(play())


@given(st.lists(st.tuples(st.sampled_from([None, *FailureKind]), st.floats(-1e6, 1e6)), max_size=30))
def test_it_always_ends_even_if_no_clock_moves_as_it_should(moments: list[Any]) -> None:
    stage = Stage(QuotaLimits(2, 0))
    stage.gate.admit(DIRECT, A)
    stage.gate.admit(DIRECT, A)  # the minute is full, and its clock stands still
    policy = stage.policy(total=300.0)
    next(policy)
    left = list(moments)
    for _ in range(10_000):
        failure, now = left.pop(0) if left else (K.MINUTE_CAP, 0.0)
        try:
            policy.send(Outcome(failure, now))
        except StopIteration:
            break
    assert inspect.getgeneratorstate(policy) == inspect.GEN_CLOSED


def test_a_sender_that_is_interrupted_is_not_called_again() -> None:
    stage = Stage()

    def leaves(_: Attempt) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(stage.policy(), leaves, sleep=stage.sleep, clock=lambda: stage.now)
    assert stage.trace == []


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_anything_below_a_bound_that_doubles_up_to_a_cap(retry: int, chance: float) -> None:
    assert 0 <= full_jitter(retry, chance) <= min(CAP_SECONDS, 0.25 * 2.0 ** min(retry, 40))
    assert full_jitter(retry, 0.0) == 0
