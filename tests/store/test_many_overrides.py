"""Very many forced users: what a change reads and writes does not depend on them, and who has expired leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine, event

from rollout.control.flags import (
    FlagChange,
    change_flag,
    kill,
    restore,
    set_override,
    set_overrides,
    unset_override,
)
from rollout.domain.errors import InvalidValue, NotFound
from rollout.domain.flag import MAIN_FLAG, BrokenFlag, Flag, Override, Variant
from rollout.domain.ledger import ERASED
from rollout.domain.snapshot import Snapshot
from rollout.store.door import Door
from rollout.store.flags import FEW, read_flag, read_flag_alone, with_few_overrides
from rollout.store.ledger import AuditFilter, list_entries, read_head, verify_ledger
from rollout.store.snapshots import SnapshotReader, read_snapshot
from rollout.wire.snapshot import Encoder, encode
from tests.databases import START, Clock, Database

ON, OFF = Override(Variant.ON, "imported"), Override(Variant.OFF)
MANY = 2_500  # more than one batch of everything


@contextmanager
def counted(engine: Engine) -> Iterator[list[int]]:
    """Count statements, and the rows that were read of overrides."""
    counts = [0, 0]

    def executed(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        counts[0] += 1
        if "FROM overrides" in statement and statement.startswith("SELECT"):
            counts[1] += 1

    event.listen(engine, "after_cursor_execute", executed)
    yield counts
    event.remove(engine, "after_cursor_execute", executed)


def forced(number: int, override: Override = ON) -> dict[str, Override | None]:
    return {f"user-{each:05}": override for each in range(number)}


def reads(door: Door, reader: SnapshotReader, now: datetime | None = None) -> Snapshot:
    with door.reading() as connection:
        return reader.read(connection, now)


def stored(snapshot: Snapshot) -> Flag:
    flag = snapshot.flags[MAIN_FLAG]
    assert isinstance(flag, Flag)
    return flag


def test_many_are_forced_in_one_transaction_with_an_entry_each(door: Door) -> None:
    with door.reading() as connection:
        before = read_head(connection).revision
    set_overrides(door, MAIN_FLAG, forced(MANY), actor="eva")
    with door.reading() as connection:
        assert read_head(connection).revision == before + MANY
        assert len(read_flag(connection, MAIN_FLAG).overrides) == MANY
        assert verify_ledger(connection).ok
        (entry,) = list_entries(connection, AuditFilter(user="user-00042"))
        assert (entry.actor, entry.after["user"], entry.reason) == ("eva", "user-00042", "imported")
    set_overrides(door, MAIN_FLAG, forced(MANY), actor="eva")  # nothing differs, so nothing is written
    changes = forced(10, OFF) | {"user-00010": None, "nobody": None}
    set_overrides(door, MAIN_FLAG, changes, actor="jan", reason="tidy")
    with door.reading() as connection:
        assert read_head(connection).revision == before + MANY + 11
        overrides = read_flag(connection, MAIN_FLAG).overrides
        assert (len(overrides), overrides["user-00009"], overrides["user-00011"]) == (MANY - 1, OFF, ON)
        assert verify_ledger(connection).ok


def test_of_many_one_that_cannot_be_stored_leaves_all_out(door: Door) -> None:
    past = Override(Variant.ON, None, START - timedelta(days=1))
    with pytest.raises(InvalidValue, match="past"):
        set_overrides(door, MAIN_FLAG, forced(MANY) | {"last": past}, actor="eva")
    with pytest.raises(NotFound):
        set_overrides(door, "other", forced(3), actor="eva")
    with door.reading() as connection:
        assert read_flag(connection, MAIN_FLAG).overrides == {}
        assert verify_ledger(connection).ok


def test_changes_through_a_door_that_stands_open_are_made_together_or_not_at_all(door: Door) -> None:
    def halfway() -> None:
        with door.together() as together:
            set_override(together, MAIN_FLAG, "ada", Variant.ON, actor="eva")
            change_flag(together, MAIN_FLAG, FlagChange(share=5), actor="eva")
            kill(together, "other", actor="eva")

    with pytest.raises(NotFound):
        halfway()
    with door.reading() as connection:
        assert (read_head(connection).revision, read_flag(connection, MAIN_FLAG).share) == (2, 0)
    with door.together() as together:
        set_override(together, MAIN_FLAG, "ada", Variant.ON, actor="eva")
        change_flag(together, MAIN_FLAG, FlagChange(share=5), actor="eva")
        with together.reading() as connection:
            assert list(read_flag(connection, MAIN_FLAG).overrides) == ["ada"]
    with door.reading() as connection:
        assert (read_head(connection).revision, read_flag(connection, MAIN_FLAG).share) == (4, 5)
        assert verify_ledger(connection).ok


def test_no_change_reads_what_it_does_not_change(door: Door, database: Database) -> None:
    reader = SnapshotReader()
    spent: dict[int, list[list[int]]] = {}
    for many in (0, MANY):
        set_overrides(door, MAIN_FLAG, forced(many), actor="eva")
        reads(door, reader)
        spent[many] = []
        changes: list[Callable[[], Flag]] = [
            lambda: kill(door, MAIN_FLAG, actor="eva"),
            lambda: restore(door, MAIN_FLAG, actor="eva"),
            partial(change_flag, door, MAIN_FLAG, FlagChange(share=many + 1), actor="eva"),
        ]
        for change in changes:
            with counted(database.engine) as counts:
                assert change().overrides == {}
                reads(door, reader)
            spent[many].append(counts)
        for change in (
            lambda: set_override(door, MAIN_FLAG, "zoe", Variant.ON, actor="eva"),
            lambda: unset_override(door, MAIN_FLAG, "zoe", actor="eva"),
        ):
            with counted(database.engine) as counts:
                change()
                reads(door, reader)
            spent[many].append(counts)
    assert spent[0] == spent[MANY]
    assert [counts[1] for counts in spent[MANY][:3]] == [0, 0, 0]


def test_an_answer_carries_few_overrides_and_never_very_many(door: Door) -> None:
    set_overrides(door, MAIN_FLAG, forced(FEW), actor="eva")
    with door.reading() as connection:
        alone = read_flag_alone(connection, MAIN_FLAG)
        assert len(with_few_overrides(connection, alone).overrides) == FEW
    named = set_override(door, MAIN_FLAG, "zoe", Variant.ON, actor="eva")
    with door.reading() as connection:
        assert list(with_few_overrides(connection, named).overrides) == ["zoe"]


def test_a_reader_that_goes_on_reads_what_a_new_one_reads(door: Door, database: Database) -> None:
    reader, encoder = SnapshotReader(), Encoder()
    ends = START + timedelta(hours=1)
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: set_overrides(door, MAIN_FLAG, forced(30), actor="eva"),
        lambda: kill(door, MAIN_FLAG, actor="eva"),
        lambda: set_override(door, MAIN_FLAG, 'quo"ted åsa', Variant.OFF, actor="eva", expires_at=ends),
        lambda: unset_override(door, MAIN_FLAG, "user-00003", actor="eva"),
        lambda: restore(door, MAIN_FLAG, actor="eva"),
        lambda: set_overrides(door, MAIN_FLAG, forced(MANY, OFF), actor="eva"),
        lambda: set_overrides(door, MAIN_FLAG, dict.fromkeys(forced(MANY)), actor="eva"),
        lambda: change_flag(door, MAIN_FLAG, FlagChange(description='"overrides":{}, "overrides":{}'), actor="eva"),
        lambda: set_override(door, MAIN_FLAG, "ada", Variant.ON, actor="eva"),
    ]
    for step in steps:
        step()
        snapshot = reads(door, reader)
        with door.reading() as connection:
            assert snapshot == read_snapshot(connection)
        assert encoder.encode(snapshot) == encode(snapshot)


def test_a_database_that_was_put_back_is_read_as_a_whole(door: Door, database: Database) -> None:
    reader = SnapshotReader()
    set_override(door, MAIN_FLAG, "ada", Variant.ON, actor="eva")
    reads(door, reader)
    database.tamper(
        "DELETE FROM overrides",
        f"UPDATE ledger SET digest = '{'f' * 64}' WHERE revision = 3",
        f"UPDATE head SET digest = '{'f' * 64}'",
    )
    assert stored(reads(door, reader)).overrides == {}


def test_a_user_who_was_forgotten_is_no_riddle(door: Door, database: Database) -> None:
    reader = SnapshotReader()
    set_override(door, MAIN_FLAG, "ada", Variant.ON, actor="eva")
    reads(door, reader)
    unset_override(door, MAIN_FLAG, "ada", actor="eva")
    database.raw("UPDATE ledger_personal SET salt = NULL, value = NULL")
    assert stored(reads(door, reader)).overrides == {}
    with door.reading() as connection:
        assert list_entries(connection, AuditFilter())[0].before["user"] == ERASED


def test_a_flag_that_was_broken_is_whole_again_once_its_rows_are(door: Door, database: Database) -> None:
    reader = SnapshotReader()
    set_override(door, MAIN_FLAG, "ada", Variant.ON, actor="eva")
    database.raw("UPDATE overrides SET variant = 'maybe'")
    assert isinstance(reads(door, reader).flags[MAIN_FLAG], BrokenFlag)
    kill(door, MAIN_FLAG, actor="eva")  # a kill does not read what is broken
    database.raw("UPDATE overrides SET variant = 'on'")
    assert stored(reads(door, reader)).killed


def test_who_has_expired_leaves_the_snapshot_and_its_entity_tag(door: Door, clock: Clock) -> None:
    reader, ends = SnapshotReader(), START + timedelta(hours=1)
    set_override(door, MAIN_FLAG, "guest", Variant.ON, actor="eva", expires_at=ends)
    set_override(door, MAIN_FLAG, "ada", Variant.ON, actor="eva")
    before = reads(door, reader, clock.now)
    assert list(stored(before).overrides) == ["ada", "guest"]
    assert not reader.is_due(ends - timedelta(microseconds=1))
    assert reader.is_due(ends)
    after = reads(door, reader, ends)
    assert list(stored(after).overrides) == ["ada"]
    assert not reader.is_due(ends + timedelta(days=400))
    assert b"guest" not in encode(after)
    assert after.revision == before.revision
    assert after.etag != before.etag
    assert reads(door, SnapshotReader(), ends) == after  # whoever starts then says the same
    # a clock that was ahead hides nobody for good, and nobody waits for the next change
    assert reader.is_due(ends - timedelta(microseconds=1))
    assert reads(door, reader, clock.now) == before
    assert not reader.is_due(clock.now)
    set_override(door, MAIN_FLAG, "guest", Variant.ON, actor="eva")
    assert list(stored(reads(door, reader, datetime.now(UTC) + timedelta(days=1))).overrides) == ["ada", "guest"]


def test_two_snapshots_share_the_mapping_of_overrides_that_nobody_touched(door: Door) -> None:
    reader = SnapshotReader()
    set_overrides(door, MAIN_FLAG, forced(5), actor="eva")
    before = stored(reads(door, reader))
    kill(door, MAIN_FLAG, actor="eva")
    after = stored(reads(door, reader))
    assert after.overrides is before.overrides
    assert after == replace(before, killed=True, revision=after.revision)
