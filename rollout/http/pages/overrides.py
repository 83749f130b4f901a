"""Force one user on or off, and stop forcing."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from rollout.control.flags import set_override, unset_override
from rollout.domain.errors import InvalidValue
from rollout.domain.flag import Variant
from rollout.http.auth import Operator, ThePlane
from rollout.http.pages.change import Field, head_of, revision_of
from rollout.http.pages.flag import OverrideForm, done_entry, piece
from rollout.http.pages.render import see, wants_fragment
from rollout.http.pages.words import parse_moment
from rollout.http.problems import status_of

router = APIRouter(include_in_schema=False)


@router.post("/flags/{key}/overrides")
def post_override(
    request: Request,
    key: str,
    plane: ThePlane,
    caller: Operator,
    user: Field = "",
    variant: Field = "",
    expires_at: Field = "",
    reason: Field = "",
) -> Response:
    """Force a user on or off, until a moment (UTC) where one is named."""
    before = head_of(plane)
    try:
        set_override(
            plane.door,
            key,
            user,
            _variant(variant),
            actor=caller.name,
            reason=reason or None,
            expires_at=parse_moment(expires_at, field="until"),
        )
    except InvalidValue as error:
        form = OverrideForm(user[:1000], variant[:3], expires_at[:40], reason[:1000], error.message)
        return piece(request, plane, caller, key, "_overrides.html", status=status_of(error)[0], adding=form)
    plane.refresh()
    done = revision_of(plane, caller, f"override:{key}", before)
    return _done(request, key, plane, caller, done)


@router.post("/flags/{key}/overrides/remove")
def post_remove(
    request: Request, key: str, plane: ThePlane, caller: Operator, user: Field = "", reason: Field = ""
) -> Response:
    """Stop forcing a user."""
    before = head_of(plane)
    unset_override(plane.door, key, user, actor=caller.name, reason=reason or None)
    plane.refresh()
    return _done(request, key, plane, caller, revision_of(plane, caller, f"override:{key}", before))


def _done(request: Request, key: str, plane: ThePlane, caller: Operator, done: int) -> Response:
    if not wants_fragment(request):
        return see(request, f"/flags/{key}?done={done}#forced")
    entry = done_entry(plane, str(done))
    return piece(
        request, plane, caller, key, "_overrides.html", done=entry, headers={"HX-Trigger-After-Settle": "changed"}
    )


def _variant(text: str) -> Variant:
    try:
        return Variant(text)
    except ValueError:
        raise InvalidValue(f"a user is forced on or off, not {text[:40]!r}", field="variant") from None
