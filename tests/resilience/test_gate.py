import math
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rollout.domain.failure import PATH_LIVES, FailureKind
from rollout.domain.flag import Path
from rollout.resilience.breaker import BreakerRules, BreakerState
from rollout.resilience.gate import Gate
from rollout.resilience.permit import Permit, Refusal
from rollout.resilience.quota import Cap, QuotaLimits, QuotaRecord
from rollout.resilience.scope import LONGEST_REST, PATH_RULES, SHORTEST_REST

UNLIMITED = QuotaLimits(0, 0)
MORNING = 20_000 * 86_400 + 8 * 3600.0
LITELLM, DIRECT = Path.LITELLM, Path.OPENROUTER
A, B, C = "a:free", "b:free", "c:free"
K = FailureKind


@dataclass
class World:
    """A gate, and the time it lives in."""

    limits: QuotaLimits = UNLIMITED
    rules: BreakerRules | None = None
    seconds: float = 1000.0
    saved: list[QuotaRecord] = field(default_factory=list)
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(
            self.limits,
            clock=lambda: self.seconds,
            wall=lambda: MORNING + self.seconds,
            chance=lambda: 0.999_999,
            rules=self.rules,
            store=self,
        )

    def save(self, record: QuotaRecord) -> None:
        self.saved.append(record)

    def attempt(self, model: str = A, path: Path = LITELLM, failure: FailureKind | None = None, **more: Any) -> Permit:
        permit = self.admitted(model, path)
        self.gate.settle(permit, failure, **more)
        return permit

    def admitted(self, model: str = A, path: Path = LITELLM) -> Permit:
        permit = self.gate.admit(path, model)
        assert isinstance(permit, Permit), permit
        return permit

    def refused(self, model: str = A, path: Path = LITELLM) -> Refusal:
        refusal = self.gate.admit(path, model)
        assert isinstance(refusal, Refusal), refusal
        assert self.gate.refusal(path, model) == refusal
        return refusal

    def state(self, path: Path, model: str | None = None) -> BreakerState:
        for line in self.gate.status().breakers:
            if (line.path, line.model) == (path, model):
                return line.status.state
        return BreakerState.CLOSED


def test_a_model_that_keeps_failing_rests_on_its_path_and_nowhere_else() -> None:
    world = World()
    for _ in range(4):
        world.attempt(failure=K.ERROR_FINISH)
    assert world.refused().kind is K.RESTING
    world.admitted(B)
    world.admitted(A, DIRECT)


def test_a_path_that_cannot_be_reached_rests_with_all_of_its_models() -> None:
    world = World()
    for _ in range(4):
        world.attempt(failure=K.UNREACHABLE)
    assert {world.refused(model).kind for model in (A, B, C)} == {K.UNREACHABLE}
    world.admitted(A, DIRECT)


@pytest.mark.parametrize("kind", [K.TIMEOUT, K.SERVER_ERROR])
@pytest.mark.parametrize("path", list(Path))
def test_one_bad_model_asked_by_many_at_once_does_not_take_its_path_with_it(path: Path, kind: FailureKind) -> None:
    world = World()
    for permit in [world.admitted(A, path) for _ in range(50)]:
        world.gate.settle(permit, kind)
    assert world.refused(A, path).kind is K.RESTING
    world.admitted(B, path)


def test_a_gateway_on_which_a_second_model_hangs_too_is_suspected_at_once() -> None:
    world = World()
    for _ in range(4):
        world.attempt(A, failure=K.TIMEOUT)
    world.attempt(B, failure=K.TIMEOUT)
    assert world.refused(C).kind is K.UNREACHABLE


@pytest.mark.parametrize("forgotten_by", ["an answer", "a reset"])
def test_a_suspicion_ends_with_an_answer_or_a_reset(forgotten_by: str) -> None:
    world = World()
    world.attempt(B, failure=K.TIMEOUT)
    if forgotten_by == "an answer":
        world.attempt(C)
    else:
        assert world.gate.reset("litellm") == ["litellm"]
    for _ in range(4):
        world.attempt(A, failure=K.TIMEOUT)
    assert world.state(LITELLM) is BreakerState.CLOSED


