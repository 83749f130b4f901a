"""Force one user on or off, and stop forcing; and the page of all who are forced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import Response

from rollout.control.flags import set_override, unset_override
from rollout.domain.errors import InvalidValue
from rollout.domain.flag import Override, Variant
from rollout.domain.identity import check_reason, check_user_id
from rollout.domain.ledger import instant
from rollout.http.auth import Caller, Operator, ThePlane, Viewer
from rollout.http.pages.change import Field, Question, ask, head_of, revision_of
from rollout.http.pages.flag import OverrideForm, flag_values, forced_done, piece
from rollout.http.pages.render import fragment, page, see, wants_fragment
from rollout.http.pages.views import FlagView, ForcedUsers, flag_view, forced_users
from rollout.http.pages.words import parse_moment
from rollout.http.plane import Plane
from rollout.http.problems import status_of
from rollout.store.engine import Connection

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where on the pages somebody acts: the flag's page, or a page of all forced users, with its search."""

    whole: str = ""
    q: str = ""
    page: str = ""


def _place(whole: Field = "", q: Field = "", page: Field = "") -> Place:
    return Place(whole, q[:300], page)


ThePlace = Annotated[Place, Depends(_place)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants of one user."""

    user: str
    variant: str
    expires_at: str
    reason: str


def _wanted(user: Field = "", variant: Field = "", expires_at: Field = "", reason: Field = "") -> Wanted:
    return Wanted(user, variant, expires_at, reason)


@router.get("/flags/{key}/forced")
def show_forced(
    request: Request,
    key: str,
    plane: ThePlane,
    caller: Viewer,
    q: Annotated[str, Query(max_length=300)] = "",
    page: str = "",
    done: str = "",
) -> Response:
    """Show all who are forced, fifty on a page."""
    place = Place("yes", q, page)
    return _answer(request, plane, caller, key, place, whole=True, **forced_done(plane, key, done))


@router.post("/flags/{key}/overrides")
def post_override(
    request: Request,
    key: str,
    plane: ThePlane,
    caller: Operator,
    wanted: Annotated[Wanted, Depends(_wanted)],
    place: ThePlace,
    confirm: Annotated[str, Form()] = "",
) -> Response:
    """Force a user on or off, until a moment (UTC) if one is named; asks before it turns an override round."""
    before = head_of(plane)
    try:
        variant, ends = _variant(wanted.variant), parse_moment(wanted.expires_at, field="until")
        user, reason = check_user_id(wanted.user), check_reason(wanted.reason)
        with plane.door.reading() as connection:
            view = flag_view(connection, plane, key)
        standing = view.flag.overrides.get(user)
        if not confirm and standing is not None and standing.holds(view.now) and standing.variant is not variant:
            return ask(request, plane, caller, view, _question(view, wanted, place, standing))
        set_override(plane.door, key, user, variant, actor=caller.name, reason=reason, expires_at=ends)
    except InvalidValue as error:
        form = OverrideForm(wanted.user, wanted.variant[:3], wanted.expires_at[:40], wanted.reason, error.message)
        return _answer(request, plane, caller, key, place, status=status_of(error)[0], adding=form)
    plane.refresh()
    return _done(request, key, plane, caller, place, revision_of(plane, caller, f"override:{key}", before))


@router.post("/flags/{key}/overrides/remove")
def post_remove(
    request: Request,
    key: str,
    plane: ThePlane,
    caller: Operator,
    wanted: Annotated[Wanted, Depends(_wanted)],
    place: ThePlace,
) -> Response:
    """Stop forcing a user; the answer offers to take that back."""
    before = head_of(plane)
    unset_override(plane.door, key, wanted.user, actor=caller.name, reason=wanted.reason or None)
    plane.refresh()
    return _done(request, key, plane, caller, place, revision_of(plane, caller, f"override:{key}", before))


def _question(view: FlagView, wanted: Wanted, place: Place, standing: Override) -> Question:
    key, to = view.flag.key, "the gateway" if wanted.variant == "on" else "the direct path"
    until = f" until {instant(standing.expires_at)}" if standing.expires_at else ""
    why = f", because: {standing.reason}" if standing.reason else ""
    return Question(
        route=f"/flags/{key}/overrides",
        title=f"Force {wanted.user} {wanted.variant} instead of {standing.variant}?",
        said=[
            f"{wanted.user} is forced {standing.variant} now{until}{why}.",
            f"{wanted.user} takes the direct path until the flag is restored, and then {to}."
            if view.flag.killed
            else f"From the next request on {wanted.user} takes {to}, whatever the share is.",
        ],
        button=f"Force {wanted.variant}",
        fields={
            "user": wanted.user,
            "variant": wanted.variant,
            "expires_at": wanted.expires_at,
            "reason": wanted.reason,
            "whole": place.whole,
            "q": place.q,
            "page": place.page,
        },
        target="#overrides",
        seen=view.flag.revision,
        about="user",
    )


def _done(request: Request, key: str, plane: Plane, caller: Caller, place: Place, done: int) -> Response:
    if not wants_fragment(request):
        if not place.whole:
            return see(request, f"/flags/{key}?done={done}#forced")
        with plane.door.reading() as connection:
            forced = _listed(connection, plane, key, place)[1]
        address = forced.address(key, forced.page)
        return see(request, f"{address}{'&' if '?' in address else '?'}done={done}#forced")
    said, headers = forced_done(plane, key, str(done)), {"HX-Trigger-After-Settle": "changed"}
    return _answer(request, plane, caller, key, place, headers=headers, **said)


def _listed(connection: Connection, plane: Plane, key: str, place: Place) -> tuple[FlagView, ForcedUsers]:
    view = flag_view(connection, plane, key)
    return view, forced_users(connection, view, place.q, place.page, whole=bool(place.whole))


def _answer(
    request: Request,
    plane: Plane,
    caller: Caller,
    key: str,
    place: Place,
    *,
    status: int = 200,
    whole: bool = False,
    **values: Any,
) -> Response:
    """Answer the list where somebody stands: as a piece to htmx, else as the page it belongs to."""
    with plane.door.reading() as connection:
        view, forced = _listed(connection, plane, key, place)
        shown = flag_values(connection, plane, view) | {"forced": forced} | values
    headers = shown.pop("headers", None)
    if not whole and wants_fragment(request):
        return fragment(request, plane, caller, "_overrides.html", status=status, headers=headers, **shown)
    if place.whole:
        return page(request, plane, caller, "forced.html", status=status, **shown)
    return piece(request, plane, caller, key, "_overrides.html", status=status, forced=forced, **values)


def _variant(text: str) -> Variant:
    try:
        return Variant(text)
    except ValueError:
        raise InvalidValue(f"a user is forced on or off, not {text[:40]!r}", field="variant") from None
