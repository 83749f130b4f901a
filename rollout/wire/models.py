"""What the upstream says of its models and of our account: `GET /models` and `GET /key`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from rollout.domain.cascade import ListedModel
from rollout.domain.errors import InvalidRequest, InvalidValue
from rollout.domain.identity import FREE_SUFFIX, check_cascade

_FREE_TIER_PER_DAY: Final = 50  # an account that never bought ten credits
_PAID_TIER_PER_DAY: Final = 1_000


class DailyUse(NamedTuple):
    """The account's free requests of today; 0 is no limit, None is not said."""

    used: int | None = None
    limit: int | None = None


def decode_models(body: bytes | str) -> tuple[ListedModel, ...]:
    """Read a model list; entries that cannot be read are left out.

    A model is free where its id ends in `:free` and every price it names is 0; prices come as text.

    Raises:
        InvalidRequest: the document is no model list.
    """
    try:
        document = json.loads(body)
        entries = document["data"]
        if not isinstance(entries, list):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidRequest("the upstream's answer is no model list") from None
    return tuple(_listed(entry) for entry in entries if isinstance(entry, dict) and _is_model_id(entry.get("id")))


def decode_key(body: bytes | str) -> DailyUse:
    """Read what the upstream says of our key; whatever cannot be read is not said.

    Where it does not count free requests, whether the account ever bought credits tells the limit.
    """
    try:
        document = json.loads(body)["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return DailyUse()
    if not isinstance(document, dict):
        return DailyUse()
    daily = document.get("free_model_daily_requests")
    if isinstance(daily, dict) and "limit" in daily:
        limit = daily["limit"]
        return DailyUse(_count(daily.get("used")), 0 if limit is None else _count(limit))
    tier = document.get("is_free_tier")
    by_tier = {True: _FREE_TIER_PER_DAY, False: _PAID_TIER_PER_DAY}
    return DailyUse(limit=by_tier[tier] if isinstance(tier, bool) else None)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None


def _is_model_id(text: object) -> bool:
    try:
        check_cascade([text], allow_paid=True)
    except InvalidValue:
        return False  # one that no cascade could hold
    return True


def _listed(entry: Mapping[str, Any]) -> ListedModel:
    pricing = entry.get("pricing")
    parameters = entry.get("supported_parameters")
    context = entry.get("context_length")
    prices = list(pricing.values()) if isinstance(pricing, dict) else []
    return ListedModel(
        id=entry["id"],
        # no price named is no proof
        free=entry["id"].endswith(FREE_SUFFIX) and bool(prices) and all(map(_is_zero, prices)),
        tools=isinstance(parameters, list) and "tools" in parameters,
        context_length=context if type(context) is int else 0,
        expires=_day(entry.get("expiration_date")),
    )


def _day(written: object) -> date | None:
    """Read a day, or the UTC day of a moment; None where it is neither: nobody is withdrawn by a misprint."""
    if not isinstance(written, str):
        return None
    try:
        moment = datetime.fromisoformat(written)
        return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date()
    except (ValueError, OverflowError):
        return None


def _is_zero(price: object) -> bool:
    if type(price) not in {str, int, float}:
        return False
    try:
        return Decimal(str(price)) == 0
    except ArithmeticError:
        return False
