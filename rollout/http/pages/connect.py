"""Connect an application: lines to copy, and access tokens."""

from __future__ import annotations

import shlex
from datetime import datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from rollout.control.access import NewToken, create_token, revoke
from rollout.domain.access import AccessToken
from rollout.domain.cascade import PLANNED_MODELS
from rollout.domain.errors import InvalidValue
from rollout.domain.roles import Role, check_role
from rollout.gateway.upstream import SIMULATOR_KEY
from rollout.http.auth import Admin, Caller, ThePlane, Viewer
from rollout.http.pages.change import Field
from rollout.http.pages.render import fragment, page, see, wants_fragment
from rollout.http.plane import Plane
from rollout.http.problems import status_of
from rollout.settings import DEFAULT_OPENROUTER
from rollout.store.access import list_tokens

router = APIRouter(include_in_schema=False)

DAYS: Final = (7, 30, 90, 365)
"""After so many days an access token may be made to end, on this page; the API and the terminal take any moment."""

PLACEHOLDER = "<your access token>"
FILL_IN = "'<your key>'"


@router.get("/connect")
def show_connect(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Show how an application is connected."""
    return _answer(request, plane, caller, whole=True)


@router.get("/connect/tokens")
def show_tokens(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """List the access tokens."""
    return _answer(request, plane, caller)


@router.get("/connect/tokens/{token_id}/first")
def show_first(request: Request, token_id: str, plane: ThePlane, caller: Viewer) -> Response:
    """Say when the first request of an access token came to this server, and which way it took."""
    if not wants_fragment(request):
        return _answer(request, plane, caller, whole=True)
    return fragment(request, plane, caller, "_first.html", token_id=token_id, use=plane.first_use(token_id))


@router.post("/connect/tokens")
def post_token(
    request: Request,
    plane: ThePlane,
    caller: Admin,
    name: Field = "",
    role: Field = "evaluate",
    reason: Field = "",
    days: Field = "",
) -> Response:
    """Make an access token. The answer itself shows its secret: a redirect could not, it is kept nowhere."""
    try:
        ends = _expiry(days, plane.now())
        made = create_token(
            plane.door, name, check_role(role), actor=caller.name, reason=reason or None, expires_at=ends
        )
    except InvalidValue as error:
        return _answer(request, plane, caller, status=status_of(error)[0], error=error.message, name=name)
    plane.refresh()
    return _answer(request, plane, caller, made=made)


@router.post("/connect/tokens/{token_id}/revoke")
def post_revoke(request: Request, token_id: str, plane: ThePlane, caller: Admin, reason: Field = "") -> Response:
    """Revoke an access token: whoever uses it is refused from now on."""
    revoke(plane.door, token_id, actor=caller.name, reason=reason or None)
    plane.refresh()
    return _answer(request, plane, caller) if wants_fragment(request) else see(request, "/connect#tokens")


def _answer(
    request: Request,
    plane: Plane,
    caller: Caller,
    *,
    whole: bool = False,
    status: int = 200,
    made: NewToken | None = None,
    error: str | None = None,
    name: str = "",
) -> Response:
    values: dict[str, Any] = {
        "tokens": _tokens(plane),
        "made": made,
        "error": error,
        "token_name": name,
        "roles": list(Role),
        "days": DAYS,
        "base": str(request.base_url).rstrip("/"),
        "model_id": next(iter(plane.published.cascade.live), PLANNED_MODELS[0]),
        "secret": made.secret if made else None,
        "placeholder": PLACEHOLDER,
        "token_id": made.token.id if made else "",
        "use": plane.first_use(made.token.id) if made else None,
        "sending": _sending(plane),
    }
    if wants_fragment(request) and not whole:
        return fragment(request, plane, caller, "_connect.html", status=status, **values)
    return page(request, plane, caller, "connect.html", status=status, **values)


def _expiry(days: str, now: datetime) -> datetime | None:
    if not days:
        return None
    if days not in map(str, DAYS):
        raise InvalidValue(f"an access token ends after {', '.join(map(str, DAYS))} days or never", field="days")
    return now + timedelta(days=int(days))


def _sending(plane: Plane) -> str:
    """Return what an application that sends by itself is told beside: where to, and with which keys. No secret."""
    upstream, settings = plane.upstream(), plane.settings
    lines = []
    if upstream.simulated or upstream.base_url != DEFAULT_OPENROUTER:
        lines.append(f"export OPENROUTER_BASE_URL={shlex.quote(upstream.base_url)}")
    lines.append(f"export OPENROUTER_API_KEY={SIMULATOR_KEY if upstream.simulated else FILL_IN}")
    lines.append(f"export LITELLM_BASE_URL={shlex.quote(settings.upstreams.litellm_url)}")
    file = settings.data_dir.absolute() / "litellm.key"
    key = f'"$(cat {shlex.quote(str(file))})"' if settings.upstreams.litellm_key is None and file.is_file() else FILL_IN
    return "\n".join([*lines, f"export LITELLM_MASTER_KEY={key}"])


def _tokens(plane: Plane) -> list[AccessToken]:
    with plane.door.reading() as connection:
        now = plane.now()
        return sorted(list_tokens(connection), key=lambda token: (not token.holds(now), token.created_at))
