"""A PostgreSQL that falls silent, one behind PgBouncer, one without an encoding, and values that none can store."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from rollout.control.flags import kill, restore, set_override
from rollout.control.installation import establish
from rollout.domain.errors import InvalidValue, StoreUnreachable
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.store.door import Door
from rollout.store.engine import open_engine
from rollout.store.flags import read_flag
from rollout.store.ledger import AuditFilter, list_entries, verify_ledger
from rollout.store.migrate import upgrade
from rollout.store.snapshots import read_snapshot
from rollout.store.watch import LedgerWatch
from tests.databases import INSTALLATION, Database
from tests.postgres import TEMPLATE, Server
from tests.store.frozen import Proxy, pgbouncer

GIVEN_UP = 60.0  # seconds: a test that waits longer has failed; what is promised is a third of it


@pytest.fixture
def proxy(postgres: Server) -> Iterator[Proxy]:
    proxy = Proxy(postgres.port)
    yield proxy
    proxy.close()


@pytest.mark.postgres
def test_a_database_that_falls_silent_is_said_and_found_again(postgres: Server, proxy: Proxy) -> None:
    with postgres.database(TEMPLATE) as name:
        engine = open_engine(postgres.url(name).set(port=proxy.port))
        door, problems = Door(engine), queue.SimpleQueue[str | None]()
        establish(door, new_id=lambda: INSTALLATION)
        watch = LedgerWatch(engine, lambda: None, problems.put)
        watch.start()
        try:
            kill(door, MAIN_FLAG, actor="a")
            proxy.freeze()
            with pytest.raises(StoreUnreachable):  # not for ever, whoever waits for it
                restore(door, MAIN_FLAG, actor="a")
            assert problems.get(timeout=GIVEN_UP), "the watch has not noticed"
            proxy.thaw()
            while problems.get(timeout=GIVEN_UP) is not None:
                pass
            assert watch.silent_for < GIVEN_UP
            restore(door, MAIN_FLAG, actor="a")
        finally:
            watch.stop()
            engine.dispose()


@pytest.mark.postgres
@pytest.mark.pgbouncer
def test_everything_works_through_pgbouncer_in_transaction_mode(postgres: Server, tmp_path: Path) -> None:
    with postgres.database() as name, pgbouncer(postgres, tmp_path, postgres.url(name)) as url:
        mine, other = open_engine(url), open_engine(url)
        try:
            upgrade(mine)
            door, changes = Door(mine), queue.SimpleQueue[int]()
            establish(door, new_id=lambda: INSTALLATION)
            watch = LedgerWatch(mine, lambda: changes.put(1))
            watch.start()
            try:
                assert changes.get(timeout=GIVEN_UP)
                for _ in range(8):  # more often than psycopg waits before it prepares a statement
                    kill(Door(other), MAIN_FLAG, actor="a")
                    restore(door, MAIN_FLAG, actor="a")
                assert changes.get(timeout=GIVEN_UP), "a change beside it was not noticed"
            finally:
                watch.stop()
            with door.reading() as connection:
                assert verify_ledger(connection).ok
        finally:
            mine.dispose()
            other.dispose()


@pytest.mark.postgres
def test_a_database_without_an_encoding_keeps_what_it_is_given(postgres: Server) -> None:
    with postgres.connect() as administrator:
        administrator.execute(
            "CREATE DATABASE plain ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        )
    engine = open_engine(postgres.url("plain"))
    try:
        upgrade(engine)
        door = Door(engine)
        establish(door, new_id=lambda: INSTALLATION)
        set_override(door, MAIN_FLAG, "åsa €", Variant.ON, actor="jörg", reason="prüfen")
        with door.reading() as connection:
            assert list(read_flag(connection, MAIN_FLAG).overrides) == ["åsa €"]
            assert "åsa €" in read_snapshot(connection).flags[MAIN_FLAG].overrides  # type: ignore[union-attr]  # it is no broken one
            assert list_entries(connection, AuditFilter(user="åsa €"))[0].actor == "jörg"
            assert verify_ledger(connection).ok
    finally:
        engine.dispose()
        with postgres.connect() as administrator:
            administrator.execute("DROP DATABASE plain WITH (FORCE)")


@pytest.mark.postgres
def test_a_sign_that_an_old_encoding_lacks_is_refused_in_one_sentence(postgres: Server) -> None:
    with postgres.connect() as administrator:
        administrator.execute("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    engine = open_engine(postgres.url("latin"))
    try:
        upgrade(engine)
        door = Door(engine)
        establish(door, new_id=lambda: INSTALLATION)
        set_override(door, MAIN_FLAG, "åsa", Variant.ON, actor="a")
        with pytest.raises(InvalidValue, match="cannot take"):
            set_override(door, MAIN_FLAG, "安", Variant.ON, actor="a")
        with door.reading() as connection:
            assert list(read_flag(connection, MAIN_FLAG).overrides) == ["åsa"]
    finally:
        engine.dispose()
        with postgres.connect() as administrator:
            administrator.execute("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize("field", ["actor", "subject", "user", "action"])
def test_what_no_database_can_look_for_is_no_fault_of_the_database(door: Door, field: str) -> None:
    with pytest.raises(InvalidValue, match="cannot take"), door.reading() as connection:
        list_entries(connection, AuditFilter(**{field: "half a pair \ud800"}))  # type: ignore[arg-type]  # a text


def test_a_nul_is_found_nowhere_and_is_no_fault_of_the_database(door: Door, database: Database) -> None:
    refused = nullcontext() if database.is_sqlite else pytest.raises(InvalidValue, match="cannot take")
    with refused, door.reading() as connection:
        assert list_entries(connection, AuditFilter(actor="a\0b")) == []


def test_a_number_that_no_column_holds_is_refused(door: Door) -> None:
    with pytest.raises(InvalidValue, match="cannot take"), door.reading() as connection:
        list_entries(connection, AuditFilter(), before=10**30)


def test_a_watch_counts_how_long_it_has_heard_nothing(door: Door, database: Database) -> None:
    looked = queue.SimpleQueue[None]()
    watch = LedgerWatch(database.another_engine(), lambda: None, on_look=lambda: looked.put(None))
    began = time.monotonic()
    assert watch.silent_for <= time.monotonic() - began + 0.001
    watch.start()
    looked.get(timeout=GIVEN_UP)
    watch.stop()
    before = watch.silent_for
    assert watch.silent_for >= before
