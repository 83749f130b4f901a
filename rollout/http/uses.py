"""Which access tokens and sessions were used lately: noted in memory at each use, written down once a minute.

A request only puts an id into a set. A thread of its own writes, because the database may hang.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from rollout.domain.errors import RolloutError
from rollout.store.access import note_uses
from rollout.store.door import Door

log = logging.getLogger(__name__)

WRITE_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 2.0


class Uses:
    """Notes uses, and writes them down every minute and at the end; `door` returns the database, or raises."""

    def __init__(self, door: Callable[[], Door]) -> None:
        self._door = door
        self._tokens: set[str] = set()
        self._sessions: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollout-last-used", daemon=True)

    def token(self, identity: str) -> None:
        """Note that an access token is used; cheap enough for every request."""
        self._tokens.add(identity)

    def session(self, identity: str) -> None:
        """Note that a session is used."""
        self._sessions.add(identity)

    def start(self) -> None:
        """Begin to write down what is noted."""
        self._thread.start()

    def stop(self) -> None:
        """Write down what is left and end; a database that hangs is not waited for longer than two seconds."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_STOP_SECONDS)

    def write(self) -> None:
        """Write down, as of now, what was used since the last time.

        Raises:
            RolloutError: the database cannot be used; what was noted is kept for the next time.
        """
        tokens, self._tokens = self._tokens, set()
        sessions, self._sessions = self._sessions, set()
        if not tokens and not sessions:
            return
        try:
            door = self._door()
            with door.noting() as connection:
                note_uses(connection, tokens, sessions, door.clock())
        except BaseException:
            self._tokens |= tokens
            self._sessions |= sessions
            raise

    def _run(self) -> None:
        while not self._stop.wait(WRITE_SECONDS):
            try:
                self.write()
            except RolloutError as error:
                log.debug("what was last used is not written down yet: %s", error.message)
            except Exception:
                log.exception("what was last used was not written down")
        with suppress(Exception):  # the process ends; the database may be gone already
            self.write()
