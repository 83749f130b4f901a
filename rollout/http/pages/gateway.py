"""The gateway, the upstream and the cascade, as they are now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fastapi import APIRouter, Request
from starlette.responses import Response

from rollout.domain.cascade import ListedModel
from rollout.gateway.upstream import UpstreamPhase
from rollout.http.auth import ThePlane, Viewer
from rollout.http.pages.render import fragment, page, wants_fragment
from rollout.http.pages.views import Tone, gateway_view
from rollout.http.plane import Plane

router = APIRouter(include_in_schema=False)

_UPSTREAM = {
    UpstreamPhase.UNKNOWN: Tone.BUSY,
    UpstreamPhase.OK: Tone.GOOD,
    UpstreamPhase.UNREACHABLE: Tone.BAD,
    UpstreamPhase.KEY_MISSING: Tone.BAD,
    UpstreamPhase.KEY_REFUSED: Tone.BAD,
}


@dataclass(frozen=True, slots=True)
class CascadeRow:
    """One model of the cascade and how the upstream lists it; None where it does not."""

    place: int
    model: str
    listed: ListedModel | None


@router.get("/gateway")
def show_gateway(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Show the gateway's page."""
    return page(request, plane, caller, "gateway.html", **_values(plane))


@router.get("/gateway/state")
def show_gateway_state(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Show what changes on it."""
    if not wants_fragment(request):
        return show_gateway(request, plane, caller)
    return fragment(request, plane, caller, "_gateway.html", **_values(plane))


def _values(plane: Plane) -> dict[str, Any]:
    upstream, cascade = plane.upstream(), plane.published.cascade
    listed = {model.id: model for model in upstream.models}
    return {
        "gateway": gateway_view(plane.gateway()),
        "upstream": upstream,
        "upstream_url": _without_secrets(upstream.base_url),
        "upstream_tone": _UPSTREAM[upstream.phase],
        "checked_at": None if upstream.checked_at is None else datetime.fromtimestamp(upstream.checked_at, UTC),
        "free": sum(model.free for model in upstream.models),
        "rows": [CascadeRow(place, model, listed.get(model)) for place, model in enumerate(cascade.models, 1)],
        "cascade": cascade,
        "preflight": plane.preflight(),
    }


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
