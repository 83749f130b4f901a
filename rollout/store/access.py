"""Access tokens and sessions: only hashes of secrets are stored."""

from __future__ import annotations

import logging
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


def insert_session(writing: Writing, session: Session, code_hash: str) -> None:
    """Write an invitation, and drop those long past."""
    table = tables.sessions
    now = instant(writing.now)
    never_opened = table.c.secret_hash.is_(None) & (table.c.code_expires_at < now)
    writing.change(delete(table).where(never_opened | (table.c.expires_at < now)))
    writing.change(
        insert(table).values(
            id=session.id,
            name=session.name,
            role=str(session.role),
            code_hash=code_hash,
            code_expires_at=instant(session.code_expires_at),
        )
    )


def open_session(writing: Writing, session_id: str, secret_hash: str, expires_at: datetime) -> None:
    """Turn an invitation into an open session."""
    table = tables.sessions
    writing.change(
        update(table).where(table.c.id == session_id).values(secret_hash=secret_hash, expires_at=instant(expires_at))
    )


def close_session(writing: Writing, session_id: str) -> None:
    """Mark a session closed."""
    table = tables.sessions
    writing.change(update(table).where(table.c.id == session_id).values(closed_at=instant(writing.now)))


def _token(row: Row[tuple[object, ...]]) -> AccessToken:
    revoked = parse_instant(row.revoked_at) if row.revoked_at else None
    return AccessToken(row.id, row.name, Role(row.role), parse_instant(row.created_at), revoked)


def _one_session(connection: Connection, where: object) -> Session | None:
    row = connection.execute(select(tables.sessions).where(where)).one_or_none()  # type: ignore[arg-type]  # a column expression
    if row is None:
        return None
    return Session(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        code_expires_at=parse_instant(row.code_expires_at),
        opened=row.secret_hash is not None,
        expires_at=parse_instant(row.expires_at) if row.expires_at else None,
        closed=row.closed_at is not None,
    )