def test_the_direct_path_is_suspected_only_when_five_models_fail_with_no_answer_between() -> None:
    world = World()
    for model in (A, B, "d:free", "e:free") * 5:  # on their way since before these models rested
        world.gate.settle(Permit(DIRECT, model), K.SERVER_ERROR)
    world.attempt(C, DIRECT)
    for model in (A, B, "d:free", "e:free") * 5:
        world.gate.settle(Permit(DIRECT, model), K.SERVER_ERROR)
    assert world.state(DIRECT) is BreakerState.CLOSED
    world.attempt(C, DIRECT, K.SERVER_ERROR)
    assert world.state(DIRECT) is BreakerState.OPEN


def test_a_probe_that_could_not_be_sent_says_nothing_of_the_model() -> None:
    world = World()
    for _ in range(4):
        world.attempt(failure=K.EMPTY)
    world.seconds += 31
    for kind in (K.UNREACHABLE, K.CANCELLED, K.DAY_CAP, K.MINUTE_CAP, K.UNAUTHORIZED, K.PAYMENT_REQUIRED, K.REJECTED):
        permit = world.admitted()
        assert permit.model_probe
        world.gate.settle(permit, kind)
        assert world.state(LITELLM, A) is BreakerState.HALF_OPEN
        world.gate.reset("quota")
        world.seconds += 61
    world.attempt()
    assert world.state(LITELLM, A) is BreakerState.CLOSED


def test_a_caller_that_leaves_says_nothing_of_the_path() -> None:
    world = World()
    for _ in range(4):
        world.attempt(failure=K.UNREACHABLE)
    world.seconds += 11
    world.attempt(failure=K.CANCELLED)
    assert world.state(LITELLM) is BreakerState.HALF_OPEN
    assert world.admitted().path_probe


@pytest.mark.parametrize("kind", sorted(PATH_LIVES - {K.DAY_CAP, K.MINUTE_CAP}))
def test_a_refusal_that_only_a_path_that_works_can_bring_closes_its_breaker(kind: FailureKind) -> None:
    world = World()
    for _ in range(4):
        world.attempt(failure=K.UNREACHABLE)
    world.seconds += 11
    world.attempt(failure=kind)
    assert world.state(LITELLM) is BreakerState.CLOSED


def test_a_probe_that_is_out_sends_the_others_away_for_a_moment() -> None:
    world = World()
    for _ in range(4):
        world.attempt(failure=K.UNREACHABLE)
    world.seconds += 11
    permit = world.admitted()
    assert world.refused().retry_after == 1.0
    world.gate.release(permit)
    assert world.admitted().path_probe


@pytest.mark.parametrize("outcome", ["released", "served", "failed"])
def test_a_probe_that_outlives_a_reset_neither_ends_nor_joins_the_next_one(outcome: str) -> None:
    world = World()
    probes = []
    for _ in range(2):
        for _ in range(4):
            world.attempt(failure=K.UNREACHABLE)
        world.seconds += 11
        probes.append(world.admitted())
        if len(probes) == 1:
            world.gate.reset()
    stale, probe = probes
    if outcome == "released":
        world.gate.release(stale)
    else:
        world.gate.settle(stale, None if outcome == "served" else K.UNREACHABLE)
    assert world.state(LITELLM) is BreakerState.HALF_OPEN
    assert world.refused().kind is K.UNREACHABLE
    world.gate.settle(probe, None)
    assert world.state(LITELLM) is BreakerState.CLOSED


def test_a_permit_that_is_lost_does_not_close_a_path_for_good() -> None:
    world = World()
    for _ in range(4):
        world.attempt(failure=K.UNREACHABLE)
    world.seconds += 11
    world.admitted()
    world.seconds += 300
    world.admitted()


@pytest.mark.parametrize(
    ("named", "rest"),
    [(20.0, 20.0), (0.001, SHORTEST_REST), (999_999.0, LONGEST_REST), (math.inf, LONGEST_REST)]
    + [(absurd, 30.0) for absurd in (0.0, -5.0, math.nan)],
)
def test_a_rest_is_as_long_as_the_upstream_asks_where_that_is_sane(named: float, rest: float) -> None:
    world = World()
    for _ in range(4):
        world.attempt(failure=K.RATE_LIMITED, retry_after=named)
    assert world.refused().retry_after == pytest.approx(rest, abs=1e-3)


