"""The gateway, the upstream, the quota, the breakers and the cascade, as they are now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fastapi import APIRouter, Request
from starlette.responses import Response

from rollout.domain.cascade import Cascade, ListedModel, ModelOut, ends_soon, propose_replacements
from rollout.domain.ledger import Entry
from rollout.http.auth import Caller, ThePlane, Viewer
from rollout.http.pages.flag import done_entry
from rollout.http.pages.health import UPSTREAM_TONES, paths_of, preflight_of
from rollout.http.pages.render import fragment, page, wants_fragment
from rollout.http.plane import Plane
from rollout.resilience.breaker import BreakerState
from rollout.resilience.permit import BreakerLine
from rollout.resilience.quota import Cap, QuotaStatus
from rollout.store.flags import read_cascade

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class CascadeRow:
    """One model of the cascade: its place in the live order, how the upstream lists it, why it is out."""

    place: int | None
    model: str
    listed: ListedModel | None
    out: ModelOut | None
    ends: date | None


@dataclass(frozen=True, slots=True)
class CascadeForm:
    """What somebody wanted the cascade to be, one model a line, and what came of it."""

    models: str
    reason: str = ""
    title: str = ""
    error: str = ""
    meanwhile: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class BreakerRow:
    """A breaker that is not closed. `tries_at` is when it lets a request through, None where it does so now."""

    line: BreakerLine
    which: str
    tries_at: datetime | None

    @property
    def soon(self) -> bool:
        """Whether that is too close to be counted in seconds."""
        return (self.line.status.opens_in or 0.0) < 6


@dataclass(frozen=True, slots=True)
class QuotaView:
    """The account's quota with its moments as times."""

    status: QuotaStatus
    resets_at: datetime
    blocked_until: datetime | None

    @property
    def minute_only(self) -> bool:
        """Whether it is the minute's cap that ends last: the day has room then."""
        return self.status.blocked_by is Cap.MINUTE


@router.get("/gateway")
def show_gateway(request: Request, plane: ThePlane, caller: Viewer, done: str = "") -> Response:
    """Show the gateway's page; `done` is the revision of what the caller has just changed."""
    return gateway_page(request, plane, caller, done=done_entry(plane, done))


@router.get("/gateway/state")
def show_gateway_state(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Show how LiteLLM and the upstream are."""
    return _piece(request, plane, caller, "_gateway.html")


@router.get("/gateway/breakers")
def show_breakers(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Show the quota and the breakers."""
    return _piece(request, plane, caller, "_breakers.html")


@router.get("/gateway/cascade")
def show_cascade(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Show the cascade and what is out of it."""
    return _piece(request, plane, caller, "_cascade.html")


@router.get("/gateway/proposed")
def show_proposed(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Show free models that could take a place in the cascade."""
    return _piece(request, plane, caller, "_proposed.html")


@router.get("/gateway/preflight")
def show_gateway_preflight(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Show what speaks against raising the share."""
    return _piece(request, plane, caller, "_gateway-preflight.html")


def gateway_page(request: Request, plane: Plane, caller: Caller, *, status: int = 200, **values: Any) -> Response:
    """Answer the whole page, with what somebody asked for in its place."""
    return page(request, plane, caller, "gateway.html", status=status, **(_values(plane) | values))


def as_lines(models: tuple[str, ...]) -> str:
    """Write model ids as people edit them."""
    return "\n".join(models)


def _piece(request: Request, plane: Plane, caller: Caller, template: str) -> Response:
    if not wants_fragment(request):
        return gateway_page(request, plane, caller)
    return fragment(request, plane, caller, template, **_values(plane))


def _values(plane: Plane) -> dict[str, Any]:
    upstream, state, now = plane.upstream(), plane.gateway(), plane.now()
    with plane.door.reading() as connection:
        cascade = read_cascade(connection)
    status = plane.gate.status() if plane.gate else None
    return {
        "done": None,
        "state": state,
        "gateway": paths_of(plane).gateway,
        "upstream": upstream,
        "upstream_url": _without_secrets(upstream.base_url),
        "upstream_tone": UPSTREAM_TONES[upstream.phase],
        "last_error_at": None if state.last_error_at is None else datetime.fromtimestamp(state.last_error_at, UTC),
        "checked_at": None if upstream.checked_at is None else datetime.fromtimestamp(upstream.checked_at, UTC),
        "free": sum(model.free for model in upstream.models),
        "rows": _rows(cascade, upstream.models, now),
        "elsewhere": [(model, out) for model, out in cascade.out.items() if model not in cascade.models],
        "needed": _needs_models(cascade, upstream.models, now),
        "proposed": propose_replacements(cascade, upstream.models, now),
        "cascade": cascade,
        "form": CascadeForm(as_lines(cascade.models)),
        "breakers": _breakers(status.breakers, now) if status else [],
        "quota": _quota(status.quota) if status else None,
        "preflight": preflight_of(plane),
    }


def _rows(cascade: Cascade, listed: tuple[ListedModel, ...], now: datetime) -> list[CascadeRow]:
    by_id = {model.id: model for model in listed}
    places = {model: place for place, model in enumerate(cascade.live, 1)}
    return [
        CascadeRow(places.get(model), model, by_id.get(model), cascade.out.get(model), ends_soon(by_id.get(model), now))
        for model in cascade.models
    ]


def _needs_models(cascade: Cascade, listed: tuple[ListedModel, ...], now: datetime) -> bool:
    """Tell whether the cascade could do with other models than those it has."""
    sound = {model.id for model in listed if model.free and ends_soon(model, now) is None}
    return not set(cascade.models) <= sound.difference(cascade.out) or not cascade.models


def _breakers(lines: tuple[BreakerLine, ...], now: datetime) -> list[BreakerRow]:
    return [
        BreakerRow(
            line,
            f"{line.path}/{line.model}" if line.model else str(line.path),
            (now + timedelta(seconds=line.status.opens_in)).replace(microsecond=0) if line.status.opens_in else None,
        )
        for line in lines
        if line.status.state is not BreakerState.CLOSED
    ]


def _quota(status: QuotaStatus) -> QuotaView:
    blocked = status.blocked_until
    return QuotaView(
        status,
        datetime.fromtimestamp(status.resets_at, UTC),
        None if blocked is None else datetime.fromtimestamp(blocked, UTC),
    )


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
