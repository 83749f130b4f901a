"""Access tokens and sign-in links."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from rollout.control import access as control
from rollout.domain.roles import check_role
from rollout.http.api.body import JsonRoute
from rollout.http.api.documents import InviteBody, TokenBody
from rollout.http.auth import Admin, ThePlane
from rollout.store.access import list_tokens
from rollout.wire.documents import token_document

router = APIRouter(prefix="/api/v1", tags=["access"], route_class=JsonRoute)


@router.get("/tokens")
def tokens(plane: ThePlane, _: Admin) -> dict[str, Any]:
    """List access tokens."""
    with plane.door.reading() as connection:
        return {"tokens": [token_document(token) for token in list_tokens(connection)]}


@router.post("/tokens")
def create_token(body: TokenBody, plane: ThePlane, caller: Admin) -> JSONResponse:
    """Make an access token; its secret is in this answer and nowhere else."""
    made = control.create_token(plane.door, body.name, check_role(body.role), actor=caller.name, reason=body.reason)
    plane.refresh()
    return JSONResponse({**token_document(made.token), "access_token": made.secret}, 201)


@router.delete("/tokens/{token_id:path}")
def revoke_token(token_id: str, plane: ThePlane, caller: Admin) -> dict[str, Any]:
    """Revoke an access token by id or name; idempotent."""
    control.revoke(plane.door, token_id, actor=caller.name)
    plane.refresh()
    with plane.door.reading() as connection:
        return {"tokens": [token_document(token) for token in list_tokens(connection)]}


@router.post("/sign-in-links")
def invite(body: InviteBody, plane: ThePlane, caller: Admin) -> JSONResponse:
    """Make a one-time sign-in code."""
    code = control.invite(plane.door, body.name, check_role(body.role), actor=caller.name)
    return JSONResponse({"name": body.name, "role": body.role, "code": code}, 201)
