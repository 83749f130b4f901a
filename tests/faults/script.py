"""What a cell asks, and what the upstream plays to it."""

from __future__ import annotations

from typing import Any, Final

from rollout.simulator import Fault
from tests.faults.rows import FIRST, GATEWAY_ONLY, ONCE, Cell, Row
from tests.faults.upstreams import MODELS

_SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
}
_ENDLESS: Final = {"type": "object", "properties": {"again": {"$ref": "#"}}, "required": ["again"]}


def fault_of(cell: Cell) -> Fault | None:
    """Return what the upstream plays to a cell's user."""
    row = cell.row
    if row.kind is None:
        return None
    return Fault(
        row.kind,
        user=cell.id,
        model=MODELS[0] if row.meets == FIRST else None,
        via="litellm" if row.meets == GATEWAY_ONLY else None,
        first=1 if row.meets == ONCE else None,
        **row.parameters,
    )


def response_format_of(row: Row) -> dict[str, Any] | None:
    """Return the `response_format` a row asks for."""
    if row.asks == "text":
        return None
    schema = _SCHEMA if row.asks == "schema" else _ENDLESS
    return {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
