"""The kill switch and its way back. A kill asks for no revision and is never refused as stale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from rollout.control.flags import kill, restore
from rollout.domain.flag import Flag
from rollout.http.auth import Caller, Operator, ThePlane, Viewer
from rollout.http.pages.change import Field, head_of, revision_of
from rollout.http.pages.render import fragment, page, see, wants_fragment
from rollout.http.pages.views import flag_view
from rollout.http.plane import Plane

router = APIRouter(include_in_schema=False)


@router.get("/flags/{key}/stop")
def show_stop(request: Request, key: str, plane: ThePlane, caller: Viewer, was: str = "") -> Response:
    """Show the kill switch, or what lifts it; as a whole page it is the question before the act."""
    with plane.door.reading() as connection:
        view = flag_view(connection, plane, key)
    if not wants_fragment(request):
        return page(request, plane, caller, "stop.html", view=view)
    announce = was not in {"", "stopped" if view.flag.killed else "running"}
    return fragment(request, plane, caller, "_stop.html", view=view, announce=announce)


@router.post("/flags/{key}/kill")
def post_kill(request: Request, key: str, plane: ThePlane, caller: Operator, reason: Field = "") -> Response:
    """Send everybody direct, now."""
    return _switch(request, key, plane, caller, reason, kill)


@router.post("/flags/{key}/restore")
def post_restore(request: Request, key: str, plane: ThePlane, caller: Operator, reason: Field = "") -> Response:
    """Lift the kill switch."""
    return _switch(request, key, plane, caller, reason, restore)


def _switch(
    request: Request, key: str, plane: Plane, caller: Caller, reason: str, act: Callable[..., Flag]
) -> Response:
    before = head_of(plane)
    act(plane.door, key, actor=caller.name, reason=reason or None)
    plane.refresh()
    if not wants_fragment(request):
        done = revision_of(plane, caller, f"flag:{key}", before)
        return see(request, f"/flags/{key}?done={done}")
    with plane.door.reading() as connection:
        values: dict[str, Any] = {"view": flag_view(connection, plane, key), "announce": True}
    return fragment(request, plane, caller, "_stop.html", headers={"HX-Trigger-After-Settle": "changed"}, **values)