@pytest.mark.parametrize(
    ("path", "named", "rest"),
    [
        (LITELLM, 90.0, 90.0),
        (LITELLM, 3.0, 3.0),
        (LITELLM, 5000.0, PATH_RULES[LITELLM].longest_open),
        (DIRECT, 20.0, 20.0),
        (DIRECT, 90.0, PATH_RULES[DIRECT].longest_open),  # nothing comes after it
    ],
)
@pytest.mark.parametrize("kind", [K.GATEWAY_COOLDOWN, K.UNREACHABLE])
def test_a_path_rests_as_long_as_was_named_but_no_longer_than_its_rules_allow(
    path: Path, named: float, rest: float, kind: FailureKind
) -> None:
    world = World()
    for _ in range(PATH_RULES[path].consecutive):
        world.attempt(path=path, failure=kind, retry_after=named)
    assert (world.refused(path=path).kind, world.refused(path=path).retry_after) == (K.UNREACHABLE, rest)


def test_a_path_on_which_several_models_ask_for_time_gets_it() -> None:
    world = World()
    for model in (A, A, A, B):
        world.attempt(model, failure=K.SERVER_ERROR, retry_after=90.0)
    assert world.refused(C).retry_after == 90.0


def test_what_one_model_names_is_not_its_paths_time() -> None:
    world = World()
    for _ in range(4):
        world.attempt(failure=K.UNREACHABLE)
    world.seconds += 11
    probe = world.admitted()
    assert probe.path_probe
    world.gate.settle(probe, K.SERVER_ERROR, 90.0)
    assert world.refused(B).retry_after == pytest.approx(20.0, abs=1e-3)  # its own, doubled


def test_a_model_that_is_gone_rests_at_once() -> None:
    world = World()
    world.attempt(failure=K.MODEL_GONE)
    assert (world.refused().kind, world.refused().retry_after) == (K.RESTING, 300.0)
    world.admitted(A, DIRECT)


def test_a_models_schema_that_was_missed_never_makes_it_rest() -> None:
    world = World()
    for _ in range(50):
        world.attempt(failure=K.INVALID_JSON)
    world.admitted()


def test_the_accounts_day_refuses_every_model_on_both_paths_whatever_else_is_in_the_way() -> None:
    world = World(QuotaLimits(0, 9))
    for _ in range(4):
        world.attempt(A, LITELLM, K.UNREACHABLE)
        world.attempt(B, DIRECT, K.EMPTY)
    world.attempt(C, DIRECT, K.DAY_CAP)
    refusals = {world.refused(model, path) for model in (A, B, C) for path in Path}
    assert {refusal.kind for refusal in refusals} == {K.DAY_CAP}
    assert {refusal.retry_after for refusal in refusals} == {16 * 3600.0 - world.seconds}


def test_the_accounts_minute_refuses_every_model_on_both_paths_and_says_when() -> None:
    world = World(QuotaLimits(2, 0))
    world.attempt(A, LITELLM)
    world.attempt(A, DIRECT)
    refusals = {world.refused(model, path) for model in (A, B, C) for path in Path}
    assert [(refusal.kind, refusal.retry_after) for refusal in refusals] == [(K.MINUTE_CAP, 60.0)]


def test_what_the_upstream_says_of_its_minute_counts_for_both_paths() -> None:
    world = World()
    world.attempt(A, LITELLM, K.MINUTE_CAP, retry_after=7.0)
    assert {world.refused(A, path).retry_after for path in Path} == {7.0}
    world.seconds += 7
    world.admitted()


def test_a_refused_attempt_costs_no_quota() -> None:
    world = World(QuotaLimits(0, 100))
    for _ in range(4):
        world.attempt(failure=K.EMPTY)
    for _ in range(10):
        world.refused()
    assert world.gate.status().quota.used_today == 4


def test_what_was_never_sent_costs_no_quota() -> None:
    world = World(QuotaLimits(20, 50))
    for _ in range(3):
        world.attempt(failure=K.UNREACHABLE, sent=False)
    world.gate.release(world.admitted(), sent=False)
    assert (world.gate.status().quota.used_today, world.gate.status().quota.used_this_minute) == (0, 0)
    world.gate.release(world.admitted())  # the caller left: it may have been sent
    assert world.gate.status().quota.used_today == 1
    assert world.saved[-1].used == 1


def test_a_model_that_cost_money_is_refused_on_both_paths_until_a_person_forgives_it() -> None:
    world = World()
    assert world.gate.charged(A)
    assert not world.gate.charged(A)
    assert {world.refused(A, path).kind for path in Path} == {K.NOT_FREE}
    assert world.gate.status().quarantined == (A,)
    world.gate.reset()
    assert world.refused().kind is K.NOT_FREE  # closing breakers is not forgiving
    world.gate.forgive([A, B])
    world.admitted(A)
    world.admitted(A, DIRECT)


