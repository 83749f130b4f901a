"""A flag and what hangs on it: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from rollout.domain.bucketing import HASH_VERSION

MAIN_FLAG: Final = "enableLiteLLM"
"""The flag this product is about; the process's environment can override this one alone."""

PUBLISHED_SALT: Final = "llm-rollout/enableLiteLLM/1"
"""The salt of `enableLiteLLM` where nobody chose another, the same with and without a control plane."""


class Path(StrEnum):
    """Where a decision sends a request."""

    LITELLM = "litellm"
    OPENROUTER = "openrouter"


class Variant(StrEnum):
    """What a flag says of one user; `on` is the gateway."""

    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Override:
    """One user forced on or off, until `expires_at` (aware, UTC) where it is set."""

    variant: Variant
    reason: str | None = None
    expires_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Tell whether the override still applies at a moment."""
        return self.expires_at is None or now < self.expires_at


_NOBODY: Final[Mapping[str, Override]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag as stored.

    `share` is in parts per 100,000. `revision` is the flag's own last ledger entry, overrides not counted.
    `overrides` maps user ids to what is forced on them.
    """

    key: str
    salt: str
    description: str = ""
    enabled: bool = True
    killed: bool = False
    share: int = 0
    hash_version: int = HASH_VERSION
    revision: int = 0
    overrides: Mapping[str, Override] = field(default_factory=lambda: _NOBODY)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by value: a mapping that is only read cannot be pickled itself."""
        values = (getattr(self, each.name) for each in fields(self))
        return type(self), tuple(dict(value) if isinstance(value, Mapping) else value for value in values)


@dataclass(frozen=True, slots=True)
class BrokenFlag:
    """A flag that could not be read, and why; it hurts only itself."""

    key: str
    why: str
