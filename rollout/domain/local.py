"""What one process's environment says of `enableLiteLLM`, as a value; reading it is a higher floor's work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class LocalOverrides:
    """Overrides of one process; None means the environment is silent.

    `share` is in parts per 100,000. `killed` covers the variable and the kill file alike. `problems` are
    sentences about values that could not be read; each of those has already failed safe in the other fields.
    """

    killed: bool = False
    enabled: bool | None = None
    share: int | None = None
    force_users: frozenset[str] = frozenset()
    problems: tuple[str, ...] = field(default=())

    @property
    def silent(self) -> bool:
        """Whether this process follows the stored flag in everything."""
        return not self.killed and self.enabled is None and self.share is None and not self.force_users


SILENT: Final = LocalOverrides()