def test_a_model_that_is_no_longer_free_is_refused_on_both_paths_until_the_list_says_otherwise() -> None:
    world = World()
    world.gate.not_free([A])
    assert {world.refused(A, path).kind for path in Path} == {K.NOT_FREE}
    world.admitted(B)
    world.gate.not_free([])
    world.admitted(A)


@pytest.mark.parametrize(
    ("which", "done"),
    [
        (None, {"litellm", "litellm/a:free", "litellm/b:free", "openrouter/a:free", "quota"}),
        ("litellm", {"litellm"}),
        ("a:free", {"litellm/a:free", "openrouter/a:free"}),
        ("openrouter/a:free", {"openrouter/a:free"}),
        ("quota", {"quota"}),
        ("openrouter", set()),
        ("nobody:free", set()),
    ],
)
def test_a_reset_closes_what_it_names_and_nothing_else(which: str | None, done: set[str]) -> None:
    world = World()
    for model in (A, B):
        for _ in range(4):
            world.attempt(model, failure=K.EMPTY)
    world.attempt(C)
    for _ in range(4):
        world.attempt(C, failure=K.UNREACHABLE)
        world.attempt(A, DIRECT, K.EMPTY)
    world.attempt(B, DIRECT, K.DAY_CAP)
    before = {name for name, line in named(world).items() if line is not BreakerState.CLOSED}
    assert set(world.gate.reset(which)) == done
    after = {name for name, line in named(world).items() if line is not BreakerState.CLOSED}
    assert after == before - done
    assert (world.gate.status().quota.blocked_until is None) is ("quota" in done)


@pytest.mark.parametrize("which", [None, "quota"])
def test_only_a_cap_that_is_there_is_reset(which: str | None) -> None:
    world = World(QuotaLimits(20, 3))
    world.attempt()
    world.attempt()
    assert world.gate.reset(which) == []
    world.attempt()
    assert (world.refused().kind, world.gate.reset(which)) == (K.DAY_CAP, ["quota"])
    world.attempt(failure=K.MINUTE_CAP, retry_after=7.0)
    assert (world.refused().kind, world.gate.reset(which)) == (K.MINUTE_CAP, ["quota"])
    world.attempt(failure=K.MINUTE_CAP, retry_after=7.0)
    world.seconds += 7
    assert world.gate.reset(which) == [], "it is over"


def test_a_cap_that_the_upstream_names_for_the_minute_can_be_seen() -> None:
    world = World()
    world.attempt(failure=K.MINUTE_CAP, retry_after=7.0)
    quota = world.gate.status().quota
    assert (quota.blocked_until, quota.blocked_by) == (MORNING + 1007.0, Cap.MINUTE)


def test_what_is_left_of_the_retries_can_be_seen() -> None:
    world = World()
    assert world.gate.status().retries == 2.0
    assert [world.gate.may_retry() for _ in range(3)] == [True, True, False]
    assert world.gate.status().retries == 0.0
    world.seconds += 5
    assert world.gate.status().retries == pytest.approx(0.5)


def named(world: World) -> dict[str, BreakerState]:
    lines = world.gate.status().breakers
    return {f"{line.path}/{line.model}" if line.model else str(line.path): line.status.state for line in lines}


def test_where_nothing_is_limited_only_what_the_upstream_says_is_kept() -> None:
    world = World()
    world.attempt()
    assert world.saved == []
    world.attempt(failure=K.DAY_CAP)
    assert world.saved[-1].blocked_until > MORNING


def test_the_quota_is_kept_whenever_it_changes() -> None:
    world = World(QuotaLimits(20, 50))
    world.attempt()
    world.attempt(failure=K.DAY_CAP)
    world.gate.told_of_use(used=40, per_day=1000)
    record = world.saved[-1]
    assert (record.used, len(record.moments)) == (40, 2)
    assert record.blocked_until > MORNING
    again = World(QuotaLimits(20, 1000))
    again.gate = Gate(
        again.limits, clock=lambda: 0.0, wall=lambda: MORNING + 1001, chance=lambda: 0.0, record=record, store=None
    )
    assert again.refused().kind is K.DAY_CAP


def together(threads: int, work: Any) -> list[Any]:
    """Run the same work in many threads that start at once; return what each returned."""
    barrier, brought = threading.Barrier(threads), [None] * threads

    def run(index: int) -> None:
        barrier.wait()
        brought[index] = work(index)

    running = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    return brought


