"""The cascade, the models that are out of it, and the breakers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse

from rollout.control import models as control
from rollout.control.installation import set_cascade
from rollout.domain.cascade import Cascade
from rollout.domain.errors import StaleChange
from rollout.http.api.body import JsonRoute
from rollout.http.api.documents import CascadeBody, LiftBody, ResetBody
from rollout.http.api.etag import etag_of, required_revision
from rollout.http.api.stale import stale_answer
from rollout.http.auth import Operator, ThePlane, Viewer
from rollout.store.flags import read_cascade
from rollout.wire.documents import cascade_document

router = APIRouter(prefix="/api/v1", tags=["models"], route_class=JsonRoute)


def _answer(cascade: Cascade) -> JSONResponse:
    return JSONResponse(cascade_document(cascade), headers={"ETag": etag_of(cascade.revision)})


@router.get("/cascade")
def show_cascade(plane: ThePlane, _: Viewer) -> Response:
    """Show the ordered model ids, those that are asked, and why the others are out."""
    with plane.door.reading() as connection:
        return _answer(read_cascade(connection))


@router.put("/cascade")
def replace_cascade(
    body: CascadeBody, plane: ThePlane, caller: Operator, if_match: Annotated[str | None, Header()] = None
) -> Response:
    """Set the ordered model ids: 428 without If-Match, 412 when stale. Models that are out stay out."""
    seen = required_revision(if_match, "cascade")
    try:
        cascade = set_cascade(
            plane.door,
            body.models,
            actor=caller.name,
            reason=body.reason,
            seen=seen,
            allow_paid=plane.settings.upstreams.allow_paid,
        )
    except StaleChange as error:
        return stale_answer(plane, error, "cascade")
    plane.refresh()
    return _answer(cascade)


@router.post("/models/lift")
def lift_model(body: LiftBody, plane: ThePlane, caller: Operator) -> Response:
    """Put a model that is out back into the live order; idempotent. 404 where no such model is known."""
    cascade = control.lift(plane.door, body.model, actor=caller.name, reason=body.reason)
    plane.refresh()
    return _answer(cascade)


@router.post("/breakers/reset")
def reset_breakers(plane: ThePlane, caller: Operator, body: ResetBody | None = None) -> dict[str, Any]:
    """Close breakers and forget a remembered cap, one or all; answers what had to be reset."""
    which, reason = (body.which, body.reason) if body else (None, None)
    return {"reset": plane.reset_breakers(which, actor=caller.name, reason=reason)}
