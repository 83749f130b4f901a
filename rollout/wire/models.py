"""The upstream's model list, `GET /models`: which models there are and which cost nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rollout.domain.cascade import ListedModel
from rollout.domain.errors import InvalidRequest, InvalidValue
from rollout.domain.identity import FREE_SUFFIX, check_cascade


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
    )


def _is_zero(price: object) -> bool:
    if type(price) not in {str, int, float}:
        return False
    try:
        return Decimal(str(price)) == 0
    except ArithmeticError:
        return False
