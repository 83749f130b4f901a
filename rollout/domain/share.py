"""Percentages as people write them, shares as the evaluator compares them.

A share is an integer of parts per 100,000, so that 0.001 % is one part and nothing is ever rounded twice.
"""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from typing import Final

from rollout.domain.errors import InvalidValue

WHOLE: Final = 100_000
"""The share that means everybody."""

_PARTS_PER_PERCENT: Final = 1_000

_LONGEST: Final = 40
"""Characters of a percentage's text; nobody needs more."""

# The host application may have set any decimal context: ours alone counts, wide enough that nothing is rounded.
_EXACT: Final = Context(
    prec=_LONGEST + 10, Emin=MIN_EMIN, Emax=MAX_EMAX, clamp=0, traps=[InvalidOperation, Inexact, Overflow]
)


def parse_percentage(value: object, *, field: str = "percentage") -> int:
    """Turn a percentage into a share.

    Args:
        value: a number or its text, 0 to 100 in steps of 0.001; a decimal comma and a trailing `%` are read too.
        field: what to call it in an error.

    Returns:
        Parts per 100,000, from 0 to 100,000.

    Raises:
        InvalidValue: it is no number, outside 0 to 100, or finer than 0.001.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise InvalidValue(f"{field} must be a number from 0 to 100, not {value!r}", field=field)
    text = str(value).strip()
    if isinstance(value, str):
        text = text.removesuffix("%").strip().replace(",", ".")
    if len(text) > _LONGEST or "_" in text or not text.isascii():
        raise InvalidValue(f"{field} must be a number from 0 to 100, not {text[:_LONGEST]!r}", field=field)
    try:
        number = _EXACT.create_decimal(text)
    except DecimalException:
        raise InvalidValue(f"{field} must be a number from 0 to 100, not {text!r}", field=field) from None
    if not number.is_finite() or not 0 <= number <= 100:
        raise InvalidValue(f"{field} must be a number from 0 to 100, not {text!r}", field=field)
    parts = _EXACT.multiply(number, _PARTS_PER_PERCENT)
    if parts != parts.to_integral_value(context=_EXACT):
        raise InvalidValue(f"{field} goes in steps of 0.001, so {text!r} cannot be stored exactly", field=field)
    return int(parts)


def percentage_of(share: int) -> float | int:
    """Say a share as a percentage, an integer where it is whole: 12500 -> 12.5, 10000 -> 10."""
    whole, rest = divmod(share, _PARTS_PER_PERCENT)
    return whole if rest == 0 else share / _PARTS_PER_PERCENT


def percentage_text(share: int) -> str:
    """Say a share for people: `12.5 %`."""
    return f"{percentage_of(share)} %"
