"""The ledger on real databases: gapless, chained, append-only, and telling on whoever went around the door."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from rollout.control.flags import FlagChange, change_flag, kill, restore, set_override, unset_override
from rollout.control.installation import set_cascade
from rollout.domain.errors import NotFound, StoreFailed
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.domain.ledger import ERASED, GENESIS, Action, digest_of
from rollout.domain.verification import Break
from rollout.store.door import Door
from rollout.store.ledger import AuditFilter, list_entries, read_entry, read_head, sealed_entries, verify_ledger
from tests.databases import START, Clock, Database

ANNA = "anna@example.org"
LAST = 7
GUARDS = {
    ("ledger", "ledger_update"),
    ("ledger", "ledger_insert"),
    ("ledger_personal", "ledger_personal_insert"),
    ("ledger_personal", "ledger_personal_update"),
    ("ledger_personal", "ledger_personal_delete"),
    ("head", "head_insert"),
    ("head", "head_update"),
    ("head", "head_delete"),
}
ONLY_SQLITE = {("ledger", "ledger_delete")}
ONLY_POSTGRES = {
    ("ledger", "ledger_truncate"),
    ("ledger_personal", "ledger_personal_truncate"),
    ("head", "head_truncate"),
}


def a_history(door: Door) -> None:
    """Write entries 3 to 7; 1 and 2 made the installation and its flag."""
    change_flag(door, MAIN_FLAG, FlagChange(share=10_000), actor="eva", reason="first stage")
    set_override(door, MAIN_FLAG, ANNA, Variant.ON, actor="eva", reason="she asked")
    kill(door, MAIN_FLAG, actor="jan")
    restore(door, MAIN_FLAG, actor="jan", reason="fixed")
    set_cascade(door, ["z-ai/glm-4.5-air:free", "minimax/minimax-m2:free"], actor="eva")


def first_break(door: Door) -> Break | None:
    with door.reading() as connection:
        found = verify_ledger(connection)
    assert found.ok is (found.first_break is None)
    return found.first_break


def test_revisions_are_gapless_and_each_entry_follows_the_one_before(door: Door) -> None:
    a_history(door)
    with door.reading() as connection:
        entries = list(sealed_entries(connection))
        head = read_head(connection)
        found = verify_ledger(connection)
    assert [entry.revision for entry in entries] == list(range(1, LAST + 1))
    assert [entry.previous_digest for entry in entries] == [GENESIS, *(entry.digest for entry in entries[:-1])]
    assert all(digest_of(entry.text) == entry.digest for entry in entries)
    assert (head.revision, head.digest) == (LAST, entries[-1].digest)
    assert (found.ok, found.entries, found.head, found.first_break) == (True, LAST, head.digest, None)


def test_times_never_go_back_even_when_the_clock_does(door: Door, clock: Clock) -> None:
    clock.move(timedelta(hours=1))
    kill(door, MAIN_FLAG, actor="jan")
    clock.move(timedelta(hours=-5))
    restore(door, MAIN_FLAG, actor="jan")
    with door.reading() as connection:
        newest, before, *_ = list_entries(connection, AuditFilter())
    assert newest.at == before.at == START + timedelta(hours=1)


def test_a_long_ledger_is_walked_in_pieces_and_whole(door: Door) -> None:
    with door.writing() as writing:
        for number in range(1_203):
            writing.record("eva", Action.FLAG_DESCRIBE, "flag:other", before={"n": number}, after={"n": number + 1})
    assert first_break(door) is None
    with door.reading() as connection:
        assert verify_ledger(connection).entries == 1_205


@dataclass(frozen=True)
class Tampering:
    """What somebody did past the door, and the revision at which it has to show."""

    name: str
    statements: tuple[str, ...]
    shows_at: int

    def __str__(self) -> str:
        return self.name.replace(" ", "_")


def altered(column: str, value: str, revision: int = 3) -> Tampering:
    statement = f"UPDATE ledger SET {column} = '{value}' WHERE revision = {revision}"
    return Tampering(f"{column} altered", (statement,), revision)


def personal(name: str, what: str) -> Tampering:
    return Tampering(f"personal data {name}", (f"UPDATE ledger_personal SET {what} WHERE revision = 4",), 4)


COPY = (
    "INSERT INTO ledger SELECT {to}, at, actor, action, subject, text, previous_digest, digest"
    " FROM ledger WHERE revision = {of}"
)
TAMPERINGS = (
    Tampering("text altered", ("UPDATE ledger SET text = replace(text, '10000', '90000') WHERE revision = 3",), 3),
    Tampering("text emptied", ("UPDATE ledger SET text = '' WHERE revision = 3",), 3),
    altered("at", "2026-11-22T14:04:00.000000Z"),
    altered("actor", "jan"),
    altered("action", "flag:enable"),
    altered("subject", "flag:other"),
    altered("previous_digest", "f" * 64),
    altered("digest", "f" * 64),
    Tampering("first entry altered", ("UPDATE ledger SET actor = 'jan' WHERE revision = 1",), 1),
    Tampering("last entry altered", (f"UPDATE ledger SET actor = 'jan' WHERE revision = {LAST}",), LAST),
    Tampering("revision altered", ("UPDATE ledger SET revision = 99 WHERE revision = 3",), 3),
    Tampering(
        "two entries swapped",
        (
            "UPDATE ledger SET revision = 90 WHERE revision = 5",
            "UPDATE ledger SET revision = 5 WHERE revision = 6",
            "UPDATE ledger SET revision = 6 WHERE revision = 90",
        ),
        5,
    ),
    personal("value altered", "value = 'otto'"),
    personal("salt altered", "salt = 'f'"),
    personal("value erased by half", "value = NULL"),
    personal("salt erased by half", "salt = NULL"),
    personal("moved", "field = field || '.moved'"),
    Tampering("personal data removed", ("DELETE FROM ledger_personal WHERE revision = 4",), 4),
    Tampering("personal data added", ("INSERT INTO ledger_personal VALUES (2, 'after.user', 'salt', 'anna')",), 2),
    Tampering("removed in the middle", ("DELETE FROM ledger WHERE revision = 4",), 4),
    Tampering("first removed", ("DELETE FROM ledger WHERE revision = 1",), 1),
    Tampering("last removed", (f"DELETE FROM ledger WHERE revision = {LAST}",), LAST),
    Tampering("last three removed", ("DELETE FROM ledger WHERE revision >= 5",), 5),
    Tampering("all removed", ("DELETE FROM ledger",), 1),
    Tampering("inserted after the last", (COPY.format(to=8, of=7),), 8),
    Tampering(
        "inserted after the last with the head",
        (COPY.format(to=8, of=7), "UPDATE head SET revision = 8"),
        8,
    ),
    Tampering("inserted before the first", (COPY.format(to=0, of=1),), 0),
    Tampering(
        "inserted in the middle",
        (
            # step over each other's keys from above
            *(f"UPDATE ledger SET revision = {old + 1} WHERE revision = {old}" for old in (7, 6, 5)),
            COPY.format(to=5, of=4),
        ),
        5,
    ),
    Tampering("head digest altered", ("UPDATE head SET digest = '" + "f" * 64 + "'",), LAST),
    Tampering("head put back", ("UPDATE head SET revision = 5",), 6),
    Tampering("head put forward", ("UPDATE head SET revision = 9",), 8),
    Tampering("installation renamed", ("UPDATE installation SET id = 'another'",), 1),
)


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=str)
def test_verification_names_the_first_revision_where_tampering_shows(
    tampering: Tampering, door: Door, database: Database
) -> None:
    a_history(door)
    database.tamper(*tampering.statements)
    found = first_break(door)
    assert found is not None
    assert found.revision == tampering.shows_at, found.why


def test_an_entry_rewritten_with_its_digest_shows_at_the_one_that_follows(door: Door, database: Database) -> None:
    a_history(door)
    with door.reading() as connection:
        forged = read_entry(connection, 3).text.replace("10000", "90000")
    database.tamper(f"UPDATE ledger SET text = '{forged}', digest = '{digest_of(forged)}' WHERE revision = 3")
    assert first_break(door) == Break(4, "it does not follow the entry before it")


@pytest.mark.parametrize("text", ["[]", "17", "no json", "[" * 100_000])
def test_a_text_that_is_no_entry_is_a_break_and_no_crash(text: str, door: Door, database: Database) -> None:
    a_history(door)
    database.tamper(f"UPDATE ledger SET text = '{text}', digest = '{digest_of(text)}' WHERE revision = 3")
    found = first_break(door)
    assert found is not None
    assert found.revision == 3


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
@pytest.mark.parametrize("value", ["x'ff00'", "CAST(x'ff' AS TEXT)", "17", "CAST(text AS BLOB)"])
def test_a_column_of_another_type_is_a_break_and_no_crash(value: str, door: Door, database: Database) -> None:
    a_history(door)
    database.tamper(f"UPDATE ledger SET text = {value} WHERE revision = 3")
    found = first_break(door)
    assert found is not None
    assert found.revision == 3


def test_a_head_that_is_gone_is_said_and_nothing_is_written(door: Door, database: Database) -> None:
    a_history(door)
    database.tamper("DELETE FROM head")
    with pytest.raises(StoreFailed, match="head row is gone"):
        first_break(door)
    with pytest.raises(StoreFailed, match="head row is gone"):
        kill(door, MAIN_FLAG, actor="jan")


def test_every_guard_is_there_after_migration(database: Database) -> None:
    assert database.triggers() == GUARDS | (ONLY_SQLITE if database.is_sqlite else ONLY_POSTGRES)


REFUSED = (
    "UPDATE ledger SET actor = 'jan' WHERE revision = 3",
    "UPDATE ledger SET revision = 8 WHERE revision = 7",
    "DELETE FROM ledger WHERE revision = 7",
    "DELETE FROM ledger",
    COPY.format(to=9, of=7),
    COPY.format(to=0, of=7),
    COPY.format(to=-1, of=7),
    "UPDATE ledger_personal SET value = 'otto' WHERE revision = 4",
    "UPDATE ledger_personal SET salt = NULL, value = 'otto' WHERE revision = 4",
    "UPDATE ledger_personal SET salt = NULL, value = NULL, field = 'moved' WHERE revision = 4",
    "DELETE FROM ledger_personal WHERE revision = 4",
    "INSERT INTO ledger_personal VALUES (2, 'after.user', 'salt', 'anna')",
    "UPDATE head SET revision = 3",
    "UPDATE head SET revision = 9",
    "UPDATE head SET digest = 'f'",
    "DELETE FROM head",
    "INSERT INTO head VALUES (2, 1, 'f', '')",
)
REFUSED_BY_SQLITE = (
    COPY.format(to=3, of=7).replace("INSERT", "INSERT OR REPLACE"),
    COPY.format(to=7, of=3).replace("INSERT", "INSERT OR REPLACE"),
    "UPDATE OR REPLACE ledger SET revision = 3 WHERE revision = 7",
    "INSERT OR REPLACE INTO head VALUES (1, 3, 'f', '')",
    "INSERT OR REPLACE INTO ledger_personal VALUES (4, 'reason', 'salt', 'otto')",
)
REFUSED_BY_POSTGRES = (
    "TRUNCATE ledger CASCADE",
    "TRUNCATE ledger_personal",
    "TRUNCATE head",
    COPY.format(to=3, of=7) + " ON CONFLICT (revision) DO UPDATE SET actor = 'jan'",
    "INSERT INTO ledger_personal VALUES (4, 'reason', 'salt', 'otto')"
    " ON CONFLICT (revision, field) DO UPDATE SET value = 'otto', salt = 'salt'",
    "INSERT INTO head VALUES (1, 3, 'f', '') ON CONFLICT (one) DO UPDATE SET revision = 3",
)


def test_the_tables_themselves_refuse_what_is_no_next_entry(door: Door, database: Database) -> None:
    a_history(door)
    before = database.dump()
    more = REFUSED_BY_SQLITE if database.is_sqlite else REFUSED_BY_POSTGRES
    for statement in (*REFUSED, *more):
        with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException)):
            database.raw(statement)
    assert database.dump() == before
    assert first_break(door) is None


def test_erased_personal_data_leaves_the_chain_valid_and_reads_as_erased(door: Door, database: Database) -> None:
    a_history(door)
    database.raw("UPDATE ledger_personal SET salt = NULL, value = NULL WHERE revision = 4")
    assert first_break(door) is None
    with door.reading() as connection:
        newest = {entry.revision: entry for entry in list_entries(connection, AuditFilter())}
    assert newest[4].after == {"user": ERASED, "variant": "on", "expires_at": None}
    assert newest[4].reason == ERASED
    assert newest[3].reason == "first stage"
    assert ANNA not in repr(database.dump()["ledger"])


def test_user_ids_and_reasons_never_stand_in_the_text_that_stays(door: Door, database: Database) -> None:
    a_history(door)
    unset_override(door, MAIN_FLAG, ANNA, actor="eva", reason="she asked again")
    stays = repr(database.dump()["ledger"])
    for secret in (ANNA, "she asked", "first stage", "fixed"):
        assert secret not in stays


def test_the_ledger_is_listed_newest_first_page_by_page(door: Door) -> None:
    a_history(door)
    with door.reading() as connection:
        first = list_entries(connection, AuditFilter(), limit=3)
        second = list_entries(connection, AuditFilter(), limit=3, before=first[-1].revision)
        since = list_entries(connection, AuditFilter(), after=5)
    assert [entry.revision for entry in first] == [7, 6, 5]
    assert [entry.revision for entry in second] == [4, 3, 2]
    assert [entry.revision for entry in since] == [7, 6]


@pytest.mark.parametrize(
    ("wanted", "revisions"),
    [
        (AuditFilter(actor="jan"), [6, 5]),
        (AuditFilter(action="flag:"), [6, 5, 3, 2]),
        (AuditFilter(action="flag:kill"), [5]),
        (AuditFilter(action="flag_"), []),
        (AuditFilter(subject="cascade"), [7]),
        (AuditFilter(user=ANNA), [4]),
        (AuditFilter(user="she asked"), []),
        (AuditFilter(user="' OR 1=1 --"), []),
        (AuditFilter(since=START), [7, 6, 5, 4, 3, 2, 1]),
        (AuditFilter(since=START + timedelta(seconds=1)), []),
        (AuditFilter(until=START - timedelta(seconds=1)), []),
        (AuditFilter(actor="jan", action="flag:restore"), [6]),
    ],
)
def test_the_ledger_can_be_filtered(wanted: AuditFilter, revisions: list[int], door: Door) -> None:
    a_history(door)
    with door.reading() as connection:
        assert [entry.revision for entry in list_entries(connection, wanted)] == revisions


def test_an_entry_that_is_not_there_is_not_found(door: Door) -> None:
    with door.reading() as connection, pytest.raises(NotFound, match="no entry 17"):
        read_entry(connection, 17)


def test_an_entry_says_what_was_and_what_is(door: Door) -> None:
    a_history(door)
    with door.reading() as connection:
        share: Any = list_entries(connection, AuditFilter(action="flag:percentage:set"))[0]
    assert (share.actor, share.subject, share.reason) == ("eva", f"flag:{MAIN_FLAG}", "first stage")
    assert (share.before["share"], share.after["share"]) == (0, 10_000)
    assert share.at == START
