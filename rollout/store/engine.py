"""Open the database: SQLite in WAL by default, PostgreSQL through psycopg 3."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from rollout.domain.errors import InvalidValue, StoreFailed, StoreUnreachable

# what other floors have to name comes from here, so that SQLAlchemy stays in this folder
__all__ = [
    "LONG",
    "NO_TRANSACTION",
    "URL",
    "WRITE",
    "Connection",
    "Engine",
    "backup",
    "database_url",
    "open_engine",
    "reading",
    "translating",
]

WRITE: Final = "rollout_write"
"""Execution option of connections that will write; on SQLite they take the write lock before they read."""

NO_TRANSACTION: Final = "rollout_no_transaction"
"""Execution option of connections that only look; on SQLite an open transaction would hide others' commits."""

LONG: Final = "rollout_long"
"""Execution option of connections that migrate, beside `WRITE`: the database may work on it for minutes."""

_BUSY_MILLISECONDS: Final = 15_000
_PAUSE_SECONDS: Final = 0.02  # the switch itself takes a few milliseconds


def database_url(text: str | None, data_dir: Path) -> URL:
    """Return the database's URL: what was given, else SQLite in the data folder.

    Raises:
        StoreFailed: the URL cannot be read or names a database this program does not speak.
    """
    if text is None:
        return URL.create("sqlite", database=str(data_dir / "rollout.db"))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port that is no number is a plain ValueError
        raise StoreFailed("ROLLOUT_DATABASE_URL is no database URL; write sqlite:///file or postgresql://…") from None
    match url.get_backend_name():
        case "sqlite":
            return url
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise StoreFailed(f"ROLLOUT_DATABASE_URL names {other!r}; SQLite and PostgreSQL are spoken here")


def open_engine(url: URL) -> Engine:
    """Make an engine; nothing is connected yet.

    Raises:
        StoreFailed: the driver is not installed, or the folder of a SQLite file cannot be made.
    """
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url)
    try:
        return _open_postgres(url)
    except (NoSuchModuleError, ImportError):
        raise StoreFailed("PostgreSQL needs its driver: pip install 'llm-rollout[server,postgres]'") from None


def _open_postgres(url: URL) -> Engine:
    from rollout.store import postgres  # its driver is an extra

    engine = create_engine(
        url,
        pool_pre_ping=True,
        pool_size=5,
        max_overflow=15,
        pool_timeout=5,  # seconds for a free connection: all are busy only while the database does not answer
        hide_parameters=True,  # user ids stand in them; errors are logged
        connect_args=dict(postgres.CONNECT),
    )

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, words: Any, options: Any) -> Any:
        return postgres.PatientConnection.connect(*words, **options)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options, driver = connection.get_execution_options(), connection.connection.driver_connection
        assert isinstance(driver, postgres.PatientConnection)  # noqa: S101 - made above
        if options.get(LONG, False):
            driver.patience = postgres.LONG_SECONDS
        elif options.get(WRITE, False):
            driver.patience = postgres.WRITE_SECONDS

    @event.listens_for(engine, "checkin")
    def put_back(driver: Any, _record: Any) -> None:
        if driver is not None:
            driver.patience = postgres.READ_SECONDS

    return engine


def _open_sqlite(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        folder = Path(url.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreUnreachable(f"the folder {str(folder)!r} cannot be made: {error.strerror}") from error
        with contextlib.suppress(OSError):  # said when it is opened
            # nobody but us reads user ids and hashes; what SQLite puts beside it has the same mode
            os.close(os.open(url.database, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    read_only = _is_read_only(url.database)
    options: dict[str, Any] = {"timeout": _BUSY_MILLISECONDS / 1000, "check_same_thread": False}

    def connect() -> sqlite3.Connection:
        # nothing can be put beside it, not even what WAL needs for reading: taken as a file that nobody changes
        made: sqlite3.Connection = sqlite3.connect(f"file:{quote(str(url.database))}?immutable=1", uri=True, **options)
        return made

    engine = create_engine(
        url,
        hide_parameters=True,  # user ids stand in them; errors are logged
        connect_args=options,
        **({"creator": connect} if read_only else {}),
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        # text that somebody broke has to reach the ledger's verification, not end it
        connection.text_factory = _decode
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
        if not read_only:
            _use_wal(connection)
        for pragma in (
            "synchronous=FULL",  # a committed entry survives the power cut
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # a deferred transaction that reads first and writes then fails at once, whatever the timeout
        options = connection.get_execution_options()
        if not options.get(NO_TRANSACTION, False):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(WRITE, False) else "BEGIN")

    return engine


def _is_read_only(file: str | None) -> bool:
    """Tell whether a database lies where nothing can be written, and whole: without changes waiting beside it."""
    if not file or file == ":memory:" or not os.path.isfile(file):  # noqa: PTH113 - as SQLite names it
        return False
    if os.access(file, os.W_OK) and os.access(Path(file).parent, os.W_OK):
        return False
    beside = Path(f"{file}-wal")
    return not (beside.exists() and beside.stat().st_size)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite does not wait for the others who do the same to a fresh file, so we do."""
    until = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


@contextmanager
def translating(engine: Engine) -> Iterator[None]:
    """Turn a driver's own errors into ours; neither the URL's password nor its query is ever shown."""
    where = engine.url.set(query={}).render_as_string(hide_password=True)  # a query may carry a password too
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise StoreUnreachable(f"the database {where} cannot be used: {_first_line(error)}") from error
    except PoolTimeoutError as error:
        raise StoreUnreachable(f"the database {where} cannot be used: every connection is busy") from error
    except (DataError, UnicodeEncodeError, OverflowError) as error:
        # a NUL, half a surrogate pair, a sign that the database's encoding does not have, a number too large
        raise InvalidValue(
            "a value holds a character or a number that the database cannot take; nothing was changed"
        ) from error
    except DBAPIError as error:
        raise StoreFailed(f"the database {where} refused: {_first_line(error)}") from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Read in one transaction, so that everything read belongs together.

    Raises:
        StoreUnreachable: the database does not answer.
    """
    with translating(engine), engine.connect() as plain:
        connection = plain
        if engine.dialect.name == "postgresql":
            connection = plain.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            yield connection


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _first_line(error: DBAPIError) -> str:
    return next(iter(str(error.orig).strip().splitlines()), type(error).__name__)


def backup(engine: Engine, target: Path) -> None:
    """Copy a SQLite database, while it is in use, to a new file.

    Raises:
        StoreFailed: the target exists, or the database is not SQLite.
    """
    if engine.dialect.name != "sqlite":
        raise StoreFailed("db backup copies SQLite; for PostgreSQL run pg_dump")
    try:
        descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise StoreFailed(f"{str(target)!r} exists already; a backup never overwrites") from None
    except OSError as error:
        raise StoreFailed(f"{str(target)!r} cannot be written: {error.strerror}") from error
    os.close(descriptor)
    try:
        with translating(engine), engine.connect() as connection, closing(sqlite3.connect(target)) as destination:
            source = connection.connection.driver_connection
            source.backup(destination)  # type: ignore[union-attr]  # the driver's connection is sqlite3's
    except BaseException as error:
        target.unlink(missing_ok=True)  # half a backup is none
        if isinstance(error, sqlite3.Error):
            raise StoreFailed(f"{str(target)!r} cannot be written: {error}") from error
        raise
