"""Sign in with a one-time code, sign out, and see who is signed in.

The link carries the code in the URL's fragment, which no browser sends and no log holds; the page's script
posts it. It can be pasted as well.
"""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import Response

from rollout.control.access import MAX_SECRET, OpenedSession, end_session, redeem, session_of, sign_out
from rollout.domain.errors import ForeignOrigin, NotSignedIn
from rollout.domain.roles import Role
from rollout.http.auth import (
    Caller,
    Evaluator,
    ThePlane,
    caller_of,
    checked_session,
    cookie_name,
    same_origin,
    session_cookie,
    sessions_of,
    where_from,
)
from rollout.http.pages.change import Field, head_of, revision_of
from rollout.http.pages.flag import done_entry
from rollout.http.pages.render import fragment, page, plain, see, wants_fragment
from rollout.http.plane import Plane

router = APIRouter(include_in_schema=False)

_URL_MARKS: Final = "%/:?#[]@!$&'()*+,;=~-._"  # all that a URL may hold beside letters and digits, by RFC 3986


def same_site(where: str) -> str:
    """Return a path of our own to go on to, in ASCII; the start page for anything that could lead elsewhere."""
    own = where.startswith("/") and not where.startswith(("//", "/\\")) and where.isprintable()
    try:
        elsewhere = not own or "\\" in where or bool(urlsplit(where).netloc) or where.startswith("/sign-")
    except ValueError:
        return "/"
    return "/" if elsewhere else quote(where, safe=_URL_MARKS)


@router.get("/sign-in")
def show_sign_in(request: Request, next: str = "/", lost: str = "") -> Response:  # noqa: A002 - the parameter's public name
    """Say how to sign in."""
    return plain(request, "sign-in.html", status=200, next=same_site(next), error=None, lost=bool(lost))


@router.post("/sign-in")
async def post_sign_in(request: Request, plane: ThePlane, code: Field = "", next: Field = "/") -> Response:  # noqa: A002 - as above
    """Redeem a code; there is no session yet, so the request's origin is all there is to check.

    A code that is known in memory is redeemed however many others failed. Any other may come from a process beside
    this one a moment ago; it costs a look into the database, and so does it only while the throttle allows.
    """
    if not same_origin(request):
        raise ForeignOrigin(f"this sign-in came from another site: {where_from(request)}. Nobody was signed in")
    address, onward = request.client.host if request.client else "", same_site(next)
    code = code.rpartition("#code=")[2].strip()  # the whole link is as good as its code
    wait = plane.sign_ins.wait(address)
    if wait and not plane.knows_code(code):
        plane.sign_ins.failed(address)
        message = f"too many sign-ins failed; wait {wait} seconds. A code that is right is not refused"
        return _not_signed_in(request, 429, message, onward, {"Retry-After": str(wait)})
    try:
        opened = await run_in_threadpool(_redeem, plane, code)
    except NotSignedIn as error:
        plane.sign_ins.failed(address)
        if await run_in_threadpool(_is_signed_in, request, plane):
            return see(request, onward)
        return _not_signed_in(request, 401, error.message, onward)
    answer = see(request, onward)
    answer.set_cookie(
        cookie_name(plane),
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
    sign_out(plane.door, session_cookie(request, plane))
    answer = see(request, "/sign-in")
    answer.delete_cookie(
        cookie_name(plane), path="/", httponly=True, samesite="lax", secure=request.url.scheme == "https"
    )
    return answer


@router.get("/sessions")
def show_sessions(request: Request, plane: ThePlane, caller: Evaluator, done: str = "") -> Response:
    """List who is signed in and which links nobody used yet; without the role admin, the caller's own session."""
    return _sessions(request, plane, caller, done)


@router.post("/sessions/{session_id}/end")
def post_end(request: Request, session_id: str, plane: ThePlane, caller: Evaluator, reason: Field = "") -> Response:
    """End a session or an unused link: whoever holds it is refused from now on."""
    checked_session(caller, session_id)
    before = head_of(plane)
    end_session(plane.door, session_id, actor=caller.name, reason=reason or None)
    plane.refresh()
    if session_id == caller.session:
        return see(request, "/sign-in")
    done = str(revision_of(plane, caller, f"session:{session_id}", before))
    return (
        _sessions(request, plane, caller, done) if wants_fragment(request) else see(request, f"/sessions?done={done}")
    )


def _sessions(request: Request, plane: Plane, caller: Caller, done: str) -> Response:
    show = fragment if wants_fragment(request) else page
    template = "_sessions.html" if wants_fragment(request) else "sessions.html"
    all_of_them = caller.may(Role.ADMIN)
    said = done_entry(plane, done) if all_of_them else None  # an entry of the ledger is not for everybody
    sessions = sessions_of(plane, caller)
    return show(request, plane, caller, template, sessions=sessions, all_of_them=all_of_them, done=said)


def _not_signed_in(
    request: Request, status: int, message: str, onward: str, headers: dict[str, str] | None = None
) -> Response:
    return plain(request, "sign-in.html", status=status, headers=headers, next=onward, error=message, lost=False)


def _redeem(plane: Plane, code: str) -> OpenedSession:
    if len(code) > MAX_SECRET:
        raise NotSignedIn("that is no sign-in code, it is too long; make a new one with `rollout sign-in`")
    return redeem(plane.door, code)


def _is_signed_in(request: Request, plane: Plane) -> bool:
    try:
        session_of(plane.door, session_cookie(request, plane))
    except NotSignedIn:
        return False
    return True
