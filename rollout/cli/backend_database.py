"""The installation straight from its database, for the machine the database is on."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from rollout.cli.backend import AuditQuery, FlagFields
from rollout.cli.frame import Document, read_moment
from rollout.cli.server import address_of, preflight_of
from rollout.client.environment import read_overrides
from rollout.client.holder import Holder
from rollout.client.killfile import KillFile
from rollout.control import access, flags
from rollout.control.breakers import reset_breakers
from rollout.control.installation import set_cascade
from rollout.control.models import lift
from rollout.domain.cascade import Cascade
from rollout.domain.errors import InvalidValue, NotFound, StaleChange, StoreFailed
from rollout.domain.evaluate import Cause
from rollout.domain.flag import PUBLISHED_SALT, Flag, Override, Variant
from rollout.domain.identity import check_flag_key, check_user_id
from rollout.domain.ledger import unseal
from rollout.domain.roles import Role
from rollout.settings import Settings
from rollout.store.access import list_sessions, list_tokens
from rollout.store.door import Door
from rollout.store.engine import URL, Engine, database_url, open_engine
from rollout.store.flags import read_cascade, read_flag, read_flag_alone, read_flags, with_few_overrides
from rollout.store.installation import read_installation
from rollout.store.ledger import AuditFilter, list_entries, read_entry, read_head, verify_ledger
from rollout.store.migrate import schema_status
from rollout.store.snapshots import read_snapshot
from rollout.wire.documents import (
    cascade_document,
    entry_document,
    evaluation_document,
    session_document,
    targeting_key,
    token_document,
    verification_document,
)
from rollout.wire.snapshot import flag_document

FIRST_START: Final = "run `rollout up` once, or `rollout db upgrade` to make it"


def terminal_actor() -> str:
    """Return who the ledger names: the operating system's user, whatever the environment says."""
    number = os.getuid()
    try:
        return f"cli:{pwd.getpwuid(number).pw_name}"
    except KeyError:  # a container's user without a name
        return f"cli:{number}"


def shown_url(url: URL) -> str:
    """Return a database's address without what may be secret in it."""
    return url.set(query={}).render_as_string(hide_password=True)


def url_of(settings: Settings) -> URL:
    """Return the address of this process's database.

    Raises:
        StoreFailed: it cannot be read, or names no database that outlives a command.
    """
    url = database_url(settings.database_url, settings.data_dir)
    if url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}:
        raise StoreFailed("ROLLOUT_DATABASE_URL names a database in memory, which ends with this command; name a file")
    return url


@contextmanager
def existing_engine(settings: Settings) -> Iterator[Engine]:
    """Open a database that is there; nothing is made.

    Raises:
        StoreFailed: there is none yet.
    """
    url = url_of(settings)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        raise StoreFailed(f"there is no database at {str(url.database)!r} yet; {FIRST_START}")
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def open_database(settings: Settings, environ: Mapping[str, str]) -> Iterator[DatabaseBackend]:
    """Open the installation's database.

    Raises:
        StoreFailed: there is none yet, or it is not at this program's schema.
    """
    with existing_engine(settings) as engine:
        status = schema_status(engine)
        if status.current is None:
            raise StoreFailed(f"the database {shown_url(engine.url)} is empty; {FIRST_START}")
        if not status.up_to_date:
            raise StoreFailed(
                f"the database is at schema {status.current!r}, this program needs {status.newest!r}; "
                "run `rollout db upgrade`"
            )
        door = Door(engine)
        with door.reading() as connection:
            if read_head(connection).revision == 0:
                raise StoreFailed(f"the database {shown_url(engine.url)} holds no installation yet; {FIRST_START}")
        yield DatabaseBackend(door, settings, environ)


