"""The first cascade, what leaves its live order, and what could take its place."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.cascade import (
    CASCADE_LENGTH,
    PLANNED_MODELS,
    Cascade,
    ListChanges,
    ListedModel,
    ModelOut,
    OutReason,
    Withdrawal,
    compare,
    propose_cascade,
    propose_replacements,
)
from rollout.domain.identity import FREE_SUFFIX, check_cascade

EVERY_PLANNED = [ListedModel(name, free=True) for name in PLANNED_MODELS]
listed_models = st.lists(
    st.builds(
        ListedModel,
        st.sampled_from([*PLANNED_MODELS, *(f"other/m{number}{end}" for number in range(6) for end in ("", ":free"))]),
        free=st.booleans(),
        tools=st.booleans(),
        context_length=st.integers(0, 10**6),
    ),
    max_size=20,
)


A, B, C = "one/a:free", "two/b:free", "three/c:free"
NOW = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
CHEAP = ListedModel("any/model:free", free=True)


def listing(*models: str | ListedModel) -> list[ListedModel]:
    """An upstream's list with these in it, and one more that is free."""
    return [CHEAP, *(model if isinstance(model, ListedModel) else ListedModel(model, free=True) for model in models)]


def out(why: OutReason = OutReason.WITHDRAWN) -> ModelOut:
    return ModelOut(why, "gone", NOW)


def test_the_live_order_is_the_cascade_without_what_is_out() -> None:
    cascade = Cascade((A, B, C), 3, {B: out(OutReason.COST), "not/in:free": out()})
    assert cascade.live == (A, C)
    assert cascade.quarantined == {B}


def test_a_list_with_every_model_free_changes_nothing() -> None:
    assert compare([A, B], (), listing(A, B), NOW) == ListChanges()


def test_a_model_is_withdrawn_by_the_second_list_running_that_lacks_it() -> None:
    first = compare([A, B], (), listing(A), NOW)
    assert (first.withdraw, first.missing) == ((), frozenset({B}))
    second = compare([A, B], (), listing(A), NOW, missing_before=first.missing)
    assert second.withdraw == (Withdrawal(B, OutReason.WITHDRAWN, "no longer listed by the upstream"),)
    assert second.missing == frozenset()
    back = compare([A, B], (), listing(A, B), NOW, missing_before=first.missing)
    assert back == ListChanges(), "and one that came back was never away"


def test_the_last_live_model_is_withdrawn_like_any_other() -> None:
    found = compare([A, B], {A}, listing(A), NOW, missing_before={B})
    assert [each.model for each in found.withdraw] == [B]


def test_a_price_takes_a_model_out_at_once_unless_models_may_cost() -> None:
    listed = listing(A, ListedModel(B, free=False))
    (found,) = compare([A, B], (), listed, NOW).withdraw
    assert (found.model, found.why) == (B, OutReason.NOT_FREE)
    assert compare([A, B], (), listed, NOW, allow_paid=True) == ListChanges()
    assert compare([A], (), [ListedModel(A, free=False)], NOW, allow_paid=True) == ListChanges()


@pytest.mark.parametrize(
    ("days", "withdrawn", "warned"),
    [(-400, True, False), (-1, True, False), (0, False, True), (7, False, True), (8, False, False)],
)
def test_a_model_goes_after_its_last_day_and_warns_a_week_before(days: int, withdrawn: bool, warned: bool) -> None:
    last = NOW.date() + timedelta(days=days)
    found = compare([A, B], (), listing(A, ListedModel(B, free=True, expires=last)), NOW)
    assert [each.model for each in found.withdraw] == ([B] if withdrawn else [])
    assert found.ending == (((B, last),) if warned else ())


def test_the_last_day_ends_at_midnight_utc_wherever_the_clock_stands() -> None:
    listed = listing(ListedModel(A, free=True, expires=date(2026, 11, 22)))
    still = datetime(2026, 11, 23, 1, 59, tzinfo=timezone(timedelta(hours=2)))
    assert compare([A], (), listed, still).withdraw == ()
    assert compare([A], (), listed, still + timedelta(minutes=1)).withdraw != ()


@pytest.mark.parametrize("listed", [[], [ListedModel("a/paid", free=False)], [ListedModel(A, free=False)]])
def test_a_list_without_a_free_model_is_no_evidence_against_anybody(listed: list[ListedModel]) -> None:
    found = compare([A, B], (), listed, NOW, missing_before={A, B})
    assert (found.withdraw, found.missing) == ((), frozenset({A, B}))
    assert found.doubt is not None


