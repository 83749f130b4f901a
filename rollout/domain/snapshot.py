"""All flags of an installation at one revision, as clients hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rollout.domain.flag import BrokenFlag, Flag


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a client needs to decide and send.

    `installation` is the installation's id: two installations are never mixed. `revision` and `digest` are the
    ledger's head the snapshot was read at. `cascade` is the live order: the model ids that are asked, best first.
    `expired` counts the overrides that were left out because they have ended.
    """

    installation: str
    revision: int
    digest: str
    flags: Mapping[str, Flag | BrokenFlag]
    cascade: tuple[str, ...]
    expired: int = 0

    @property
    def etag(self) -> str:
        """Return the strong HTTP entity tag of this snapshot, quotes included."""
        left_out = f".{self.expired}" if self.expired else ""
        return f'"{self.installation}.{self.revision}.{self.digest[:16]}{left_out}"'
