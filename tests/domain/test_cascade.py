"""The first cascade."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.cascade import CASCADE_LENGTH, PLANNED_MODELS, ListedModel, propose_cascade
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
