"""The installation's own row: who this database belongs to, written once."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from rollout.domain.ledger import instant
from rollout.store import tables
from rollout.store.door import Writing


def insert_installation(writing: Writing, identity: str) -> None:
    """Name the installation; every entry after this carries its id."""
    writing.change(insert(tables.installation).values(one=1, id=identity, created_at=instant(writing.now)))
    writing.installation = identity


def read_installation(connection: Connection) -> str:
    """Return the installation's id, empty before the first start."""
    return connection.execute(select(tables.installation.c.id)).scalar_one_or_none() or ""
