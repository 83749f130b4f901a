"""PostgreSQL that may fall silent: no wait for it lasts longer than its patience.

A machine or a proxy between us and the database may stop forwarding and keep every connection open. Then neither the
database's own time limits nor TCP's help: what we sent was acknowledged, and the answer never comes. So each wait for
an answer ends after some seconds of silence, and its connection is closed. Keepalives find a peer that is gone.

All of it works through PgBouncer in transaction mode: nothing is prepared on a server's connection, and what is set
is set for one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

from psycopg import Connection, OperationalError

READ_SECONDS: Final = 8.0
"""How long a read, a commit or a ping may be silent: what is read is small, or arrives piece by piece."""

WRITE_SECONDS: Final = 18.0
"""How long a statement of a writer may be silent; longer than `lock_timeout`, which is the database's own answer."""

LONG_SECONDS: Final = 600.0
"""How long a migration may be silent: it may build an index."""

CONNECT: Final = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,  # seconds; all of these together find a dead peer within 15
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds for what was sent and not acknowledged
    "client_encoding": "utf8",  # a database made with locale C would answer in bytes
    "prepare_threshold": None,  # a pooler hands the next transaction to another server connection
}

_T = TypeVar("_T")


class PatientConnection(Connection[Any]):
    """A connection that is closed when the database has said nothing for `patience` seconds while it was asked."""

    patience: float = READ_SECONDS

    def wait(self, gen: Generator[Any, Any, _T], *args: Any, **kwargs: Any) -> _T:
        """Wait for the database.

        Raises:
            OperationalError: it fell silent.
        """
        return super().wait(self._heard(gen), *args, **kwargs)

    def _heard(self, gen: Generator[Any, Any, _T]) -> Generator[Any, Any, _T]:
        try:
            wanted = next(gen)
            last = time.monotonic()
            while True:
                ready = yield wanted
                if ready:
                    last = time.monotonic()
                elif time.monotonic() - last > self.patience:
                    self.pgconn.finish()
                    raise OperationalError(f"it has said nothing for {self.patience:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            result: _T = done.value
            return result
