"""The list of who is forced, as people page through and search it; thousands of overrides cost no more than a page."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from sqlalchemy import Connection, func, or_, select

from rollout.domain.flag import Override, Variant
from rollout.domain.ledger import parse_instant
from rollout.store import tables


@dataclass(frozen=True, slots=True)
class ForcedPage:
    """One page of overrides by user id, newest first; `found` counts what the search finds, `total` all there are."""

    rows: tuple[tuple[str, Override], ...]
    found: int
    total: int


def list_forced(connection: Connection, key: str, *, search: str, limit: int, offset: int = 0) -> ForcedPage:
    """List a flag's overrides, newest first.

    Args:
        connection: an open read transaction.
        key: the flag.
        search: a part of the user id or of the reason, in any case; empty finds all.
        limit: at most so many.
        offset: so many are left out at the beginning.
    """
    table = tables.overrides.c
    of_flag = table.flag_key == key
    found = of_flag
    if search:
        if any(unicodedata.category(each) in ("Cc", "Cs") for each in search):
            # none of these is ever stored, and a database may refuse to look for them
            return ForcedPage((), 0, _count(connection, of_flag))
        found &= or_(table.user_id.icontains(search, autoescape=True), table.reason.icontains(search, autoescape=True))
    query = select(tables.overrides).where(found).order_by(table.revision.desc(), table.user_id)
    rows = connection.execute(query.limit(limit).offset(offset))
    listed = tuple(
        (row.user_id, Override(Variant(row.variant), row.reason, row.expires_at and parse_instant(row.expires_at)))
        for row in rows
    )
    return ForcedPage(listed, _count(connection, found), _count(connection, of_flag))


def _count(connection: Connection, where: object) -> int:
    counted = select(func.count()).select_from(tables.overrides).where(where)  # type: ignore[arg-type]  # a column expression
    return connection.execute(counted).scalar_one()
