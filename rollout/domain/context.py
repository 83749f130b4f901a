"""Who is asking, as the evaluator sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Context:
    """An evaluation context: the targeting key (the user's id) and attributes for rules."""

    targeting_key: str | None = None
    attributes: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))
