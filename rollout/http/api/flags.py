"""Flags, overrides and the kill switch."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse

from rollout.control import flags as control
from rollout.domain.errors import InvalidValue, StaleChange
from rollout.domain.flag import Flag, Override, Variant
from rollout.domain.identity import check_reason
from rollout.http.api.body import JsonRoute
from rollout.http.api.documents import FlagKey, FlagPatch, OverrideBody, OverridesBody, ReasonBody, UserId
from rollout.http.api.etag import etag_of, required_revision
from rollout.http.api.stale import stale_answer
from rollout.http.auth import Operator, ThePlane, Viewer
from rollout.http.plane import Plane
from rollout.store.flags import read_flag, read_flags, with_few_overrides
from rollout.wire.snapshot import flag_document

router = APIRouter(prefix="/api/v1", tags=["flags"], route_class=JsonRoute)

IfMatch = Annotated[str | None, Header()]


def _flag_answer(flag: Flag) -> JSONResponse:
    return JSONResponse(flag_document(flag), headers={"ETag": etag_of(flag.revision)})


def _changed(plane: Plane, flag: Flag) -> JSONResponse:
    """Answer a changed flag; where very many are forced, of them those that the change named."""
    plane.refresh()
    with plane.door.reading() as connection:
        return _flag_answer(with_few_overrides(connection, flag))


def _override(body: OverrideBody) -> Override:
    if body.variant not in set(Variant):
        raise InvalidValue(f"variant must be 'on' or 'off', not {body.variant!r}", field="variant")
    return Override(Variant(body.variant), check_reason(body.reason), body.expires_at)


@router.get("/flags")
def list_flags(plane: ThePlane, _: Viewer) -> dict[str, Any]:
    """List every flag."""
    with plane.door.reading() as connection:
        return {"flags": [flag_document(flag) for flag in read_flags(connection).values()]}


@router.get("/flags/{key}")
def show_flag(key: FlagKey, plane: ThePlane, _: Viewer) -> Response:
    """Show one flag; its ETag is its own last revision, overrides not counted."""
    with plane.door.reading() as connection:
        return _flag_answer(read_flag(connection, key))


@router.patch("/flags/{key}")
def patch_flag(key: FlagKey, body: FlagPatch, plane: ThePlane, caller: Operator, if_match: IfMatch = None) -> Response:
    """Change a flag: 428 without If-Match, 412 with the difference when stale, 409 when the preflight says no."""
    seen = required_revision(if_match, "flag")
    change = control.FlagChange(body.enabled, body.percentage, body.description)
    preflight: control.Preflight = tuple if body.skip_preflight else plane.preflight
    try:
        flag = control.change_flag(
            plane.door, key, change, actor=caller.name, reason=body.reason, seen=seen, preflight=preflight
        )
    except StaleChange as error:
        return stale_answer(plane, error, f"flag:{key}")
    return _changed(plane, flag)


@router.put("/flags/{key}/overrides/{user:path}")
def put_override(key: FlagKey, user: UserId, body: OverrideBody, plane: ThePlane, caller: Operator) -> Response:
    """Force one user on or off; idempotent and never refused as stale."""
    flag = control.set_overrides(plane.door, key, {user: _override(body)}, actor=caller.name)
    return _changed(plane, flag)


@router.post("/flags/{key}/overrides")
def post_overrides(key: FlagKey, body: OverridesBody, plane: ThePlane, caller: Operator) -> Response:
    """Force many users, or stop forcing them where null stands, in one transaction; idempotent."""
    wanted = {user: None if each is None else _override(each) for user, each in body.overrides.items()}
    return _changed(plane, control.set_overrides(plane.door, key, wanted, actor=caller.name, reason=body.reason))


@router.delete("/flags/{key}/overrides/{user:path}")
def delete_override(
    key: FlagKey, user: UserId, plane: ThePlane, caller: Operator, reason: str | None = None
) -> Response:
    """Stop forcing a user; 404 where nobody of that id is forced."""
    flag = control.unset_override(plane.door, key, user, actor=caller.name, reason=reason)
    return _changed(plane, flag)


@router.post("/flags/{key}/kill")
def kill(key: FlagKey, plane: ThePlane, caller: Operator, body: ReasonBody | None = None) -> Response:
    """Stop a flag for everybody; idempotent and never refused as stale."""
    flag = control.kill(plane.door, key, actor=caller.name, reason=body.reason if body else None)
    return _changed(plane, flag)


@router.post("/flags/{key}/restore")
def restore(key: FlagKey, plane: ThePlane, caller: Operator, body: ReasonBody | None = None) -> Response:
    """Lift a kill; idempotent."""
    flag = control.restore(plane.door, key, actor=caller.name, reason=body.reason if body else None)
    return _changed(plane, flag)
