"""What the routes work with: the database, this process's view of it, and the state of what it looks after."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rollout.client.holder import Holder
from rollout.domain.access import AccessToken, hash_secret
from rollout.domain.errors import StoreUnreachable
from rollout.domain.roles import Role
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from rollout.settings import Settings
from rollout.store.access import tokens_by_hash
from rollout.store.door import Door
from rollout.store.flags import Cascade, read_cascade, read_snapshot
from rollout.store.watch import LedgerWatch
from rollout.wire.snapshot import encode

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What this process serves from memory, all of one moment.

    `snapshot` is the document clients follow; `tokens` maps the hashes of secrets to access tokens that hold.
    """

    snapshot: bytes = b""
    etag: str = ""
    revision: int = 0
    installation: str = ""
    tokens: Mapping[str, AccessToken] = field(default_factory=dict)
    cascade: Cascade = field(default_factory=lambda: Cascade((), 0))


class Plane:
    """The control plane of one process.

    Args:
        door: a migrated database with an installation in it.
        settings: this process's settings.
        holder: what this process evaluates with; it is fed from the database.
        gateway: returns the gateway's state.
        upstream: returns the upstream's state.
    """

    def __init__(
        self,
        door: Door,
        settings: Settings,
        holder: Holder,
        *,
        gateway: Callable[[], GatewayState],
        upstream: Callable[[], UpstreamState],
    ) -> None:
        self._door = door
        self._file = _file_of(door)
        self.settings = settings
        self.holder = holder
        self.gateway = gateway
        self.upstream = upstream
        self.started_at = time.time()
        self._unreachable: str | None = None
        self.published = Published()
        self._refreshing = threading.Lock()
        self._watch = LedgerWatch(door.engine, self.refresh, self._problem, on_look=lambda: holder.confirm(time.time()))

    @property
    def door(self) -> Door:
        """The database, for reading and for changes.

        Raises:
            StoreUnreachable: its file is gone, or another lies in its place.
        """
        if self._file is not None and (problem := self._file.problem) is not None:
            raise StoreUnreachable(problem)
        return self._door

    @property
    def database_problem(self) -> str | None:
        """Why the database cannot be used now, None where it can."""
        return (self._file.problem if self._file is not None else None) or self._unreachable

    def start(self) -> None:
        """Read the database once and follow it from then on."""
        self.refresh()
        self._watch.start()

    def stop(self) -> None:
        """Stop following the database."""
        self._watch.stop()

    def refresh(self) -> None:
        """Read the database and publish what it says; called after every commit, whoever made it."""
        # one at a time: who reads later publishes later, so that a kill is never published over. A revision that
        # went back is not refused here: a database restored from a backup has gone back
        with self._refreshing:
            with self.door.reading() as connection:
                snapshot = read_snapshot(connection)
                # before anything else is read that could fail: a kill must not wait for it
                self.holder.replace(snapshot, confirmed_at=time.time())
                tokens = tokens_by_hash(connection)
                cascade = read_cascade(connection)
            self.published = Published(
                snapshot=encode(snapshot),
                etag=snapshot.etag,
                revision=snapshot.revision,
                installation=snapshot.installation,
                tokens=tokens,
                cascade=cascade,
            )

    def token_of(self, secret: str) -> AccessToken | None:
        """Return the access token a secret belongs to, None where there is none that holds."""
        return self.published.tokens.get(hash_secret(secret))

    def may_send(self, secret: str) -> bool:
        """Say whether the completions endpoint serves a caller with this secret."""
        token = self.token_of(secret)
        return token is not None and token.role.reaches(Role.EVALUATE)

    def preflight(self) -> tuple[str, ...]:
        """Say what speaks against sending more users through the gateway; empty where nothing does."""
        problems = []
        gateway, upstream = self.gateway(), self.upstream()
        if not gateway.answering or gateway.phase is GatewayPhase.FAILED:
            problems.append(f"the gateway is not healthy ({gateway.detail})")
        if upstream.phase in {UpstreamPhase.UNREACHABLE, UpstreamPhase.KEY_MISSING, UpstreamPhase.KEY_REFUSED}:
            problems.append(f"the upstream is not usable ({upstream.detail})")
        if not self.published.cascade.models:
            problems.append("the cascade is empty; set it with `rollout cascade set`")
        return tuple(problems)

    def now(self) -> datetime:
        """Return the time, by the same clock the ledger is written with."""
        return self._door.clock().astimezone(UTC)

    def _problem(self, message: str | None) -> None:
        if message is None and self._unreachable is not None:
            log.info("the database can be reached again")
        self._unreachable = message


@dataclass(frozen=True, slots=True)
class _DatabaseFile:
    """A SQLite database's file, by what it is and not by its name alone.

    SQLite goes on with a file that was moved or deleted: what is written then is lost, and nothing says so.
    """

    path: Path
    identity: tuple[int, int]

    @property
    def problem(self) -> str | None:
        try:
            found = self.path.stat()
        except OSError as error:
            return f"the database file {str(self.path)!r} is gone ({error.strerror}); put it back and start again"
        if (found.st_dev, found.st_ino) != self.identity:
            return f"another file lies in place of the database {str(self.path)!r}; start again to use it"
        return None


def _file_of(door: Door) -> _DatabaseFile | None:
    url = door.engine.url
    if url.get_backend_name() != "sqlite" or not url.database or not (path := Path(url.database).absolute()).is_file():
        return None
    found = path.stat()
    return _DatabaseFile(path, (found.st_dev, found.st_ino))
