"""Flags, overrides and the cascade: rows to values and back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from sqlalchemy import Connection, Row, delete, insert, select, update

from rollout.domain.cascade import Cascade, ModelOut, OutReason
from rollout.domain.errors import InvalidValue, NotFound, StoreFailed
from rollout.domain.flag import BrokenFlag, Flag, Override, Variant
from rollout.domain.identity import check_cascade
from rollout.domain.ledger import instant, parse_instant
from rollout.domain.share import WHOLE
from rollout.domain.snapshot import Snapshot
from rollout.store import tables
from rollout.store.door import Writing
from rollout.store.ledger import read_head

log = logging.getLogger(__name__)

_Row = Row[tuple[object, ...]]


def read_flag(connection: Connection, key: str) -> Flag:
    """Return one flag with its overrides.

    Raises:
        NotFound: there is no such flag.
    """
    row = connection.execute(select(tables.flags).where(tables.flags.c.key == key)).one_or_none()
    if row is None:
        known = ", ".join(connection.execute(select(tables.flags.c.key).order_by(tables.flags.c.key)).scalars())
        raise NotFound(f"there is no flag {key!r}; there is {known or 'none yet'}")
    return _flag(row, _overrides(connection, key).get(key, ()))


def read_flags(connection: Connection) -> dict[str, Flag]:
    """Return every flag with its overrides, by key."""
    overrides = _overrides(connection)
    rows = connection.execute(select(tables.flags).order_by(tables.flags.c.key))
    return {row.key: _flag(row, overrides.get(row.key, ())) for row in rows}


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


def read_snapshot(connection: Connection) -> Snapshot:
    """Return everything a client needs, all of one moment."""
    head = read_head(connection)
    installation = connection.execute(select(tables.installation.c.id)).scalar_one_or_none() or ""
    overrides = _overrides(connection)
    flags: dict[str, Flag | BrokenFlag] = {}
    for row in connection.execute(select(tables.flags).order_by(tables.flags.c.key)):
        try:
            flags[row.key] = _flag(row, overrides.get(row.key, ()))
        except StoreFailed as error:
            flags[row.key] = BrokenFlag(row.key, error.message)
    return Snapshot(installation, head.revision, head.digest, flags, read_cascade(connection).live)


def insert_flag(writing: Writing, flag: Flag) -> None:
    """Write a new flag; its overrides are written one by one."""
    writing.change(insert(tables.flags).values(key=flag.key, **_columns(flag)))


def update_flag(writing: Writing, flag: Flag) -> None:
    """Write a flag that exists; its overrides are written one by one."""
    writing.change(update(tables.flags).where(tables.flags.c.key == flag.key).values(**_columns(flag)))


def put_override(writing: Writing, key: str, user: str, override: Override, revision: int) -> None:
    """Write an override, new or again."""
    remove_override(writing, key, user)
    writing.change(
        insert(tables.overrides).values(
            flag_key=key,
            user_id=user,
            variant=str(override.variant),
            reason=override.reason,
            expires_at=instant(override.expires_at) if override.expires_at else None,
            revision=revision,
        )
    )


def remove_override(writing: Writing, key: str, user: str) -> None:
    """Remove an override if it is there."""
    where = (tables.overrides.c.flag_key == key) & (tables.overrides.c.user_id == user)
    writing.change(delete(tables.overrides).where(where))


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


def _flag(row: _Row, overrides: Iterable[_Row]) -> Flag:
    """Make a flag of its rows.

    Raises:
        StoreFailed: something in them was written around the door and cannot be read.
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
            overrides={override.user_id: _override(override) for override in overrides},
        )
    except (ValueError, TypeError) as error:
        raise StoreFailed(f"the flag {row.key!r} cannot be read: its rows hold {error}") from error


def _override(row: _Row) -> Override:
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
