"""Both databases for tests: fresh, migrated, and reachable past the product for those who tamper.

Folders that need them import the fixtures into their conftest; the server and the templates are made once.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from rollout.control.installation import establish
from rollout.store.door import Door
from rollout.store.engine import open_engine
from rollout.store.migrate import upgrade
from tests.postgres import TEMPLATE, Server, start_server

BOTH: Final = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))
START: Final = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
INSTALLATION: Final = "0123456789abcdef0123456789abcdef"

_SERVER: Final = pytest.StashKey[Server]()
_SQLITE: Final = pytest.StashKey[Path]()


@dataclass(slots=True)
class Clock:
    """A clock that stands until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def move(self, by: timedelta) -> None:
        """Move the clock, backwards too."""
        self.now += by


@dataclass(slots=True)
class Database:
    """One database of a test: its address, an engine of the product, and a way past it."""

    url: URL
    engine: Engine
    server: Server | None = None
    others: list[Engine] = field(default_factory=list)

    @property
    def is_sqlite(self) -> bool:
        return self.server is None

    @property
    def text(self) -> str:
        """The address as another process takes it."""
        return self.url.render_as_string(hide_password=False)

    def another_engine(self) -> Engine:
        """Return an engine as another process would have it."""
        engine = open_engine(self.url)
        self.others.append(engine)
        return engine

    def raw(self, *statements: str) -> list[Any]:
        """Execute statements past the product, in one transaction; return the rows of the last."""
        rows: list[Any] = []
        if self.server is None:
            with closing(sqlite3.connect(str(self.url.database), isolation_level=None)) as attacker:
                attacker.execute("BEGIN IMMEDIATE")
                for statement in statements:
                    rows = attacker.execute(statement).fetchall()
                attacker.execute("COMMIT")
            return rows
        with self.server.connect(str(self.url.database)) as connection, connection.transaction():
            for statement in statements:
                done = connection.execute(statement.encode())
                rows = done.fetchall() if done.description else []
        return rows

    def triggers(self) -> set[tuple[str, str]]:
        """List what guards the tables: (table, trigger)."""
        if self.is_sqlite:
            return set(self.raw("SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'"))
        return set(self.raw("SELECT tgrelid::regclass::text, tgname::text FROM pg_trigger WHERE NOT tgisinternal"))

    def tamper(self, *statements: str) -> None:
        """Change the database as somebody would who owns it: without triggers, without foreign keys."""
        drop = [f"DROP TRIGGER {name}" + ("" if self.is_sqlite else f" ON {table}") for table, name in self.triggers()]
        around = [] if self.is_sqlite else ["SET LOCAL session_replication_role = replica"]
        self.raw(*drop, *around, *statements)

    def dump(self) -> dict[str, list[Any]]:
        """Return every table with its rows."""
        tables = (
            self.raw("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
            if self.is_sqlite
            else self.raw("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
        )
        return {name: sorted(self.raw(f'SELECT * FROM "{name}"'), key=repr) for (name,) in tables}

    def close(self) -> None:
        for engine in (self.engine, *self.others):
            engine.dispose()


@pytest.fixture
def postgres(request: pytest.FixtureRequest) -> Server:
    """The run's PostgreSQL, with a migrated database to copy."""
    stash = request.config.stash
    if _SERVER not in stash:
        server = start_server()
        request.config.add_cleanup(server.remove)
        with server.connect() as connection:
            connection.execute(f"CREATE DATABASE {TEMPLATE}".encode())
        engine = open_engine(server.url(TEMPLATE))
        upgrade(engine)
        engine.dispose()
        stash[_SERVER] = server
    return stash[_SERVER]


@pytest.fixture(params=BOTH)
def kind(request: pytest.FixtureRequest) -> str:
    """Which database; tests that use it run on both."""
    return str(request.param)


@pytest.fixture
def empty(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database that was never migrated."""
    if kind == "sqlite":
        database = _sqlite(tmp_path / "rollout.db")
        yield database
        database.close()
        return
    server: Server = request.getfixturevalue("postgres")
    with server.database() as name:
        database = _postgres(server, name)
        yield database
        database.close()


@pytest.fixture
def database(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database without an installation."""
    if kind == "sqlite":
        path = tmp_path / "rollout.db"
        shutil.copyfile(_sqlite_template(request.config), path)
        database = _sqlite(path)
        yield database
        database.close()
        return
    server: Server = request.getfixturevalue("postgres")
    with server.database(TEMPLATE) as name:
        database = _postgres(server, name)
        yield database
        database.close()


@pytest.fixture
def clock() -> Clock:
    """A clock that stands at START."""
    return Clock()


@pytest.fixture
def door(database: Database, clock: Clock) -> Door:
    """The door of an established installation; its clock and salts are the test's."""
    numbers = count(1)
    door = Door(database.engine, clock, lambda: f"{next(numbers):032x}")
    establish(door, new_id=lambda: INSTALLATION)
    return door


def _sqlite(path: Path) -> Database:
    url = URL.create("sqlite", database=str(path))
    return Database(url, open_engine(url))


def _postgres(server: Server, name: str) -> Database:
    return Database(server.url(name), open_engine(server.url(name)), server)


def _sqlite_template(config: pytest.Config) -> Path:
    if _SQLITE not in config.stash:
        folder = Path(tempfile.mkdtemp(prefix="rollout-sqlite-"))
        config.add_cleanup(lambda: shutil.rmtree(folder))
        path = folder / "template.db"
        engine = open_engine(URL.create("sqlite", database=str(path)))
        upgrade(engine)
        engine.dispose()
        config.stash[_SQLITE] = path
    return config.stash[_SQLITE]
