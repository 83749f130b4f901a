"""Percentages and shares: exact, or refused."""

import decimal
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.errors import InvalidValue
from rollout.domain.share import WHOLE, parse_percentage, percentage_of, percentage_text


@given(st.integers(0, WHOLE))
def test_every_share_survives_being_said_as_a_percentage(share: int) -> None:
    assert parse_percentage(percentage_of(share)) == share
    assert parse_percentage(percentage_text(share)) == share
    assert parse_percentage(str(percentage_of(share)).replace(".", ",")) == share


@pytest.mark.parametrize(
    ("said", "share"),
    [(0, 0), (100, WHOLE), ("100", WHOLE), (12.5, 12_500), ("0.001", 1), (" 50 % ", 50_000),
     (Decimal("99.999"), 99_999), ("1e1", 10_000), (-0.0, 0), ("+5", 5_000), (0.1, 100), (33.333, 33_333)],
)  # fmt: skip
def test_what_people_write_is_taken_exactly(said: object, share: int) -> None:
    assert parse_percentage(said) == share


@pytest.mark.parametrize(
    "said",
    [-0.001, 100.001, "101", float("nan"), float("inf"), "NaN", "-inf", "", " ", "%", "ten", "1 0", "1_0", "1e400",
     "1e-400", 0.0005, "0.0001", "٥", True, False, None, [], {}, b"5", "5" * 41, 1 / 3, "1.000.000", "1,5,0", 10**30],
)  # fmt: skip
def test_what_is_no_percentage_is_refused_in_a_sentence(said: object) -> None:
    with pytest.raises(InvalidValue, match="percentage") as refused:
        parse_percentage(said)
    assert refused.value.field == "percentage"
    assert len(refused.value.message) < 200


@given(st.text(max_size=50) | st.floats() | st.integers() | st.decimals())
def test_anything_is_a_share_or_refused(said: object) -> None:
    try:
        assert 0 <= parse_percentage(said) <= WHOLE
    except InvalidValue:
        return


def test_whole_percentages_are_said_without_a_fraction() -> None:
    assert [percentage_text(share) for share in (0, 1, 12_500, 100_000)] == ["0 %", "0.001 %", "12.5 %", "100 %"]


HOSTS = {
    "three digits": decimal.Context(prec=3),
    "one digit, rounded up": decimal.Context(prec=1, rounding=decimal.ROUND_UP),
    "every signal raises": decimal.Context(prec=3, traps=list(decimal.Context().flags)),
    "no signal raises": decimal.Context(prec=3, traps=[]),
    "small exponents": decimal.Context(prec=3, Emin=-1, Emax=1, clamp=1),
}


@pytest.mark.parametrize("host", HOSTS)
@given(share=st.integers(0, WHOLE))
def test_the_host_applications_decimal_context_changes_no_share(host: str, share: int) -> None:
    with decimal.localcontext(HOSTS[host]):
        assert parse_percentage(percentage_of(share)) == share
        assert parse_percentage(f"{share / 1000:.3f}") == share


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "text", ["NaN", "sNaN", "inf", "-0.001", "100.001", "12.3456", "1e-999999999", "1e999999999", "x"]
)
def test_no_decimal_context_makes_a_bad_percentage_anything_but_refused(host: str, text: str) -> None:
    with decimal.localcontext(HOSTS[host]), pytest.raises(InvalidValue):
        parse_percentage(text)