class DatabaseBackend:
    """Commands as use cases; see `Backend`."""

    all_or_nothing = True

    def __init__(
        self,
        door: Door,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        preflight: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self._door = door
        self._preflight = preflight or (lambda: preflight_of(settings, self._installation()))
        self._settings = settings
        self._environ = environ
        self._actor = terminal_actor()

    @property
    def address(self) -> str:
        """Where the admin pages are while a server runs here."""
        return address_of(self._settings) or f"http://{self._settings.host}:{self._settings.port}"

    def flags(self) -> list[Document]:
        """List every flag."""
        with self._door.reading() as connection:
            return [flag_document(flag) for flag in read_flags(connection).values()]

    def flag(self, key: str) -> Document:
        """Return one flag."""
        return flag_document(self._flag(key))

    def change_flag(
        self, key: str, fields: FlagFields, *, reason: str | None, revision: int | None, skip_preflight: bool
    ) -> Document:
        """Change fields in one ledger entry."""
        with self._door.reading() as connection:
            before = read_flag_alone(connection, check_flag_key(key))
        answer: Sequence[str] = ("the flag was changed at the same moment; try again",)
        if _reach(before, fields) > _reach(before, FlagFields()):
            # asked before the write lock is taken: nobody's kill may wait for an answer over the network
            answer = () if skip_preflight else self._preflight()
        change = flags.FlagChange(fields.enabled, fields.share, fields.description)
        with _documented():
            return self._changed(
                flags.change_flag(
                    self._door,
                    key,
                    change,
                    actor=self._actor,
                    reason=reason,
                    seen=revision,
                    preflight=tuple if skip_preflight else lambda: answer,
                )
            )

    def kill(self, key: str, *, reason: str | None) -> Document:
        """Stop a flag for everybody."""
        return self._changed(flags.kill(self._door, check_flag_key(key), actor=self._actor, reason=reason))

    def restore(self, key: str, *, reason: str | None) -> Document:
        """Lift a kill."""
        return self._changed(flags.restore(self._door, check_flag_key(key), actor=self._actor, reason=reason))

    def set_override(
        self, key: str, user: str, variant: str, *, reason: str | None, expires_at: datetime | None
    ) -> Document:
        """Force a user on or off."""
        key = check_flag_key(key)
        if variant not in set(Variant):
            raise InvalidValue(f"variant must be 'on' or 'off', not {variant!r}", field="variant")
        return self._changed(
            flags.set_override(
                self._door, key, user, Variant(variant), actor=self._actor, reason=reason, expires_at=expires_at
            )
        )

    def remove_override(self, key: str, user: str, *, reason: str | None) -> Document:
        """Stop forcing a user."""
        return self._changed(
            flags.unset_override(self._door, check_flag_key(key), check_user_id(user), actor=self._actor, reason=reason)
        )

    def set_overrides(self, key: str, overrides: Mapping[str, Document | None], *, reason: str | None) -> None:
        """Force many users, or stop forcing them, in one transaction."""
        wanted = {user: None if each is None else _override(each) for user, each in overrides.items()}
        flags.set_overrides(self._door, key, wanted, actor=self._actor, reason=reason)

    @contextmanager
    def together(self, *, raises: bool) -> Iterator[DatabaseBackend]:
        """Make many changes one transaction: all of them are made, or none."""
        # before the write lock is taken, as above
        preflight = tuple(preflight_of(self._settings, self._installation())) if raises else ()
        with self._door.together() as door:
            yield DatabaseBackend(door, self._settings, self._environ, preflight=lambda: preflight)

    def cascade(self) -> Document:
        """Return the ordered model ids."""
        with self._door.reading() as connection:
            return cascade_document(read_cascade(connection))

    def set_cascade(self, models: Sequence[str], *, reason: str | None, revision: int | None) -> Document:
        """Set the ordered model ids."""
        with _documented():
            allowed = self._settings.upstreams.allow_paid
            return cascade_document(
                set_cascade(
                    self._door, list(models), actor=self._actor, reason=reason, seen=revision, allow_paid=allowed
                )
            )

    def lift_model(self, model: str, *, reason: str | None) -> Document:
        """Put a model that is out back into the live order."""
        return cascade_document(lift(self._door, model, actor=self._actor, reason=reason))

    def reset_breakers(self, which: str | None, *, reason: str | None) -> Document:
        """Ask the running servers, by the ledger, to reset one thing or (None) everything."""
        return {"reset": reset_breakers(self._door, which, actor=self._actor, reason=reason)}

    def evaluate(self, flag: str, context: Mapping[str, Any]) -> Document:
        """Decide for an evaluation context, as a process with this environment would."""
        user = targeting_key(context.get("targetingKey"))
        settings = self._settings
        holder = Holder(
            read_overrides(self._environ),
            KillFile(settings.kill_file, named=settings.kill_file_given),
            salt=settings.salt or PUBLISHED_SALT,
        )
        with self._door.reading() as connection:
            snapshot = read_snapshot(connection)
        holder.replace(snapshot, confirmed_at=time.time())
        evaluation = holder.evaluate(flag, user)
        if evaluation.cause is Cause.UNKNOWN_FLAG:
            raise NotFound(f"there is no flag {flag[:80]!r}; there is {', '.join(snapshot.flags) or 'none yet'}")
        return evaluation_document(evaluation)

    def audit(self, query: AuditQuery) -> Document:
        """List ledger entries."""
        wanted = AuditFilter(query.actor, query.action, query.subject, query.user, query.since, query.until)
        with self._door.reading() as connection:
            entries = list_entries(connection, wanted, before=query.before, limit=query.limit + 1)
        shown = entries[: query.limit]
        return {
            "entries": [entry_document(entry) for entry in shown],
            "next": shown[-1].revision if len(entries) > query.limit else None,
        }

    def audit_entry(self, revision: int) -> Document:
        """Return one ledger entry."""
        with self._door.reading() as connection:
            return entry_document(unseal(read_entry(connection, revision)))

    def audit_head(self) -> Document:
        """Return the ledger's head."""
        with self._door.reading() as connection:
            head = read_head(connection)
        return {"revision": head.revision, "digest": head.digest}

    def audit_verify(self) -> Document:
        """Walk the whole chain."""
        with self._door.reading() as connection:
            return verification_document(verify_ledger(connection))

    def tokens(self) -> list[Document]:
        """List access tokens."""
        with self._door.reading() as connection:
            return [token_document(token) for token in list_tokens(connection)]

    def create_token(
        self, name: str, role: Role, *, reason: str | None, expires_at: datetime | None = None
    ) -> Document:
        """Make an access token."""
        made = access.create_token(self._door, name, role, actor=self._actor, reason=reason, expires_at=expires_at)
        return {**token_document(made.token), "access_token": made.secret}

    def revoke_token(self, token: str) -> None:
        """Revoke an access token by id or name."""
        access.revoke(self._door, token, actor=self._actor)

    def sessions(self) -> list[Document]:
        """List sessions, and sign-in links that nobody used yet."""
        with self._door.reading() as connection:
            return [session_document(each, own=False) for each in list_sessions(connection, self._door.clock())]

    def end_session(self, session: str) -> None:
        """End a session or an unused sign-in link by its id."""
        access.end_session(self._door, session, actor=self._actor)

    def invite(self, name: str, role: Role) -> Document:
        """Make a one-time sign-in code."""
        code = access.invite(self._door, name, role, actor=self._actor)
        return {"name": name, "role": str(role), "code": code}

    def _flag(self, key: str) -> Flag:
        with self._door.reading() as connection:
            return read_flag(connection, check_flag_key(key))

    def _changed(self, flag: Flag) -> Document:
        with self._door.reading() as connection:
            return flag_document(with_few_overrides(connection, flag))

    def _installation(self) -> str:
        with self._door.reading() as connection:
            return read_installation(connection)


def _override(document: Document) -> Override:
    until = document["expires_at"]
    return Override(Variant(document["variant"]), document["reason"], read_moment(until) if until else None)


def _reach(flag: Flag, fields: FlagFields) -> int:
    enabled = flag.enabled if fields.enabled is None else fields.enabled
    share = flag.share if fields.share is None else fields.share
    return share if enabled else 0


@contextmanager
def _documented() -> Iterator[None]:
    """Put the API's document into a stale change, as the API does."""
    try:
        yield
    except StaleChange as error:
        if isinstance(error.current, Flag):
            error.current = flag_document(error.current)
        elif isinstance(error.current, Cascade):
            error.current = cascade_document(error.current)
        raise
