"""Commits of other processes are noticed, and a database that goes is said and found again."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from rollout.control.flags import kill
from rollout.control.installation import establish
from rollout.domain.flag import MAIN_FLAG
from rollout.domain.ledger import Action
from rollout.store.door import Door
from rollout.store.engine import open_engine, reading
from rollout.store.ledger import read_head
from rollout.store.migrate import upgrade
from rollout.store.watch import LedgerWatch
from tests.databases import INSTALLATION, Database
from tests.postgres import start_server

WRITER = Path(__file__).with_name("writer_process.py")
LONGEST = 2.0  # seconds until a commit is noticed
RECOVERY = 20.0


class Watched:
    """A watch with what it said, as queues to wait on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.revisions: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.problems: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.watch = LedgerWatch(engine, self._changed, self.problems.put)

    def _changed(self) -> None:
        with reading(self._engine) as connection:
            self.revisions.put(read_head(connection).revision)

    def notices(self, revision: int, *, within: float = LONGEST) -> bool:
        """Wait until the watch saw a revision."""
        while True:
            try:
                if self.revisions.get(timeout=within) >= revision:
                    return True
            except queue.Empty:
                return False

    def recovers(self) -> bool:
        """Wait until the watch said that all is well again."""
        while self.problems.get(timeout=RECOVERY) is not None:
            pass
        return True


def sqlite_url(path: Path) -> URL:
    return URL.create("sqlite", database=str(path))


@pytest.fixture
def watched(door: Door, database: Database) -> Iterator[Watched]:
    watched = Watched(database.another_engine())
    watched.watch.start()
    assert watched.notices(2, within=10), "a watch says once at its start what there is"
    yield watched
    watched.watch.stop()


def write_elsewhere(database: Database, name: str) -> int:
    """Let another process write once; return the revision it acknowledged."""
    done = subprocess.run(
        [sys.executable, str(WRITER), database.text, name, "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(done.stdout.split()[1])


@pytest.mark.processes
def test_a_commit_of_another_process_is_noticed(watched: Watched, database: Database) -> None:
    for name in ("first", "second"):
        assert watched.notices(write_elsewhere(database, name))
    assert watched.problems.empty()


def test_a_commit_of_this_process_is_noticed(watched: Watched, door: Door) -> None:
    revision = kill(door, MAIN_FLAG, actor="jan").revision
    watched.watch.nudge()
    assert watched.notices(revision)


def test_a_transaction_rolled_back_is_not_noticed(watched: Watched, door: Door) -> None:
    def be_interrupted() -> None:
        with door.writing() as writing:
            writing.record("eva", Action.FLAG_ENABLE, "flag:x", before=None, after=None)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        be_interrupted()
    assert watched.revisions.empty()


def test_a_watch_that_stopped_holds_no_connection(door: Door, database: Database) -> None:
    engine = database.another_engine()
    watched = Watched(engine)
    watched.watch.start()
    assert watched.notices(2, within=10)
    watched.watch.stop()
    kill(door, MAIN_FLAG, actor="jan")
    assert watched.revisions.empty()
    engine.dispose()
    if not database.is_sqlite:
        listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%LISTEN%'"
        assert database.raw(listening.replace("LISTEN", "LIS' || 'TEN")) == [(0,)]


def test_a_fault_of_the_listener_does_not_end_the_watch(door: Door, database: Database) -> None:
    calls: queue.SimpleQueue[int] = queue.SimpleQueue()
    problems: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def faulty() -> None:
        calls.put(calls.qsize())
        if calls.qsize() == 1:
            raise ValueError("a fault in the program")

    watch = LedgerWatch(database.another_engine(), faulty, problems.put)
    watch.start()
    try:
        said = problems.get(timeout=RECOVERY)
        assert said is not None
        assert "ValueError" in said
        assert problems.get(timeout=RECOVERY) is None
    finally:
        watch.stop()
    assert calls.qsize() >= 2


@pytest.mark.parametrize("kind", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_a_connection_cut_by_the_server_is_said_and_made_anew(watched: Watched, door: Door, database: Database) -> None:
    database.raw(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    said = watched.problems.get(timeout=RECOVERY)
    assert said is not None
    assert "cannot be reached" in said
    assert watched.recovers()
    revision = kill(Door(database.another_engine()), MAIN_FLAG, actor="jan").revision
    assert watched.notices(revision)


@pytest.mark.postgres
@pytest.mark.processes
def test_a_server_that_crashes_and_comes_back_is_found_again() -> None:
    server = start_server()
    engine = open_engine(server.url())
    try:
        upgrade(engine)
        door = Door(engine)
        establish(door, new_id=lambda: INSTALLATION)
        watched = Watched(engine)
        watched.watch.start()
        try:
            assert watched.notices(2, within=10)
            server.stop()
            said = watched.problems.get(timeout=RECOVERY)
            assert said is not None
            assert str(server.url().password) not in said
            server.start()
            assert watched.recovers()
            assert watched.notices(kill(door, MAIN_FLAG, actor="jan").revision)
        finally:
            watched.watch.stop()
    finally:
        engine.dispose()
        server.remove()


def test_a_sqlite_file_that_cannot_be_opened_is_said_and_found_once_it_can(tmp_path: Path) -> None:
    place = tmp_path / "rollout.db"
    elsewhere = open_engine(sqlite_url(tmp_path / "made.db"))
    upgrade(elsewhere)
    elsewhere.dispose()
    place.mkdir()
    watched = Watched(open_engine(sqlite_url(place)))
    watched.watch.start()
    try:
        said = watched.problems.get(timeout=RECOVERY)
        assert said is not None
        place.rmdir()
        (tmp_path / "made.db").rename(place)
        assert watched.recovers()
        assert watched.notices(0)
    finally:
        watched.watch.stop()
