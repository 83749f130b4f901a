"""What the routes work with: the database, this process's view of it, and the state of what it looks after."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rollout.client.holder import Holder
from rollout.control.breakers import reset_breakers
from rollout.dispatch.decision import Exchange
from rollout.dispatch.recent import Recent
from rollout.domain.access import AccessToken, hash_secret
from rollout.domain.cascade import Cascade
from rollout.domain.errors import StoreUnreachable
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path as Route
from rollout.domain.ledger import Action
from rollout.domain.roles import Role
from rollout.gateway.pin import why_unsupported
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from rollout.http.throttle import Throttle
from rollout.http.unwell import capped, failing, resting, slower, unlisted
from rollout.http.uses import Uses
from rollout.resilience.gate import Gate
from rollout.resilience.quota import Cap
from rollout.settings import Settings
from rollout.store.access import tokens_by_hash, unused_codes
from rollout.store.door import Door
from rollout.store.engine import Connection
from rollout.store.flags import read_cascade
from rollout.store.ledger import AuditFilter, list_entries
from rollout.store.snapshots import SnapshotReader
from rollout.store.watch import LedgerWatch
from rollout.wire.snapshot import Encoder

log = logging.getLogger(__name__)

_SILENT_SECONDS = 12.0
"""The watch looks several times a second; nothing that is well takes this long."""

_RESETS = 20
"""So many resets are made good by a process that missed them; more would change nothing."""


@dataclass(frozen=True, slots=True)
class Published:
    """What this process serves from memory, all of one moment.

    `snapshot` is the document clients follow; `tokens` maps the hashes of secrets to access tokens that were not
    revoked; `codes` are the hashes of sign-in codes that nobody used yet.
    """

    snapshot: bytes = b""
    etag: str = ""
    revision: int = 0
    installation: str = ""
    tokens: Mapping[str, AccessToken] = field(default_factory=dict)
    codes: frozenset[str] = frozenset()
    cascade: Cascade = field(default_factory=lambda: Cascade((), 0))


@dataclass(frozen=True, slots=True)
class FirstUse:
    """The first request that came with an access token; `path` is who answered it, None if nobody did or was asked to.

    `failure` says why a completion was not answered.
    """

    at: datetime
    path: Route | None = None
    failure: FailureKind | None = None


_asking: ContextVar[str | None] = ContextVar("rollout_access_token", default=None)
"""The id of the access token whose completion this task serves."""


class Plane:
    """The control plane of one process.

    Args:
        door: a migrated database with an installation in it.
        settings: this process's settings.
        holder: what this process evaluates with; it is fed from the database.
        gateway: returns the gateway's state.
        upstream: returns the upstream's state.
        gate: the breakers and the quota of what this process sends, None where it sends nothing.
        recent: what became of the last requests that this process sent.
    """

    def __init__(
        self,
        door: Door,
        settings: Settings,
        holder: Holder,
        *,
        gateway: Callable[[], GatewayState],
        upstream: Callable[[], UpstreamState],
        gate: Gate | None = None,
        recent: Recent | None = None,
    ) -> None:
        self._door = door
        self._file = _file_of(door)
        self.settings = settings
        self.holder = holder
        self.gateway = gateway
        self.upstream = upstream
        self.gate = gate
        self.recent = recent or Recent(time.time)
        self._first_uses: dict[str, FirstUse] = {}
        self._resets_made: set[int] = set()
        self.started_at = time.time()
        self._unreachable: str | None = None
        self._watching = self._said_silent = False
        self.published = Published()
        self._refreshing = threading.Lock()
        self.sign_ins = Throttle(time.monotonic)
        self.uses = Uses(lambda: self.door)
        self._reader, self._encoder = SnapshotReader(), Encoder()
        self._watch = LedgerWatch(door.engine, self.refresh, self._problem, on_look=self._looked)

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
        return (self._file.problem if self._file is not None else None) or self._unreachable or self._silent()

    def start(self) -> None:
        """Read the database once and follow it from then on."""
        self.refresh()
        self._watch.start()
        self.uses.start()
        self._watching = True

    def stop(self) -> None:
        """Stop following the database."""
        self._watching = False
        self.uses.stop()
        self._watch.stop()

    def refresh(self) -> None:
        """Read the database and publish what it says; called after every commit, whoever made it."""
        # one at a time: who reads later publishes later, so that a kill is never published over. A revision that
        # went back is not refused here: a database restored from a backup has gone back
        with self._refreshing:
            with self.door.reading() as connection:
                snapshot = self._reader.read(connection, self.now())
                # before anything else is read that could fail: a kill must not wait for it
                self.holder.replace(snapshot, confirmed_at=time.time())
                cascade = read_cascade(connection)
                self._tell_gate(connection, cascade)
                tokens = tokens_by_hash(connection)
                codes = unused_codes(connection)
            self.published = Published(
                snapshot=self._encoder.encode(snapshot),
                etag=snapshot.etag,
                revision=snapshot.revision,
                installation=snapshot.installation,
                tokens=tokens,
                codes=codes,
                cascade=cascade,
            )

    def reset_breakers(self, which: str | None, *, actor: str, reason: str | None) -> list[str]:
        """Reset breakers and forget remembered caps, here and (by the ledger) in every other process.

        Args:
            which: a path, a model, `path/model`, or `quota`; None for everything.
            actor: who.
            reason: why.

        Returns:
            What had to be reset here.

        Raises:
            InvalidValue: `which` names nothing that could have a breaker, or the reason cannot be stored.
        """
        gate = self.gate
        noted: list[int] = []

        def reset(which: str | None, revision: int) -> list[str]:
            self._resets_made.add(revision)  # so that the ledger's entry is not followed once more
            noted.append(revision)
            return [] if gate is None else gate.reset(which)

        try:
            done = reset_breakers(self.door, which, actor=actor, reason=reason, reset=reset)
        except BaseException:
            self._resets_made.difference_update(noted)  # the entry of that revision will be another's
            raise
        self.refresh()
        return done or []

    def _tell_gate(self, connection: Connection, cascade: Cascade) -> None:
        """Let the gate follow what was decided elsewhere: quarantines, their end, and resets."""
        gate, before = self.gate, self.published
        if gate is None:
            return
        for model in cascade.quarantined - before.cascade.quarantined:
            gate.charged(model)
        # only what was lifted: a model the gate knows of and the ledger not yet is on its way there
        gate.forgive(before.cascade.quarantined - cascade.quarantined)
        if not before.installation:
            return  # what was reset before this process began is none of its breakers
        wanted = AuditFilter(action=Action.BREAKERS_RESET)
        for entry in reversed(list_entries(connection, wanted, after=before.revision, limit=_RESETS)):
            if entry.revision in self._resets_made:
                self._resets_made.discard(entry.revision)
            elif isinstance(entry.after, Mapping):
                which = entry.after.get("which")
                done = gate.reset(which if isinstance(which, str) else None)
                log.info("reset by %s: %s", entry.actor, ", ".join(done) or "nothing had to be")

    def token_of(self, secret: str) -> AccessToken | None:
        """Return the access token a secret belongs to and note its use; None if there is none that holds."""
        token = self.published.tokens.get(hash_secret(secret))
        if token is None or (token.expires_at is not None and self.now() >= token.expires_at):
            return None
        self.uses.token(token.id)
        if token.id not in self._first_uses:
            self._first_uses[token.id] = FirstUse(self.now())
        return token

    def knows_code(self, code: str) -> bool:
        """Tell whether a sign-in code is one that nobody used yet, without asking the database."""
        return hash_secret(code.strip()) in self.published.codes

    def first_use(self, token_id: str) -> FirstUse | None:
        """Return the first use of an access token that this process has seen; the first answer beats all before it."""
        return self._first_uses.get(token_id)

    def observe(self, exchange: Exchange) -> None:
        """Note what became of a completion that this process sent."""
        self.recent.note(exchange)
        token = _asking.get()
        if token is not None and ((use := self._first_uses.get(token)) is None or use.path is None):
            self._first_uses[token] = FirstUse(self.now(), exchange.decision.served_by, exchange.failure)

    def may_send(self, secret: str) -> bool:
        """Tell whether the completions endpoint serves a caller with this secret."""
        token = self.token_of(secret)
        if token is None or not token.role.reaches(Role.EVALUATE):
            return False
        _asking.set(token.id)
        return True

    def preflight(self) -> tuple[str, ...]:
        """Say what speaks against sending more users through the gateway; empty where nothing does."""
        problems = []
        gateway, upstream = self.gateway(), self.upstream()
        if not gateway.answering or gateway.phase is GatewayPhase.FAILED:
            problems.append(f"the gateway is not healthy ({gateway.detail})")
        elif (unsupported := why_unsupported(gateway.release)) is not None:
            problems.append(unsupported)
        # asked as requests on the direct path are sent: until it answered, nothing proves the way back
        if upstream.phase is not UpstreamPhase.OK:
            problems.append(f"the upstream is not usable ({upstream.detail})")
        cascade = self.published.cascade
        if not cascade.models:
            problems.append("the cascade is empty; set it with `rollout cascade set`")
        elif not cascade.live:
            problems.append("every model of the cascade is out; lift one, or set others with `rollout cascade set`")
        else:
            allow_paid = self.settings.upstreams.allow_paid
            problems += unlisted(cascade.live, upstream.models, allow_paid=allow_paid)
        if self.gate is not None:
            status = self.gate.status()
            problems += resting(status, Route.LITELLM)
            # not the minute's: it is over before anybody could see what the raised share does
            problems += capped(status.quota, [Cap.DAY])
        through, direct = (self.recent.summary(path) for path in (Route.LITELLM, Route.OPENROUTER))
        problems += (*failing(through), *slower(through, direct))
        return tuple(problems)

    def now(self) -> datetime:
        """Return the time, by the same clock the ledger is written with."""
        return self._door.clock().astimezone(UTC)

    def _looked(self) -> None:
        self.holder.confirm(time.time())
        if self._reader.is_due(self.now()):  # an override has ended: its user's id leaves the snapshot
            self.refresh()

    def _silent(self) -> str | None:
        """Say that the watch hangs in its look: neither an answer nor an error comes from the database."""
        seconds = self._watch.silent_for if self._watching else 0.0
        if seconds < _SILENT_SECONDS:
            self._said_silent = False
            return None
        problem = f"the database has not answered for {seconds:.0f} s; showing the last known state"
        if not self._said_silent:
            self._said_silent = True
            log.warning("%s", problem)
        return problem

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
