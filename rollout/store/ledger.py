"""Read the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Select, func, select

from rollout.domain.errors import NotFound, StoreFailed
from rollout.domain.identity import user_id
from rollout.domain.ledger import Entry, PersonalRow, SealedEntry, instant, unseal
from rollout.domain.verification import Verification, verify
from rollout.store import tables

_CHUNK = 500

HEAD_IS_GONE: Final = "the ledger's head row is gone; restore a backup and run `rollout audit verify`"


@dataclass(frozen=True, slots=True)
class Head:
    """The ledger's end: revision 0 before the first entry."""

    revision: int
    digest: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries to list; a field that is None (or empty) does not filter.

    `subject` matches exactly, `action` by its beginning (`flag:` for everything about flags), `user` entries
    whose personal data is that user id, read as every way in reads it.
    """

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    user: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def read_head(connection: Connection) -> Head:
    """Return the ledger's head row.

    Raises:
        StoreFailed: somebody removed it.
    """
    row = connection.execute(
        select(tables.head.c.revision, tables.head.c.digest).where(tables.head.c.one == 1)
    ).one_or_none()
    if row is None:
        raise StoreFailed(HEAD_IS_GONE)
    return Head(row.revision, row.digest)


def read_entry(connection: Connection, revision: int) -> SealedEntry:
    """Return one entry as it lies in the store.

    Raises:
        NotFound: there is no such revision.
    """
    for sealed in _sealed(connection, select(tables.ledger).where(tables.ledger.c.revision == revision)):
        return sealed
    raise NotFound(f"the ledger has no entry {revision}")


def list_entries(
    connection: Connection, wanted: AuditFilter, *, before: int | None = None, after: int = 0, limit: int = 50
) -> list[Entry]:
    """List entries, newest first.

    Args:
        connection: an open read transaction.
        wanted: the filter.
        before: only entries older than this revision, for paging.
        after: only entries newer than this revision.
        limit: at most so many.
    """
    ledger = tables.ledger.c
    query = select(tables.ledger).where(ledger.revision > after)
    if before is not None:
        query = query.where(ledger.revision < before)
    if wanted.actor:
        query = query.where(ledger.actor == wanted.actor)
    if wanted.action:
        query = query.where(func.substr(ledger.action, 1, len(wanted.action)) == wanted.action)
    if wanted.subject:
        query = query.where(ledger.subject == wanted.subject)
    if wanted.since:
        query = query.where(ledger.at >= instant(wanted.since))
    if wanted.until:
        query = query.where(ledger.at <= instant(wanted.until))
    if wanted.user:
        personal = tables.ledger_personal.c
        users = [wanted.user, user_id(wanted.user)]  # an entry made before ids were trimmed has it as it was given
        query = query.where(
            ledger.revision.in_(
                select(personal.revision).where(personal.value.in_(users), personal.field.like("%.user"))
            )
        )
    query = query.order_by(ledger.revision.desc()).limit(limit)
    return [unseal(sealed) for sealed in _sealed(connection, query)]


def verify_ledger(connection: Connection) -> Verification:
    """Walk the whole chain against the head row."""
    head = read_head(connection)
    installation = connection.execute(select(tables.installation.c.id)).scalar_one_or_none() or ""
    return verify(
        sealed_entries(connection), head_revision=head.revision, head_digest=head.digest, installation=installation
    )


def sealed_entries(connection: Connection) -> Iterator[SealedEntry]:
    """Yield every entry in revision order, a few hundred in memory at a time."""
    after = None
    while True:
        query = select(tables.ledger).order_by(tables.ledger.c.revision).limit(_CHUNK)
        if after is not None:
            query = query.where(tables.ledger.c.revision > after)
        chunk = _sealed(connection, query)
        if not chunk:
            return
        yield from chunk
        after = chunk[-1].revision


def _sealed(connection: Connection, query: Select[tuple[object, ...]]) -> list[SealedEntry]:
    rows = connection.execute(query).all()
    if not rows:
        return []
    personal: dict[int, list[PersonalRow]] = {}
    beside = tables.ledger_personal
    for row in connection.execute(
        select(beside).where(beside.c.revision.in_([row.revision for row in rows])).order_by(beside.c.field)
    ):
        personal.setdefault(row.revision, []).append(PersonalRow(row.field, row.salt, row.value))
    return [
        SealedEntry(
            revision=row.revision,
            at=row.at,
            actor=row.actor,
            action=row.action,
            subject=row.subject,
            text=row.text,
            previous_digest=row.previous_digest,
            digest=row.digest,
            personal=tuple(personal.get(row.revision, ())),
        )
        for row in rows
    ]
