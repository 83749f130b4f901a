"""Migrations: they make exactly the tables the code means, once, and never touch what a newer version made."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from rollout.control.access import create_token, end_session, invite, redeem, session_of
from rollout.control.installation import set_cascade
from rollout.domain.access import hash_secret
from rollout.domain.errors import StoreNewer
from rollout.domain.ledger import instant
from rollout.domain.roles import Role
from rollout.store.access import list_sessions, tokens_by_hash
from rollout.store.door import Door
from rollout.store.flags import read_cascade
from rollout.store.ledger import verify_ledger
from rollout.store.migrate import schema_status, upgrade
from rollout.store.tables import metadata
from tests.databases import Database

UPGRADE = (
    "import sys; from sqlalchemy.engine import make_url; from rollout.store.engine import open_engine;"
    "from rollout.store.migrate import upgrade; print(upgrade(open_engine(make_url(sys.argv[1]))).current)"
)


def test_the_migrated_schema_is_the_one_the_code_means(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        differences: list[Any] = compare_metadata(context, metadata)
    assert differences == []


def test_an_empty_database_is_upgraded_once(empty: Database) -> None:
    status = schema_status(empty.engine)
    assert (status.current, status.up_to_date) == (None, False)
    assert upgrade(empty.engine).current is None
    assert schema_status(empty.engine).up_to_date
    before = empty.dump()
    assert upgrade(empty.engine).up_to_date
    assert empty.dump() == before


@pytest.mark.processes
def test_two_processes_upgrading_at_once_make_one_schema(empty: Database) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", UPGRADE, empty.text], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert said == sorted(["None", str(schema_status(empty.engine).newest)])
    assert empty.raw("SELECT revision FROM head") == [(0,)]


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(door: Door, database: Database) -> None:
    database.raw("UPDATE alembic_version SET version_num = '9999'", "ALTER TABLE flags ADD COLUMN later TEXT")
    before = database.dump()
    for refuse in (schema_status, upgrade):
        with pytest.raises(StoreNewer, match=r"'9999'.*newer version.*Upgrade this program"):
            refuse(database.engine)
    assert database.dump() == before


def test_what_the_first_schema_holds_is_kept_and_guarded_as_before(door: Door, database: Database) -> None:
    """An installation of schema 0001: its ledger, its cascade and its triggers outlive the upgrade."""
    set_cascade(door, ["a/b:free", "c/d:free"], actor="eva")
    guarded = database.triggers()
    _as_of_0002(database)
    database.raw("DROP TABLE models_out", "UPDATE alembic_version SET version_num = '0001'")
    before = database.dump()
    assert upgrade(database.engine).current == "0001"
    after = database.dump()
    assert after.pop("models_out") == []
    after["access_tokens"] = [row[:-2] for row in after["access_tokens"]]
    after["sessions"] = [row[:-3] for row in after["sessions"]]
    assert after == before | {"alembic_version": [(schema_status(database.engine).newest,)]}
    assert database.triggers() == guarded
    with door.reading() as connection:
        assert read_cascade(connection).live == ("a/b:free", "c/d:free")
        assert verify_ledger(connection).ok


def test_an_upgrade_that_fails_half_way_leaves_the_database_as_it_was(empty: Database) -> None:
    empty.raw("CREATE TABLE sessions (id INTEGER)")  # the last table the migration makes is there already
    before = empty.dump()
    with pytest.raises(Exception, match="sessions"):
        upgrade(empty.engine)
    assert empty.dump() == before
    empty.raw("DROP TABLE sessions")
    assert upgrade(empty.engine).current is None


def _as_of_0002(database: Database) -> None:
    """Take away what schema 0003 added; what a version of 0002 reads and writes is left."""
    added = {"access_tokens": ("expires_at", "last_used_at"), "sessions": ("created_at", "opened_at", "last_used_at")}
    for table, columns in added.items():
        for column in columns:
            database.raw(f"ALTER TABLE {table} DROP COLUMN {column}")
    database.raw("UPDATE alembic_version SET version_num = '0002'")


def test_access_of_an_earlier_version_outlives_the_upgrade(door: Door, database: Database) -> None:
    token = create_token(door, "ci", Role.VIEWER, actor="eva")
    code = invite(door, "anna", Role.VIEWER, actor="eva")
    session = redeem(door, invite(door, "ben", Role.VIEWER, actor="eva"))
    guarded = database.triggers()
    _as_of_0002(database)
    assert upgrade(database.engine).current == "0002"
    assert database.triggers() == guarded
    with door.reading() as connection:
        assert tokens_by_hash(connection)[hash_secret(token.secret)] == token.token
        assert {(each.name, each.created_at) for each in list_sessions(connection, door.clock())} == {
            ("anna", None),
            ("ben", None),
        }
        assert verify_ledger(connection).ok
    assert session_of(door, session.secret).name == "ben"
    assert redeem(door, code).session.name == "anna"


def test_what_an_earlier_version_writes_beside_the_new_schema_is_read(door: Door, database: Database) -> None:
    """The statements of schema 0002, by a process that was not replaced yet."""
    database.raw(
        "INSERT INTO access_tokens (id, name, role, secret_hash, created_at)"
        " VALUES ('t1', 'old', 'viewer', 'h1', '2026-11-22T14:03:00.000000Z')",
        "INSERT INTO sessions (id, name, role, code_hash, code_expires_at)"
        " VALUES ('s1', 'anna', 'viewer', 'c1', '2026-11-22T14:18:00.000000Z')",
        "UPDATE sessions SET secret_hash = 'h2', expires_at = '2026-11-23T02:03:00.000000Z' WHERE id = 's1'",
    )
    with door.reading() as connection:
        assert tokens_by_hash(connection)["h1"].holds(door.clock())
        assert [each.opened for each in list_sessions(connection, door.clock())] == [True]


def test_a_link_that_was_ended_is_over_for_an_earlier_version_too(door: Door, database: Database) -> None:
    invite(door, "anna", Role.VIEWER, actor="eva")
    with door.reading() as connection:
        (session,) = list_sessions(connection, door.clock())
    end_session(door, session.id, actor="eva")
    ((ends, secret),) = database.raw("SELECT code_expires_at, secret_hash FROM sessions")
    assert (ends <= instant(door.clock()), secret) == (True, None)  # all that such a version looks at
