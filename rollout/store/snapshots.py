"""Read snapshots one after another, each time only what changed.

An installation may force a hundred thousand users, and a kill must cost the same as with none. So overrides are kept
in memory, and of them is read again what the ledger's entries since the last snapshot touched. Flags and the cascade
are few and always read.

An override that has expired is left out, and with it its user's id. The snapshot changes at that moment without an
entry, so its entity tag counts what was left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, TypeVar

from sqlalchemy import Connection, select

from rollout.domain.errors import StoreFailed
from rollout.domain.flag import BrokenFlag, Flag, Override
from rollout.domain.snapshot import Snapshot
from rollout.store import tables
from rollout.store.flags import flag_of_row, flag_rows, override_of_row, read_cascade
from rollout.store.installation import read_installation
from rollout.store.ledger import Head, read_head

_MOST: Final = 2_000
"""So many entries about overrides are followed one by one; after more, everything is read."""

_CHUNK: Final = 500  # values in one statement; SQLite's oldest limit is 999

_T = TypeVar("_T")
_Touched = Mapping[str, set[str]]


def read_snapshot(connection: Connection) -> Snapshot:
    """Return everything a client needs, all of one moment, expired overrides included."""
    return SnapshotReader().read(connection)


class SnapshotReader:
    """Reads an installation's snapshots; one thread at a time."""

    def __init__(self) -> None:
        self._last: Snapshot | None = None
        self._stored: dict[str, dict[str, Override]] = {}
        self._held: dict[str, Mapping[str, Override]] = {}
        self._broken: dict[str, str] = {}
        self._next_end: datetime | None = None  # of those that hold
        self._last_end: datetime | None = None  # of those that were left out

    def read(self, connection: Connection, now: datetime | None = None) -> Snapshot:
        """Read a snapshot, all of one moment.

        Args:
            connection: an open read transaction.
            now: overrides that ended before it are left out; None leaves none out.
        """
        head = read_head(connection)
        installation = read_installation(connection)
        touched = self._touched(connection, head, installation)
        self._last = None  # what fails from here on is read as a whole the next time
        if touched is None:
            self._read_all(connection)
        else:
            for key, users in touched.items():
                self._read_some(connection, key, users)
        self._leave_out(now, touched)
        flags: dict[str, Flag | BrokenFlag] = {}
        for row in flag_rows(connection):
            try:
                if row.key in self._broken:
                    raise StoreFailed(self._broken[row.key])
                flags[row.key] = flag_of_row(row, self._held.get(row.key, {}))
            except StoreFailed as error:
                flags[row.key] = BrokenFlag(row.key, error.message)
        expired = sum(len(self._stored[key]) - len(held) for key, held in self._held.items())
        cascade = read_cascade(connection).live
        self._last = Snapshot(installation, head.revision, head.digest, flags, cascade, expired)
        return self._last

    def is_due(self, now: datetime) -> bool:
        """Tell whether an override has ended since the last snapshot was read, or holds again: a clock may go back."""
        ended = self._next_end is not None and now >= self._next_end
        return ended or (self._last_end is not None and now < self._last_end)

    def _touched(self, connection: Connection, head: Head, installation: str) -> _Touched | None:
        """Return whose overrides entries since the last snapshot touched; None where everything has to be read."""
        last = self._last
        if last is None or self._broken or installation != last.installation or head.revision < last.revision:
            return None
        ledger, personal = tables.ledger.c, tables.ledger_personal.c
        known = connection.execute(select(ledger.digest).where(ledger.revision == last.revision)).scalar_one_or_none()
        if known != last.digest:  # restored from a backup
            return None
        entries = connection.execute(
            select(ledger.revision, ledger.subject)
            .where(ledger.revision > last.revision, ledger.subject.like("override:%"))
            .limit(_MOST + 1)
        ).all()
        if len(entries) > _MOST:
            return None
        keys = {row.revision: str(row.subject).partition(":")[2] for row in entries}
        touched: dict[str, set[str]] = {}
        named: set[int] = set()
        for revisions in _chunks(keys):
            for row in connection.execute(
                select(personal.revision, personal.value).where(
                    personal.revision.in_(revisions), personal.field.in_(["before.user", "after.user"])
                )
            ):
                if row.value is None:  # forgotten since
                    return None
                touched.setdefault(keys[row.revision], set()).add(row.value)
                named.add(row.revision)
        return touched if named == keys.keys() else None

    def _read_all(self, connection: Connection) -> None:
        self._stored, self._held, self._broken = {}, {}, {}
        table = tables.overrides
        for row in connection.execute(select(table).order_by(table.c.user_id)):
            try:
                self._stored.setdefault(row.flag_key, {})[row.user_id] = override_of_row(row)
            except (ValueError, TypeError) as error:
                self._broken[row.flag_key] = f"the flag {row.flag_key!r} cannot be read: its rows hold {error}"

    def _read_some(self, connection: Connection, key: str, users: Iterable[str]) -> None:
        table, stored = tables.overrides, self._stored.setdefault(key, {})
        for some in _chunks(users):
            for user in some:
                stored.pop(user, None)
            for row in connection.execute(select(table).where(table.c.flag_key == key, table.c.user_id.in_(some))):
                try:
                    stored[row.user_id] = override_of_row(row)
                except (ValueError, TypeError) as error:
                    self._broken[key] = f"the flag {key!r} cannot be read: its rows hold {error}"

    def _leave_out(self, now: datetime | None, touched: _Touched | None) -> None:
        """Keep apart what holds now; a flag of which nothing was touched and nothing ended keeps its mapping."""
        every = touched is None or (now is not None and self.is_due(now))
        for key, stored in self._stored.items():
            if every or key in (touched or ()):
                self._held[key] = MappingProxyType(
                    {user: each for user, each in stored.items() if now is None or each.holds(now)}
                )
        if every or touched:
            ends = {each.expires_at for stored in self._stored.values() for each in stored.values() if each.expires_at}
            self._next_end = min((end for end in ends if now is None or end > now), default=None)
            self._last_end = max((end for end in ends if now is not None and end <= now), default=None)


def _chunks(values: Iterable[_T]) -> Iterator[list[_T]]:
    every = list(values)
    for start in range(0, len(every), _CHUNK):
        yield every[start : start + _CHUNK]
