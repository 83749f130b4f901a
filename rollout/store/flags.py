"""Flags, overrides and the cascade: rows to values and back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from rollout.domain.cascade import Cascade, ModelOut, OutReason
from rollout.domain.errors import InvalidValue, NotFound, StoreFailed
from rollout.domain.flag import Flag, Override, Variant
from rollout.domain.identity import check_cascade
from rollout.domain.ledger import instant, parse_instant
from rollout.domain.share import WHOLE
from rollout.store import tables
from rollout.store.door import Writing

log = logging.getLogger(__name__)

_Row = Row[tuple[object, ...]]

FEW: Final = 200
"""So many overrides an answer to a change carries; a change costs the same however many there are."""

_CHUNK: Final = 500  # values in one statement; SQLite's oldest limit is 999


def read_flag(connection: Connection, key: str) -> Flag:
    """Return one flag with its overrides.

    Raises:
        NotFound: there is no such flag.
    """
    flag = read_flag_alone(connection, key)
    return replace(flag, overrides=_read_overrides(flag.key, _overrides(connection, key).get(key, ())))


def read_flag_alone(connection: Connection, key: str) -> Flag:
    """Return one flag without its overrides, of which there may be very many.

    Raises:
        NotFound: there is no such flag.
    """
    row = connection.execute(select(tables.flags).where(tables.flags.c.key == key)).one_or_none()
    if row is None:
        known = ", ".join(connection.execute(select(tables.flags.c.key).order_by(tables.flags.c.key)).scalars())
        raise NotFound(f"there is no flag {key!r}; there is {known or 'none yet'}")
    return flag_of_row(row, {})


def read_overrides(connection: Connection, key: str, users: Iterable[str]) -> dict[str, Override]:
    """Return what is forced on these users; who is not forced is not in it."""
    table, wanted, found = tables.overrides, list(users), dict[str, Override]()
    for start in range(0, len(wanted), _CHUNK):
        some = table.c.user_id.in_(wanted[start : start + _CHUNK])
        rows = connection.execute(select(table).where(table.c.flag_key == key, some))
        found |= _read_overrides(key, rows)
    return found


def forced_users(connection: Connection, key: str) -> list[str]:
    """Return the ids of all who are forced for a flag."""
    table = tables.overrides.c
    return list(connection.execute(select(table.user_id).where(table.flag_key == key)).scalars())


def with_few_overrides(connection: Connection, flag: Flag) -> Flag:
    """Return a flag with its overrides where they are few, else with those it has already: see `FEW`."""
    table = tables.overrides
    rows = connection.execute(
        select(table).where(table.c.flag_key == flag.key).order_by(table.c.user_id).limit(FEW + 1)
    ).all()
    return flag if len(rows) > FEW else replace(flag, overrides=_read_overrides(flag.key, rows))


def read_flags(connection: Connection) -> dict[str, Flag]:
    """Return every flag with its overrides, by key."""
    overrides = _overrides(connection)
    rows = connection.execute(select(tables.flags).order_by(tables.flags.c.key))
    return {row.key: flag_of_row(row, _read_overrides(row.key, overrides.get(row.key, ()))) for row in rows}


def flag_rows(connection: Connection) -> Iterable[_Row]:
    """Return the rows of all flags, by key; this folder alone sees rows."""
    return connection.execute(select(tables.flags).order_by(tables.flags.c.key))


def read_cascade(connection: Connection) -> Cascade:
    """Return the cascade, with the models that are out of its live order."""
    out = _models_out(connection)
    row = connection.execute(select(tables.cascade)).one_or_none()
    if row is None:
        return Cascade((), 0, out)
    try:
        return Cascade(check_cascade(json.loads(row.models), allow_paid=True), row.revision, out)
    except (ValueError, TypeError, InvalidValue):
        # written around the door: nothing of it is used, and a kill in the same snapshot still arrives
        log.error("the stored cascade cannot be read; set it anew with `rollout cascade set`")  # noqa: TRY400
        return Cascade((), row.revision, out)


def insert_flag(writing: Writing, flag: Flag) -> None:
    """Write a new flag; its overrides are written one by one."""
    writing.change(insert(tables.flags).values(key=flag.key, **_columns(flag)))


def update_flag(writing: Writing, flag: Flag) -> None:
    """Write a flag that exists; its overrides are written one by one."""
    writing.change(update(tables.flags).where(tables.flags.c.key == flag.key).values(**_columns(flag)))


def put_override(writing: Writing, key: str, user: str, override: Override, revision: int) -> None:
    """Write an override, new or again."""
    put_overrides(writing, key, {user: (override, revision)})


def put_overrides(writing: Writing, key: str, overrides: Mapping[str, tuple[Override, int]]) -> None:
    """Write overrides, new or again, each with the revision of its entry."""
    remove_overrides(writing, key, overrides)
    writing.change(
        insert(tables.overrides),
        [
            {
                "flag_key": key,
                "user_id": user,
                "variant": str(override.variant),
                "reason": override.reason,
                "expires_at": instant(override.expires_at) if override.expires_at else None,
                "revision": revision,
            }
            for user, (override, revision) in overrides.items()
        ],
    )


def remove_overrides(writing: Writing, key: str, users: Iterable[str]) -> None:
    """Remove overrides that are there."""
    table, wanted = tables.overrides, list(users)
    for start in range(0, len(wanted), _CHUNK):
        some = table.c.user_id.in_(wanted[start : start + _CHUNK])
        writing.change(delete(table).where(table.c.flag_key == key, some))


def put_cascade(writing: Writing, models: tuple[str, ...], revision: int) -> None:
    """Write the cascade, new or again."""
    writing.change(delete(tables.cascade))
    writing.change(insert(tables.cascade).values(one=1, models=json.dumps(models), revision=revision))


def put_model_out(writing: Writing, model: str, out: ModelOut, revision: int) -> None:
    """Write that a model is out, new or again."""
    remove_model_out(writing, model)
    writing.change(
        insert(tables.models_out).values(
            model=model, why=str(out.why), detail=out.detail, at=instant(out.at), revision=revision
        )
    )


def remove_model_out(writing: Writing, model: str) -> None:
    """Remove what says that a model is out, if it is there."""
    writing.change(delete(tables.models_out).where(tables.models_out.c.model == model))


def _models_out(connection: Connection) -> Mapping[str, ModelOut]:
    rows = connection.execute(select(tables.models_out).order_by(tables.models_out.c.revision))
    return {row.model: _model_out(row) for row in rows}


def _model_out(row: _Row) -> ModelOut:
    try:
        return ModelOut(OutReason(row.why), row.detail, parse_instant(row.at))
    except (ValueError, TypeError):
        # written around the door: the model stays out all the same, until a person lifts it
        return ModelOut(OutReason.WITHDRAWN, "the stored reason cannot be read", datetime.fromtimestamp(0, UTC))


def _columns(flag: Flag) -> dict[str, object]:
    names = ("description", "enabled", "killed", "share", "salt", "hash_version", "revision")
    return {name: getattr(flag, name) for name in names}


def flag_of_row(row: _Row, overrides: Mapping[str, Override]) -> Flag:
    """Make a flag of its row.

    Raises:
        StoreFailed: something in it was written around the door and cannot be read.
    """
    try:
        if not 0 <= row.share <= WHOLE:
            raise ValueError(f"a share of {row.share}")
        return Flag(
            key=row.key,
            description=row.description,
            enabled=row.enabled,
            killed=row.killed,
            share=row.share,
            salt=row.salt,
            hash_version=row.hash_version,
            revision=row.revision,
            overrides=overrides,
        )
    except (ValueError, TypeError) as error:
        raise _unreadable(row.key, error) from error


def _read_overrides(key: str, rows: Iterable[_Row]) -> dict[str, Override]:
    try:
        return {row.user_id: override_of_row(row) for row in rows}
    except (ValueError, TypeError) as error:
        raise _unreadable(key, error) from error


def _unreadable(key: str, error: Exception) -> StoreFailed:
    return StoreFailed(f"the flag {key!r} cannot be read: its rows hold {error}")


def override_of_row(row: _Row) -> Override:
    """Make an override of its row.

    Raises:
        ValueError: it was written around the door and cannot be read.
    """
    expires = parse_instant(row.expires_at) if row.expires_at else None
    return Override(Variant(row.variant), row.reason, expires)


def _overrides(connection: Connection, key: str | None = None) -> dict[str, list[_Row]]:
    query = select(tables.overrides).order_by(tables.overrides.c.user_id)
    if key is not None:
        query = query.where(tables.overrides.c.flag_key == key)
    found: dict[str, list[_Row]] = {}
    for row in connection.execute(query):
        found.setdefault(row.flag_key, []).append(row)
    return found
