"""Notice what was written to the ledger, by whichever process, within a fraction of a second.

SQLite counts other connections' commits in `PRAGMA data_version`, which costs microseconds to ask; PostgreSQL
tells its listeners. Both only say *that* something changed; what changed is read from the head row.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from rollout.domain.errors import StoreFailed
from rollout.store.door import CHANNEL
from rollout.store.engine import NO_TRANSACTION
from rollout.store.ledger import read_head

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.05
"""How often SQLite is asked for its data version, and the longest PostgreSQL is waited for before a stop shows."""

RECONNECT_SECONDS: Final = 1.0

POOLED_SECONDS: Final = 0.25
"""How often a PostgreSQL behind a pooler is asked: its notifications go to whoever has the server's connection."""


class LedgerWatch:
    """A thread that calls `on_change()` after each commit to the ledger, its own process's included.

    `on_problem(message | None)` hears when the database cannot be reached, and None once it can again. `on_look()`
    hears every look that found nothing wrong, several times a second. All are called on the watch's thread.
    Several commits close together may come as one call.
    """

    def __init__(
        self,
        engine: Engine,
        on_change: Callable[[], None],
        on_problem: Callable[[str | None], None] = lambda _: None,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._on_change = on_change
        self._on_problem = on_problem
        self._on_look = on_look
        self._failing = False
        self._looked = time.monotonic()
        self._stop = threading.Event()
        self._nudge = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollout-ledger-watch", daemon=True)

    def start(self) -> None:
        """Start watching; `on_change` is called once at the start."""
        self._looked = time.monotonic()
        self._thread.start()

    def nudge(self) -> None:
        """Look at once: called after a commit of this process."""
        self._nudge.set()

    def stop(self) -> None:
        """Stop, and wait until the thread is gone."""
        self._stop.set()
        self._nudge.set()
        self._thread.join(timeout=10)

    @property
    def silent_for(self) -> float:
        """Seconds since the last look that found nothing wrong, or since the watch was made."""
        return time.monotonic() - self._looked

    def _run(self) -> None:
        postgres = self._engine.dialect.name == "postgresql"
        follow = self._follow_postgres if postgres else self._follow_sqlite
        options = {"isolation_level": "AUTOCOMMIT"} if postgres else {NO_TRANSACTION: True}
        while not self._stop.is_set():
            try:
                with self._engine.connect().execution_options(**options) as connection:
                    follow(connection)
            except Exception as error:
                # whatever it is: a watch that died of it would hide every kill that follows
                if not self._failing:
                    ours = not isinstance(
                        error, SQLAlchemyError | StoreFailed | self._engine.dialect.loaded_dbapi.Error
                    )
                    log.warning("the database cannot be watched: %s", type(error).__name__, exc_info=ours)
                self._failing = True
                self._on_problem(
                    f"the database cannot be reached ({type(error).__name__}); showing the last known state"
                )
                self._stop.wait(RECONNECT_SECONDS)

    def _seen(self) -> None:
        self._looked = time.monotonic()
        self._on_look()

    def _changed(self) -> None:
        self._on_change()
        if self._failing:
            self._failing = False
            self._on_problem(None)

    def _follow_sqlite(self, connection: Connection) -> None:
        version = None
        while not self._stop.is_set():
            seen = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
            if seen != version:
                version = seen
                self._changed()
            self._seen()
            self._nudge.wait(POLL_SECONDS)
            self._nudge.clear()

    def _follow_postgres(self, connection: Connection) -> None:
        driver = connection.connection.driver_connection
        served_by = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        # a pooler gives its clients numbers of its own
        pooled = served_by != driver.info.backend_pid  # type: ignore[union-attr]  # psycopg's connection
        if not pooled:
            connection.execute(text(f"LISTEN {CHANNEL}"))
        connection.detach()  # in the pool it would go on listening, and pile up what it hears
        revision = -1
        while not self._stop.is_set():
            now = read_head(connection).revision
            if now != revision:
                revision = now
                self._changed()
            self._seen()
            if pooled:
                self._nudge.wait(POOLED_SECONDS)
                self._nudge.clear()
                continue
            for _ in driver.notifies(timeout=1.0, stop_after=1):  # type: ignore[union-attr]  # psycopg's connection
                break
