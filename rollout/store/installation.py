"""The installation's own row: who this database belongs to, written once."""

from __future__ import annotations

from sqlalchemy import insert

from rollout.domain.ledger import instant
from rollout.store import tables
from rollout.store.door import Writing


def insert_installation(writing: Writing, identity: str) -> None:
    """Name the installation; every entry after this carries its id."""
    writing.change(insert(tables.installation).values(one=1, id=identity, created_at=instant(writing.now)))
    writing.installation = identity
