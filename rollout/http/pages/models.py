"""Edit the cascade, lift models that are out, reset breakers: plain forms on the gateway's page.

A refusal shows the page again with what was typed still in it.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from rollout.control.installation import set_cascade
from rollout.control.models import lift
from rollout.domain.errors import RolloutError, StaleChange
from rollout.domain.ledger import Entry
from rollout.http.auth import Operator, ThePlane, Viewer
from rollout.http.pages.change import MEANWHILE, Field, head_of, parse_seen, revision_of
from rollout.http.pages.gateway import CascadeForm, as_lines, gateway_page
from rollout.http.pages.notices import notices
from rollout.http.pages.render import fragment, see, wants_fragment
from rollout.http.plane import Plane
from rollout.http.problems import status_of
from rollout.store.flags import read_cascade
from rollout.store.ledger import AuditFilter, list_entries

router = APIRouter(include_in_schema=False)

_LONGEST: Final = 10_000  # twenty model ids are at most 4,000 characters


@router.get("/gateway/notices")
def show_notices(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Show what everybody should know on every page."""
    if not wants_fragment(request):
        return gateway_page(request, plane, caller)
    return fragment(request, plane, caller, "_notices.html", notices=notices(plane))


@router.post("/gateway/cascade")
def post_cascade(
    request: Request,
    plane: ThePlane,
    caller: Operator,
    models: Field = "",
    add: Field = "",
    reason: Field = "",
    seen: Field = "",
) -> Response:
    """Set the cascade, one model a line; `add` instead puts one more at the end of what is stored."""
    typed = models[:_LONGEST]
    try:
        with plane.door.reading() as connection:
            stored = read_cascade(connection).models
        wanted = [*stored, add] if add else typed.split()
        before = head_of(plane)
        set_cascade(
            plane.door,
            wanted,
            actor=caller.name,
            reason=reason or None,
            seen=parse_seen(seen),
            allow_paid=plane.settings.upstreams.allow_paid,
        )
    except RolloutError as error:
        form = _refused(plane, CascadeForm(as_lines(tuple(wanted)) if add else typed, reason[:1000]), error)
        return gateway_page(request, plane, caller, status=status_of(error)[0], form=form)
    plane.refresh()
    return see(request, f"/gateway?done={revision_of(plane, caller, 'cascade', before)}#cascade")


@router.post("/gateway/cascade/lift")
def post_lift(request: Request, plane: ThePlane, caller: Operator, model: Field = "", reason: Field = "") -> Response:
    """Put a model that is out back into the live order."""
    before = head_of(plane)
    lift(plane.door, model, actor=caller.name, reason=reason or None)
    plane.refresh()
    return see(request, f"/gateway?done={revision_of(plane, caller, f'model:{model}', before)}#cascade")


@router.post("/gateway/breakers/reset")
def post_reset(request: Request, plane: ThePlane, caller: Operator, which: Field = "", reason: Field = "") -> Response:
    """Close breakers and forget a remembered cap, one or all."""
    before = head_of(plane)
    plane.reset_breakers(which or None, actor=caller.name, reason=reason or None)
    return see(request, f"/gateway?done={revision_of(plane, caller, 'breakers', before)}#breakers")


def _refused(plane: Plane, form: CascadeForm, error: RolloutError) -> CascadeForm:
    message, entries = error.message, list[Entry]()
    if isinstance(error, StaleChange):
        with plane.door.reading() as connection:
            entries = list_entries(connection, AuditFilter(subject="cascade"), after=error.seen, limit=MEANWHILE)
        message = "Nothing was changed. What you wanted is still filled in: look at what changed, then save again"
    return CascadeForm(form.models, form.reason, status_of(error)[1], message, tuple(entries))
