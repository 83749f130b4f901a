"""Open a database, say clearly why one cannot be opened, and copy one in use."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rollout.domain.errors import StoreFailed, StoreUnreachable
from rollout.store.door import Door
from rollout.store.engine import backup, database_url, open_engine
from rollout.store.ledger import verify_ledger
from rollout.store.migrate import schema_status, upgrade
from tests.databases import Database

WRITER = Path(__file__).with_name("writer_process.py")
SECRET = "hunter2-hunter2"


def test_without_a_url_the_database_lies_in_the_data_folder(tmp_path: Path) -> None:
    url = database_url(None, tmp_path)
    assert (url.get_backend_name(), url.database) == ("sqlite", str(tmp_path / "rollout.db"))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_way_to_write_postgresql_is_read(scheme: str, tmp_path: Path) -> None:
    url = database_url(f"{scheme}://eva:{SECRET}@db.example/rollout", tmp_path)
    assert (url.drivername, url.host, url.password) == ("postgresql+psycopg", "db.example", SECRET)


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"mysql://eva:{SECRET}@db/rollout",
        f"postgresql://eva:{SECRET}@db:port/rollout",
        f"://{SECRET}",
        f"nonsense+x://{SECRET}",
    ],
)
def test_a_url_that_cannot_be_read_is_named_and_not_shown(text: str, tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="ROLLOUT_DATABASE_URL") as caught:
        database_url(text, tmp_path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://eva:{SECRET}@127.0.0.1:1/rollout",
        f"postgresql://127.0.0.1:1/rollout?user=eva&password={SECRET}",
        f"postgresql://eva:{SECRET}@127.0.0.1:1/rollout?application_name=x&nonsense={SECRET}",
    ],
)
def test_an_unreachable_postgresql_is_said_without_its_password(text: str, tmp_path: Path) -> None:
    engine = open_engine(database_url(text, tmp_path))
    for attempt in (schema_status, upgrade, lambda engine: Door(engine).reading().__enter__()):
        with pytest.raises(StoreFailed, match=r"127\.0\.0\.1") as caught:
            attempt(engine)
        assert SECRET not in str(caught.value)
        assert SECRET not in str(caught.value.__cause__)


@pytest.mark.parametrize("kind", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_a_wrong_password_is_unreachable_and_not_shown(database: Database) -> None:
    engine = open_engine(database.url.set(password=SECRET))
    with pytest.raises(StoreUnreachable, match="password authentication failed") as caught:
        schema_status(engine)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("kind", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_a_database_that_does_not_exist_is_unreachable(database: Database) -> None:
    with pytest.raises(StoreUnreachable, match="does not exist"):
        schema_status(open_engine(database.url.set(database="nowhere")))


def test_a_sqlite_path_that_is_a_folder_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "rollout.db").mkdir()
    with pytest.raises(StoreUnreachable, match=r"rollout\.db"):
        schema_status(open_engine(database_url(None, tmp_path)))


def test_a_data_folder_that_cannot_be_made_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnreachable, match="cannot be made"):
        open_engine(database_url(None, tmp_path / "file" / "data"))


def test_a_file_that_is_no_database_is_said_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "rollout.db"
    file.write_bytes(b"this was never a database " * 400)
    before = file.read_bytes()
    with pytest.raises(StoreFailed, match="not a database"):
        upgrade(open_engine(database_url(None, tmp_path)))
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_sqlite_runs_in_wal_with_foreign_keys_and_full_syncs(database: Database) -> None:
    with database.engine.connect() as connection:
        read = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "synchronous")
        ]
    assert read == ["wal", 1, 2]


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_backup_taken_while_others_write_verifies(door: Door, database: Database, tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, str(WRITER), database.text, "writer", "150"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        copies = []
        for number in range(4):
            said = [writer.stdout.readline() for _ in range(5)]
            copy = tmp_path / f"copy{number}.db"
            backup(database.engine, copy)
            copies.append((copy, int(next(line for line in reversed(said) if line.startswith("flag")).split()[1])))
        assert writer.poll() is None, "the writer was still writing"
    finally:
        writer.kill()
        writer.communicate(timeout=20)
    for copy, acknowledged in copies:
        assert copy.stat().st_mode & 0o777 == 0o600
        with Door(open_engine(database.url.set(database=str(copy)))).reading() as connection:
            found = verify_ledger(connection)
        assert found.ok, found.first_break
        assert found.entries >= acknowledged


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_backup_never_overwrites_and_says_what_is_wrong(database: Database, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    with pytest.raises(StoreFailed, match="never overwrites"):
        backup(database.engine, kept)
    assert kept.read_text() == "kept"
    link = tmp_path / "link"
    link.symlink_to(kept)
    with pytest.raises(StoreFailed, match="never overwrites"):
        backup(database.engine, link)
    assert kept.read_text() == "kept"
    with pytest.raises(StoreFailed, match="cannot be written"):
        backup(database.engine, tmp_path / "nowhere" / "copy")


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_backup_of_a_broken_database_leaves_nothing_behind(database: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(str(database.url.database))) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this was never a database " * 400)
    copy = tmp_path / "copy.db"
    with pytest.raises(StoreFailed):
        backup(open_engine(database.url.set(database=str(broken))), copy)
    assert not copy.exists()


@pytest.mark.parametrize("kind", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_postgresql_is_backed_up_by_its_own_program(database: Database, tmp_path: Path) -> None:
    with pytest.raises(StoreFailed, match="pg_dump"):
        backup(database.engine, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
