from rollout.domain.failure import (
    GATEWAY_FAULTS,
    MODEL_FAULTS,
    MODEL_LIVES,
    PATH_FAULTS,
    PATH_LIVES,
    PERHAPS_THE_MODEL,
    REACTIONS,
    FailureKind,
    Reaction,
)

STOPPING = {kind for kind, reaction in REACTIONS.items() if reaction is Reaction.STOP}


def test_every_kind_has_a_reaction() -> None:
    assert set(REACTIONS) == set(FailureKind)


def test_only_a_wrong_key_of_ours_stops_a_path_and_is_still_rescued() -> None:
    assert {FailureKind.UNAUTHORIZED} == STOPPING & GATEWAY_FAULTS


def test_what_speaks_against_the_gateways_path_is_also_rescued_from_it() -> None:
    assert PATH_FAULTS <= GATEWAY_FAULTS


def test_nothing_speaks_both_for_and_against_a_path_or_a_model() -> None:
    assert not PATH_FAULTS & PATH_LIVES
    assert not MODEL_FAULTS & MODEL_LIVES


def test_what_one_bad_model_may_cause_counts_against_both_the_model_and_the_path() -> None:
    assert PERHAPS_THE_MODEL <= PATH_FAULTS & MODEL_FAULTS


def test_what_concerns_account_caller_or_request_speaks_against_no_model() -> None:
    others = {
        FailureKind.MINUTE_CAP,
        FailureKind.DAY_CAP,
        FailureKind.PAYMENT_REQUIRED,
        FailureKind.UNAUTHORIZED,
        FailureKind.REJECTED,
        FailureKind.CANCELLED,
        FailureKind.UNREACHABLE,
        FailureKind.INVALID_JSON,
    }
    assert not others & MODEL_FAULTS


def test_a_caller_who_leaves_and_a_refusal_of_ours_say_nothing_of_anybody() -> None:
    for said in (PATH_FAULTS, PATH_LIVES, MODEL_FAULTS, MODEL_LIVES, GATEWAY_FAULTS):
        assert not {FailureKind.CANCELLED, FailureKind.RESTING} & said


def test_every_kind_that_asks_for_another_model_speaks_against_something_but_for_a_model_that_refuses() -> None:
    moving = {kind for kind, reaction in REACTIONS.items() if reaction is Reaction.NEXT_MODEL}
    assert moving - (MODEL_FAULTS | PATH_FAULTS) == {FailureKind.MODEL_REFUSED}


def test_an_error_of_the_gateways_own_code_speaks_against_the_gateway_and_no_model() -> None:
    assert FailureKind.GATEWAY_ERROR in GATEWAY_FAULTS & PATH_FAULTS - PERHAPS_THE_MODEL - MODEL_FAULTS


def test_only_the_accounts_minute_is_waited_for() -> None:
    assert [kind for kind, reaction in REACTIONS.items() if reaction is Reaction.WAIT] == [FailureKind.MINUTE_CAP]
