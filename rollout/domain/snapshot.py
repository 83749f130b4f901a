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
    """

    installation: str
    revision: int
    digest: str
    flags: Mapping[str, Flag | BrokenFlag]
    cascade: tuple[str, ...]

    @property
    def etag(self) -> str:
        """Return the strong HTTP entity tag of this snapshot, quotes included."""
        return f'"{self.installation}.{self.revision}.{self.digest[:16]}"'
