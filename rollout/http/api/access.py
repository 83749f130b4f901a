"""Access tokens and sign-in links."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from rollout.control import access as control
from rollout.domain.roles import check_role
from rollout.http.api.body import JsonRoute
from rollout.http.api.documents import InviteBody, TokenBody
from rollout.http.auth import Admin, Evaluator, ThePlane, checked_session, sessions_of
from rollout.store.access import list_tokens
from rollout.wire.documents import session_document, token_document

router = APIRouter(prefix="/api/v1", tags=["access"], route_class=JsonRoute)


@router.get("/tokens")
def tokens(plane: ThePlane, _: Admin) -> dict[str, Any]:
    """List access tokens."""
    with plane.door.reading() as connection:
        return {"tokens": [token_document(token) for token in list_tokens(connection)]}


@router.post("/tokens")
def create_token(body: TokenBody, plane: ThePlane, caller: Admin) -> JSONResponse:
    """Make an access token; its secret is in this answer and nowhere else."""
    made = control.create_token(
        plane.door,
        body.name,
        check_role(body.role),
        actor=caller.name,
        reason=body.reason,
        expires_at=body.expires_at,
    )
    plane.refresh()
    return JSONResponse({**token_document(made.token), "access_token": made.secret}, 201)


@router.delete("/tokens/{token_id:path}")
def revoke_token(token_id: str, plane: ThePlane, caller: Admin) -> dict[str, Any]:
    """Revoke an access token by id or name; idempotent."""
    control.revoke(plane.door, token_id, actor=caller.name)
    plane.refresh()
    with plane.door.reading() as connection:
        return {"tokens": [token_document(token) for token in list_tokens(connection)]}


@router.get("/sessions")
def sessions(plane: ThePlane, caller: Evaluator) -> dict[str, Any]:
    """List open sessions and unused sign-in links; without the role admin, the caller's own session alone."""
    found = sessions_of(plane, caller)
    return {"sessions": [session_document(each, own=each.id == caller.session) for each in found]}


@router.delete("/sessions/{session_id}")
def end_session(session_id: str, plane: ThePlane, caller: Evaluator) -> dict[str, Any]:
    """End a session or an unused sign-in link; idempotent. Everybody may end their own."""
    checked_session(caller, session_id)
    control.end_session(plane.door, session_id, actor=caller.name)
    plane.refresh()
    return sessions(plane, caller)


@router.post("/sign-in-links")
def invite(body: InviteBody, plane: ThePlane, caller: Admin) -> JSONResponse:
    """Make a one-time sign-in code."""
    code = control.invite(plane.door, body.name, check_role(body.role), actor=caller.name)
    return JSONResponse({"name": body.name, "role": body.role, "code": code}, 201)
