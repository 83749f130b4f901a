"""The one door for writes.

A transaction locks the head row before it reads anything, so writers queue up and every entry follows the one
before it: revisions are gapless and in commit order, on both databases and from any number of processes. It
commits only when every change came with a ledger entry.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, text, update
from sqlalchemy.engine import CursorResult
from sqlalchemy.sql import Executable

from rollout.domain.errors import StoreFailed
from rollout.domain.ledger import Action, Entry, SealedEntry, instant, parse_instant, seal, unseal
from rollout.store import tables
from rollout.store.engine import WRITE, reading, translating
from rollout.store.ledger import HEAD_IS_GONE

CHANNEL = "rollout_ledger"
"""PostgreSQL's notification channel; its payload is the new revision."""


_PATIENCE = text(
    "SELECT set_config('lock_timeout', '15s', true), set_config('statement_timeout', '15s', true), "
    "set_config('idle_in_transaction_session_timeout', '15s', true)"
)


def utc_now() -> datetime:
    """Return the time as every writer takes it unless told otherwise."""
    return datetime.now(UTC)


def new_salt() -> str:
    """Return 128 random bits as text, the salt of one commitment."""
    return secrets.token_hex(16)


class Writing:
    """One open write transaction: read under the lock, change, record.

    `now` is the transaction's one moment, by the clock: what expires is measured with it. An entry's own time never
    lies before that of the entry before it, so the ledger's times are in the order of its revisions even when a
    machine's clock went back; one that was ahead once moves the entries that follow, and nothing else.
    """

    def __init__(self, connection: Connection, *, now: datetime, salts: Callable[[], str]) -> None:
        self.connection = connection
        self._salts = salts
        if connection.dialect.name == "postgresql":
            # a writer that hangs, or whose machine is gone, must not keep the lock from a kill
            connection.execute(_PATIENCE)
        head = connection.execute(select(tables.head).where(tables.head.c.one == 1).with_for_update()).one_or_none()
        if head is None:
            raise StoreFailed(HEAD_IS_GONE)
        self._revision: int = head.revision
        self._digest: str = head.digest
        self.now = now
        self._at = max(now, parse_instant(head.at)) if head.at else now
        row = connection.execute(select(tables.installation.c.id)).one_or_none()
        self.installation: str | None = row.id if row else None
        self._changed = self._recorded = False

    @property
    def next_revision(self) -> int:
        """Return the revision that the next entry recorded will have."""
        return self._revision + 1

    @property
    def unrecorded(self) -> bool:
        """Whether something was changed and not yet recorded."""
        return self._changed and not self._recorded

    def change(self, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None) -> CursorResult[Any]:
        """Execute one changing statement, for each of many rows if there are some.

        Without an entry in the same transaction the door will not close on it.
        """
        self._changed = True
        return self.connection.execute(statement, rows)

    def record(
        self, actor: str, action: Action, subject: str, *, before: Any, after: Any, reason: str | None = None
    ) -> Entry:
        """Write the entry for what was changed; it has the revision `next_revision` named."""
        return unseal(self.record_many(actor, action, subject, [(before, after)], reason=reason)[0])

    def record_many(
        self,
        actor: str,
        action: Action,
        subject: str,
        changes: Sequence[tuple[Any, Any]],
        *,
        reason: str | None = None,
    ) -> list[SealedEntry]:
        """Write one entry for each change, (before, after), in their order, all of one moment."""
        sealed = [self._sealed(actor, action, subject, before, after, reason) for before, after in changes]
        if not sealed:
            return []
        columns = ("revision", "at", "actor", "action", "subject", "text", "previous_digest", "digest")
        self.connection.execute(
            insert(tables.ledger), [{name: getattr(each, name) for name in columns} for each in sealed]
        )
        personal = [
            {"revision": each.revision, "field": row.field, "salt": row.salt, "value": row.value}
            for each in sealed
            for row in each.personal
        ]
        if personal:
            self.connection.execute(insert(tables.ledger_personal), personal)
        self.connection.execute(
            update(tables.head)
            .where(tables.head.c.one == 1)
            .values(revision=self._revision, digest=self._digest, at=instant(self._at))
        )
        if self.connection.dialect.name == "postgresql":
            # delivered by the database at commit, never before
            revision = {"revision": str(self._revision)}
            self.connection.execute(text(f"SELECT pg_notify('{CHANNEL}', :revision)"), revision)
        self._recorded = True
        return sealed

    def _sealed(
        self, actor: str, action: Action, subject: str, before: Any, after: Any, reason: str | None
    ) -> SealedEntry:
        if self.installation is None:
            raise StoreFailed("this database holds no installation yet; start the server once")
        sealed = seal(
            installation=self.installation,
            revision=self._revision + 1,
            at=self._at,
            actor=actor,
            action=action,
            subject=subject,
            before=before,
            after=after,
            reason=reason,
            previous_digest=self._digest,
            new_salt=self._salts,
        )
        self._revision, self._digest = sealed.revision, sealed.digest
        return sealed


@dataclass(frozen=True, slots=True)
class Door:
    """A database with the world its writers need: a clock and salts."""

    engine: Engine
    clock: Callable[[], datetime] = field(default=utc_now)
    salts: Callable[[], str] = field(default=new_salt)

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Open the door; leaving the block commits, an exception rolls back.

        A row that names its entry is written after that entry: foreign keys are checked at each statement.

        Raises:
            StoreFailed: something was changed and not recorded.
            StoreUnreachable: the database does not answer.
        """
        with (
            translating(self.engine),
            self.engine.connect().execution_options(**{WRITE: True}) as connection,
            connection.begin(),
        ):
            writing = Writing(connection, now=self.clock(), salts=self.salts)
            yield writing
            if writing.unrecorded:
                raise StoreFailed("a change without a ledger entry was refused; this is a fault in the program")

    @contextmanager
    def together(self) -> Iterator[Door]:
        """Open the door once for many changes: all that goes through the one yielded is one transaction."""
        with self.writing() as writing:
            yield _Together(self.engine, self.clock, self.salts, open=writing)

    @contextmanager
    def noting(self) -> Iterator[Connection]:
        """Write down what was observed, such as when something was last used, in one transaction.

        Nothing decides by it, so it comes without a ledger entry; leaving the block commits.

        Raises:
            StoreUnreachable: the database does not answer.
        """
        with (
            translating(self.engine),
            self.engine.connect().execution_options(**{WRITE: True}) as connection,
            connection.begin(),
        ):
            if connection.dialect.name == "postgresql":
                connection.execute(_PATIENCE)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read in one transaction, so that everything read belongs together."""
        with reading(self.engine) as connection:
            yield connection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Together(Door):
    """A door that stands open: what is written through it is committed by whoever opened it."""

    open: Writing

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Write in the transaction that is open."""
        yield self.open

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Read in the transaction that is open."""
        yield self.open.connection
