"""Sign in with a one-time code, and sign out.

The link carries the code in the URL's fragment, which no browser sends and no log holds; the page's script
posts it. It can be pasted as well.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from rollout.control.access import redeem, session_of, sign_out
from rollout.domain.errors import ForeignOrigin, NotSignedIn
from rollout.http.auth import COOKIE, Caller, ThePlane, caller_of, same_origin, where_from
from rollout.http.pages.change import Field
from rollout.http.pages.render import plain, see
from rollout.http.plane import Plane

router = APIRouter(include_in_schema=False)


def same_site(where: str) -> str:
    """Return a path of our own to go on to; the start page for anything that could lead elsewhere."""
    own = where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable()
    if not own or "\\" in where or urlsplit(where).netloc or where.startswith("/sign-"):
        return "/"
    return where


@router.get("/sign-in")
def show_sign_in(request: Request, next: str = "/", lost: str = "") -> Response:  # noqa: A002 - the parameter's public name
    """Say how to sign in."""
    return plain(request, "sign-in.html", status=200, next=same_site(next), error=None, lost=bool(lost))


@router.post("/sign-in")
def post_sign_in(request: Request, plane: ThePlane, code: Field = "", next: Field = "/") -> Response:  # noqa: A002 - as above
    """Redeem a code; there is no session yet, so the request's origin is all there is to check."""
    if not same_origin(request):
        raise ForeignOrigin(f"this sign-in came from another site: {where_from(request)}. Nobody was signed in")
    try:
        opened = redeem(plane.door, code.rpartition("#code=")[2])  # the whole link is as good as its code
    except NotSignedIn as error:
        if _is_signed_in(request, plane):
            return see(request, same_site(next))
        return plain(request, "sign-in.html", status=401, next=same_site(next), error=error.message, lost=False)
    answer = see(request, same_site(next))
    answer.set_cookie(
        COOKIE,
        opened.secret,
        max_age=max(0, int((opened.expires_at - plane.now()).total_seconds())),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post("/sign-out")
def post_sign_out(request: Request, plane: ThePlane, _caller: Annotated[Caller, Depends(caller_of)]) -> Response:
    """Close the session."""
    sign_out(plane.door, request.cookies.get(COOKIE, ""))
    answer = see(request, "/sign-in")
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax", secure=request.url.scheme == "https")
    return answer


def _is_signed_in(request: Request, plane: Plane) -> bool:
    try:
        session_of(plane.door, request.cookies.get(COOKIE, ""))
    except NotSignedIn:
        return False
    return True