def test_of_many_threads_exactly_one_probes() -> None:
    world = World()
    for _ in range(4):
        world.attempt(A, failure=K.EMPTY)
    for _ in range(PATH_RULES[DIRECT].consecutive):
        world.attempt(B, DIRECT, K.UNREACHABLE)
    for _ in range(20):
        world.seconds += 400
        for path, model in ((LITELLM, A), (DIRECT, C)):
            admitted = together(16, lambda _, path=path, model=model: world.gate.admit(path, model))
            permits = [each for each in admitted if isinstance(each, Permit)]
            assert len(permits) == 1
            assert permits[0].model_probe or permits[0].path_probe
            world.gate.settle(permits[0], K.UNREACHABLE if path is DIRECT else K.EMPTY)


def test_many_threads_never_overrun_the_quota() -> None:
    world = World(QuotaLimits(20, 100))
    taken = []
    for _ in range(7):

        def ask(index: int) -> int:
            granted = 0
            for each in range(10):
                permit = world.gate.admit(list(Path)[index % 2], f"{each % 3}:free")
                if isinstance(permit, Permit):
                    granted += 1
                    world.gate.settle(permit, None)
            return granted

        taken.append(sum(together(8, ask)))
        world.seconds += 60
    assert taken == [20, 20, 20, 20, 20, 0, 0]


class AnyGate(RuleBasedStateMachine):
    """Attempts that overlap, on two paths and three models, with every outcome, an operator, and passing time."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(QuotaLimits(6, 60))
        self.out: list[Permit] = []

    @rule(path=st.sampled_from(Path), model=st.sampled_from((A, B, C)))
    def one_asks(self, path: Path, model: str) -> None:
        before = self.world.gate.refusal(path, model)
        admitted = self.world.gate.admit(path, model)
        if isinstance(admitted, Permit):
            assert before is None
            self.out.append(admitted)
        else:
            assert admitted == before
            assert 0 <= admitted.retry_after < math.inf
            assert admitted.detail

    @precondition(lambda self: self.out)
    @rule(
        data=st.data(),
        failure=st.sampled_from([None, None, *FailureKind]),
        retry_after=st.one_of(st.none(), st.floats(), st.floats(0, 60)),
        sent=st.booleans(),
    )
    def one_comes_back(self, data: Any, failure: FailureKind | None, retry_after: float | None, sent: bool) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.world.gate.settle(permit, failure, retry_after, sent=sent or failure is not K.UNREACHABLE)

    @precondition(lambda self: self.out)
    @rule()
    def one_leaves(self) -> None:
        self.world.gate.release(self.out.pop())

    @rule(seconds=st.one_of(st.floats(0, 30), st.just(100.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.seconds += seconds

    @precondition(lambda self: not any(each.path_probe or each.model_probe for each in self.out))
    @rule(which=st.sampled_from((None, "litellm", "a:free", "quota")))
    def an_operator_resets(self, which: str | None) -> None:
        self.world.gate.reset(which)

    @invariant()
    def at_most_one_probes_each(self) -> None:
        if self.world.seconds > 1250:  # a probe may have been given up
            return
        for path in Path:
            assert sum(bool(each.path_probe) for each in self.out if each.path is path) <= 1
            for model in (A, B, C):
                here = [each for each in self.out if (each.path, each.model) == (path, model)]
                assert sum(bool(each.model_probe) for each in here) <= 1

    @invariant()
    def its_status_is_consistent(self) -> None:
        status = self.world.gate.status()
        assert [line.path for line in status.breakers if line.model is None] == list(Path)
        for line in status.breakers:
            assert (line.status.opens_in is None) is (line.status.state is BreakerState.CLOSED)
            assert 0 <= (line.status.opens_in or 0.0) <= LONGEST_REST + 1e-6  # a sum of floats, taken apart again
        assert status.quota.used_this_minute is not None
        assert status.quota.used_this_minute <= 6
        assert 0 <= status.retries <= 10

    @invariant()
    def ten_minutes_of_quiet_make_all_of_it_possible_again(self) -> None:
        if self.out or self.world.gate.status().quota.left_today == 0:
            return
        if self.world.gate.status().quota.blocked_until is not None:
            return
        then = self.world.seconds
        self.world.seconds += 600
        assert all(self.world.gate.refusal(path, model) is None for path in Path for model in (A, B, C))
        self.world.seconds = then


TestAnyGate = AnyGate.TestCase
