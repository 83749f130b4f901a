"""Who may come in: access tokens for programs, one-time links and sessions for people.

Secrets are random and long, so their plain SHA-256 is what is stored; nobody can guess them from it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from rollout.domain.access import AccessToken, Session, hash_secret
from rollout.domain.errors import InvalidValue, NotFound, NotSignedIn
from rollout.domain.identity import check_name, check_reason
from rollout.domain.ledger import Action, instant
from rollout.domain.roles import Role
from rollout.store.access import (
    close_session,
    insert_session,
    insert_token,
    list_tokens,
    open_session,
    revoke_token,
    session_by_code,
    session_by_id,
    session_by_secret,
)
from rollout.store.door import Door

TOKEN_PREFIX: Final = "rollout_"  # noqa: S105 - what every access token begins with, so that scanners find them
MAX_SECRET: Final = 100
"""Characters of a sign-in code or a session's secret; ours have fewer than half, so longer text is neither."""

CODE_LIFETIME: Final = timedelta(minutes=15)
SESSION_LIFETIME: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class NewToken:
    """An access token just made; the only time its secret is seen."""

    token: AccessToken
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """A session just opened; `secret` goes into the cookie."""

    session: Session
    secret: str = field(repr=False)
    expires_at: datetime


def create_token(
    door: Door,
    name: str,
    role: Role,
    *,
    actor: str,
    reason: str | None = None,
    expires_at: datetime | None = None,
) -> NewToken:
    """Make an access token; without `expires_at` it holds until it is revoked.

    Raises:
        InvalidValue: the name or the reason cannot be stored, or the token would have run out already.
    """
    name, reason = check_name(name), check_reason(reason)
    if expires_at is not None and expires_at <= door.clock():
        raise InvalidValue("expires_at lies in the past; name a later moment, or none", field="expires_at")
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    with door.writing() as writing:
        token = AccessToken(secrets.token_hex(8), name, role, writing.now, expires_at=expires_at)
        writing.record(
            actor,
            Action.ACCESS_TOKEN_CREATE,
            f"access_token:{token.id}",
            before=None,
            after=_token_document(token),
            reason=reason,
        )
        insert_token(writing, token, hash_secret(secret))
    return NewToken(token, secret)


def revoke(door: Door, token_id: str, *, actor: str, reason: str | None = None) -> AccessToken:
    """Revoke an access token by its id or its name. Idempotent.

    Raises:
        NotFound: there is no such token, or the name is shared by several.
        InvalidValue: the reason cannot be stored.
    """
    reason = check_reason(reason)
    with door.writing() as writing:
        known = list_tokens(writing.connection)
        matching = [token for token in known if token.id == token_id] or [
            token for token in known if token.name == token_id.strip(" ") and token.revoked_at is None
        ]
        if len(matching) != 1:
            raise NotFound(
                f"{len(matching)} access tokens are called {token_id!r}; name one by its id"
                if matching
                else f"there is no access token {token_id!r}; `rollout tokens list` shows them"
            )
        token = matching[0]
        if token.revoked_at is None:
            writing.record(
                actor,
                Action.ACCESS_TOKEN_REVOKE,
                f"access_token:{token.id}",
                before=_token_document(token),
                after=None,
                reason=reason,
            )
            revoke_token(writing, token.id)
        return token


def invite(door: Door, name: str, role: Role, *, actor: str) -> str:
    """Make a one-time sign-in code, good for 15 minutes.

    Raises:
        InvalidValue: the name cannot be stored.
    """
    name = check_name(name)
    code = secrets.token_urlsafe(24)
    now = door.clock()
    with door.writing() as writing:
        session = Session(
            secrets.token_hex(8), name, role, now + CODE_LIFETIME, opened=False, expires_at=None, closed=False
        )
        after = {"name": name, "role": str(role)}
        writing.record(actor, Action.SESSION_INVITE, f"session:{session.id}", before=None, after=after)
        insert_session(writing, session, hash_secret(code), now)
    return code


def redeem(door: Door, code: str) -> OpenedSession:
    """Turn a one-time code into a session, good for 12 hours.

    Raises:
        NotSignedIn: the code is wrong, was used, was ended, or ran out.
    """
    code_hash, now = hash_secret(code.strip()), door.clock()
    with door.reading() as connection:
        # before the writers' lock is taken: whoever guesses must not keep a kill waiting
        _unused(session_by_code(connection, code_hash), now)
    with door.writing() as writing:
        session = _unused(session_by_code(writing.connection, code_hash), now)
        secret = secrets.token_urlsafe(32)
        expires_at = now + SESSION_LIFETIME
        after = {"name": session.name, "role": str(session.role)}
        writing.record(session.name, Action.SESSION_OPEN, f"session:{session.id}", before=None, after=after)
        open_session(writing, session.id, hash_secret(secret), opened_at=now, expires_at=expires_at)
    return OpenedSession(session, secret, expires_at)


def _unused(session: Session | None, now: datetime) -> Session:
    if session is None or session.opened or not session.holds(now):
        raise NotSignedIn(
            "this sign-in code is wrong, was used already or ran out; make a new one with `rollout sign-in`"
        )
    return session


def session_of(door: Door, secret: str) -> Session:
    """Return the open session a cookie's secret belongs to.

    Raises:
        NotSignedIn: there is none, or it was closed or ran out.
    """
    session = None
    if 0 < len(secret) <= MAX_SECRET:
        with door.reading() as connection:
            session = session_by_secret(connection, hash_secret(secret))
    if session is None or not session.holds(door.clock()):
        raise NotSignedIn("your session is over; sign in again with `rollout sign-in`")
    return session


def sign_out(door: Door, secret: str) -> None:
    """Close the session a cookie's secret belongs to; nothing happens where it is over already."""
    with door.writing() as writing:
        session = session_by_secret(writing.connection, hash_secret(secret))
        if session is None or session.closed:
            return
        before = {"name": session.name, "role": str(session.role)}
        writing.record(session.name, Action.SESSION_CLOSE, f"session:{session.id}", before=before, after=None)
        close_session(writing, session.id, door.clock())


def end_session(door: Door, session_id: str, *, actor: str, reason: str | None = None) -> Session:
    """End a session, or a sign-in link that nobody used, by its id. Idempotent.

    Raises:
        NotFound: there is no such session, or it ran out so long ago that it was dropped.
        InvalidValue: the reason cannot be stored.
    """
    reason, now = check_reason(reason), door.clock()
    with door.writing() as writing:
        # anything else is no id of ours, and PostgreSQL takes no NUL
        session = session_by_id(writing.connection, session_id) if session_id.isalnum() else None
        if session is None:
            raise NotFound(f"there is no session {session_id[:40]!r}; `rollout sessions list` shows them")
        if session.holds(now):
            before = {"name": session.name, "role": str(session.role), "opened": session.opened}
            subject = f"session:{session.id}"
            writing.record(actor, Action.SESSION_END, subject, before=before, after=None, reason=reason)
            close_session(writing, session.id, now)
        return session


def _token_document(token: AccessToken) -> dict[str, Any]:
    document = {"name": token.name, "role": str(token.role)}
    return document if token.expires_at is None else document | {"expires_at": instant(token.expires_at)}