def test_a_list_that_lacks_every_one_of_several_models_is_another_upstreams() -> None:
    found = compare([A, B, C], {C}, listing(), NOW, missing_before={A, B})
    assert (found.withdraw, found.missing) == ((), frozenset({A, B}))
    assert found.doubt == "the upstream lists none of the cascade's models"


cascades = st.lists(st.sampled_from([A, B, C, *PLANNED_MODELS]), unique=True, max_size=6)
some = st.frozensets(st.sampled_from([A, B, C, *PLANNED_MODELS]))


@given(cascades, some, listed_models, some, st.booleans())
def test_only_live_models_leave_and_each_at_most_once(
    cascade: list[str], gone: frozenset[str], listed: list[ListedModel], before: frozenset[str], paid: bool
) -> None:
    found = compare(cascade, gone, listed, NOW, missing_before=before, allow_paid=paid)
    live = set(cascade) - gone
    left = [each.model for each in found.withdraw]
    assert len(left) == len(set(left))
    assert set(left) | found.missing | {model for model, _ in found.ending} <= live
    assert not found.missing & set(left)
    free = {model.id for model in {each.id: each for each in listed}.values() if model.free}
    assert not free & set(left), "a model that is listed as free, with no last day, stays"


@given(cascades, some, listed_models)
def test_one_list_alone_withdraws_nobody_by_lacking_them(
    cascade: list[str], gone: frozenset[str], listed: list[ListedModel]
) -> None:
    ids = {model.id for model in listed}
    assert {each.model for each in compare(cascade, gone, listed, NOW).withdraw} <= ids


@given(cascades, some, listed_models)
def test_what_takes_a_models_place_is_free_new_and_not_about_to_end(
    cascade: list[str], gone: frozenset[str], listed: list[ListedModel]
) -> None:
    known = Cascade(tuple(cascade), 1, {model: out() for model in gone})
    ending = ListedModel("ends/soon:free", free=True, tools=True, expires=NOW.date())
    found = [model.id for model in propose_replacements(known, [*listed, ending], NOW)]
    assert not {*cascade, *gone, "ends/soon:free"} & set(found)
    assert len(found) <= CASCADE_LENGTH
    if found:
        assert check_cascade(found) == tuple(found)


def test_the_plan_is_kept_while_all_of_it_is_free() -> None:
    more = [ListedModel("other/best:free", free=True, tools=True, context_length=10**6)]
    proposal = propose_cascade([*more, *reversed(EVERY_PLANNED)])
    assert proposal.models == PLANNED_MODELS
    assert proposal.left_out == ()


def test_what_is_gone_or_costs_is_left_out_with_its_reason_and_replaced() -> None:
    first, second, *rest = EVERY_PLANNED
    paid = ListedModel(second.id, free=False)
    spare = [
        ListedModel("other/long:free", free=True, context_length=900),
        ListedModel("other/tools:free", free=True, tools=True, context_length=10),
        ListedModel("other/tools-long:free", free=True, tools=True, context_length=20),
        ListedModel("other/paid:free", free=False, tools=True, context_length=10**6),
        ListedModel("other/unmarked", free=True, tools=True, context_length=10**6),
    ]
    proposal = propose_cascade([paid, *rest, *spare])
    assert proposal.models == (*(model.id for model in rest), "other/tools-long:free", "other/tools:free")
    assert proposal.left_out == (
        (first.id, "no longer listed by the upstream"),
        (second.id, "listed, but no longer free"),
    )


def test_an_upstream_that_lists_nothing_leaves_nothing() -> None:
    proposal = propose_cascade([])
    assert proposal.models == ()
    assert [name for name, _ in proposal.left_out] == list(PLANNED_MODELS)


@given(listed_models)
def test_a_proposal_is_free_distinct_and_short_whatever_is_listed(listed: list[ListedModel]) -> None:
    last = {model.id: model for model in listed}
    proposal = propose_cascade(listed)
    assert len(proposal.models) <= CASCADE_LENGTH
    assert all(last[name].free and name.endswith(FREE_SUFFIX) for name in proposal.models)
    assert {name for name, _ in proposal.left_out} == set(PLANNED_MODELS) - set(proposal.models)
    if proposal.models:
        assert check_cascade(proposal.models) == proposal.models


@given(listed_models)
def test_the_order_of_the_list_does_not_matter(listed: list[ListedModel]) -> None:
    distinct = list({model.id: model for model in listed}.values())
    assert propose_cascade(reversed(distinct)) == propose_cascade(distinct)
