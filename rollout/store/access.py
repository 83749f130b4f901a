"""Access tokens and sessions: only hashes of secrets are stored."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, Row, delete, insert, select, update

from rollout.domain.access import AccessToken, Session
from rollout.domain.ledger import instant, parse_instant
from rollout.domain.roles import Role
from rollout.store import tables
from rollout.store.door import Writing

log = logging.getLogger(__name__)


def list_tokens(connection: Connection) -> list[AccessToken]:
    """List access tokens, oldest first."""
    rows = connection.execute(select(tables.access_tokens).order_by(tables.access_tokens.c.created_at))
    return [_token(row) for row in rows]


def tokens_by_hash(connection: Connection) -> dict[str, AccessToken]:
    """Return the tokens that are not revoked, by the hash of their secret."""
    rows = connection.execute(select(tables.access_tokens).where(tables.access_tokens.c.revoked_at.is_(None)))
    tokens = {}
    for row in rows:
        try:
            tokens[row.secret_hash] = _token(row)
        except ValueError:  # written around the door: it lets nobody in, and hurts nobody else
            log.error("the access token %r cannot be read; revoke it", row.id)  # noqa: TRY400
    return tokens


def insert_token(writing: Writing, token: AccessToken, secret_hash: str) -> None:
    """Write a new access token."""
    writing.change(
        insert(tables.access_tokens).values(
            id=token.id,
            name=token.name,
            role=str(token.role),
            secret_hash=secret_hash,
            created_at=instant(token.created_at),
            expires_at=None if token.expires_at is None else instant(token.expires_at),
        )
    )


def revoke_token(writing: Writing, token_id: str) -> None:
    """Mark an access token revoked."""
    table = tables.access_tokens
    writing.change(update(table).where(table.c.id == token_id).values(revoked_at=instant(writing.now)))


def session_by_code(connection: Connection, code_hash: str) -> Session | None:
    """Return the session a one-time code was made for."""
    return _one_session(connection, tables.sessions.c.code_hash == code_hash)


def session_by_secret(connection: Connection, secret_hash: str) -> Session | None:
    """Return the session a cookie belongs to."""
    return _one_session(connection, tables.sessions.c.secret_hash == secret_hash)


def session_by_id(connection: Connection, session_id: str) -> Session | None:
    """Return the session of an id."""
    return _one_session(connection, tables.sessions.c.id == session_id)


def list_sessions(connection: Connection, now: datetime) -> list[Session]:
    """List the sessions and unused sign-in links that hold at `now`, newest first."""
    table = tables.sessions
    rows = connection.execute(select(table).where(table.c.closed_at.is_(None)).order_by(table.c.code_expires_at.desc()))
    return [session for row in rows if (session := _session(row)).holds(now)]


def unused_codes(connection: Connection) -> frozenset[str]:
    """Return the hashes of the sign-in codes that nobody used yet; whether one still holds is asked elsewhere."""
    table = tables.sessions.c
    query = select(table.code_hash).where(table.secret_hash.is_(None), table.closed_at.is_(None))
    return frozenset(connection.execute(query).scalars())


def insert_session(writing: Writing, session: Session, code_hash: str, now: datetime) -> None:
    """Write an invitation made at `now`, and drop those long past."""
    table = tables.sessions
    _drop_past(writing, instant(now))
    writing.change(
        insert(table).values(
            id=session.id,
            name=session.name,
            role=str(session.role),
            code_hash=code_hash,
            code_expires_at=instant(session.code_expires_at),
            created_at=instant(now),
        )
    )


def _drop_past(writing: Writing, now: str) -> None:
    table = tables.sessions
    never_opened = table.c.secret_hash.is_(None) & (table.c.code_expires_at < now)
    writing.change(delete(table).where(never_opened | (table.c.expires_at < now)))


def open_session(
    writing: Writing, session_id: str, secret_hash: str, *, opened_at: datetime, expires_at: datetime
) -> None:
    """Turn an invitation into an open session."""
    table = tables.sessions
    moments = {"opened_at": instant(opened_at), "expires_at": instant(expires_at)}
    writing.change(update(table).where(table.c.id == session_id).values(secret_hash=secret_hash, **moments))


def close_session(writing: Writing, session_id: str, now: datetime) -> None:
    """Mark a session, or a sign-in link that nobody used, closed at `now`.

    Its code's time ends too: a version that knows of no ended links looks at nothing else.
    """
    table = tables.sessions
    moments = {"closed_at": instant(now), "code_expires_at": instant(now)}
    writing.change(update(table).where(table.c.id == session_id).values(moments))


def note_uses(connection: Connection, tokens: Iterable[str], sessions: Iterable[str], now: datetime) -> None:
    """Write down that access tokens and sessions, by their ids, were used at `now`."""
    for table, used in ((tables.access_tokens, tokens), (tables.sessions, sessions)):
        for identity in sorted(used):  # in one order, so that two servers do not wait for each other for ever
            connection.execute(update(table).where(table.c.id == identity).values(last_used_at=instant(now)))


def _token(row: Row[tuple[object, ...]]) -> AccessToken:
    return AccessToken(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        created_at=parse_instant(row.created_at),
        revoked_at=_moment(row.revoked_at),
        expires_at=_moment(row.expires_at),
        last_used_at=_moment(row.last_used_at),
    )


def _one_session(connection: Connection, where: object) -> Session | None:
    row = connection.execute(select(tables.sessions).where(where)).one_or_none()  # type: ignore[arg-type]  # a column expression
    return None if row is None else _session(row)


def _session(row: Row[tuple[object, ...]]) -> Session:
    return Session(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        code_expires_at=parse_instant(row.code_expires_at),
        opened=row.secret_hash is not None,
        expires_at=_moment(row.expires_at),
        closed=row.closed_at is not None,
        created_at=_moment(row.created_at),
        opened_at=_moment(row.opened_at),
        last_used_at=_moment(row.last_used_at),
    )


def _moment(text: str | None) -> datetime | None:
    return parse_instant(text) if text else None
