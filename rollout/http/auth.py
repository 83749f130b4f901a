"""Who is calling, and whether that is enough: an annotated type on every route.

A caller comes with an access token (`Authorization: Bearer`) or with a session cookie. A cookie is sent by a
browser whoever wrote the page, so a change that comes with one also needs a same-origin `Origin` and the
session's own CSRF token, in the form field `csrf` or the header `X-CSRF-Token`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool

from rollout.control.access import TOKEN_PREFIX, session_of
from rollout.domain.access import Session
from rollout.domain.actor import Actor, ActorKind
from rollout.domain.errors import ForeignOrigin, NotAllowed, NotSignedIn
from rollout.domain.roles import Role
from rollout.http.plane import Plane
from rollout.http.security import is_origin_of
from rollout.store.access import list_sessions

_COOKIE: Final = "rollout_session"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling. `name` is what the ledger says, with the kind of actor.

    `csrf` and `session`, the id of the caller's session, are empty for access tokens, which no browser sends by itself.
    """

    name: Actor
    role: Role
    csrf: str = ""
    session: str = ""

    def may(self, needed: Role) -> bool:
        """Tell whether the caller's role reaches."""
        return self.role.reaches(needed)


def plane_of(request: Request) -> Plane:
    """Return the application's plane."""
    plane = request.app.state.plane
    assert isinstance(plane, Plane)  # noqa: S101 - set where the application is made
    return plane


async def _the_plane(request: Request) -> Plane:
    return plane_of(request)  # async: a plain function would wait for a thread, and they may all hang in the database


ThePlane = Annotated[Plane, Depends(_the_plane)]


def cookie_name(plane: Plane) -> str:
    """Return the name of the session's cookie.

    A browser keeps one set of cookies for all ports of a host, so the name carries the installation: two servers on
    one host do not sign each other's users out.
    """
    return f"{_COOKIE}_{plane.published.installation[:12]}"


def session_cookie(request: Request, plane: Plane) -> str:
    """Return the secret of the session a request came with; empty if it came with none."""
    return request.cookies.get(cookie_name(plane), "")


def csrf_token(session_secret: str) -> str:
    """Return the CSRF token of a session, derived from its secret so that nothing has to be kept."""
    return hmac.new(session_secret.encode(), b"rollout csrf", hashlib.sha256).hexdigest()


def bearer(request: Request) -> str | None:
    """Return the secret of an `Authorization: Bearer` header."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def same_origin(request: Request) -> bool:
    """Tell whether a browser's request comes from our own pages; one without an Origin is judged by Fetch Metadata."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin == "null":
        # a page that sends no referrer says no origin either; only the browser itself knows that it is ours
        return site == "same-origin"
    if origin is not None:
        return is_origin_of(origin, request.headers.get("host", "")) and site not in {"cross-site", "same-site"}
    return site in {None, "same-origin", "none"}


def where_from(request: Request) -> str:
    """Say where a change came from and where it should have."""
    seen = request.headers.get("origin") or request.headers.get("sec-fetch-site") or "no origin"
    host = request.headers.get("host", "")
    return f"the browser says {seen[:100]!r}, and these pages are at {host[:100]!r}"


async def _csrf_given(request: Request) -> str:
    header = request.headers.get("x-csrf-token")
    if header is not None:
        return header
    if request.headers.get("content-type", "").lower().startswith("application/x-www-form-urlencoded"):
        return str((await request.form()).get("csrf", ""))
    return ""


async def caller_of(request: Request, plane: ThePlane) -> Caller:
    """Return who is calling.

    Raises:
        NotSignedIn: neither an access token nor a session that holds came along.
        ForeignOrigin: a change came with a cookie from another site, or without the session's CSRF token.
    """
    if (secret := bearer(request)) is not None:
        token = plane.token_of(secret)
        if token is not None:
            return Caller(Actor(f"token {token.name}", ActorKind.TOKEN), token.role)
        # a proxy that signs people in may add a token of its own to a page's requests; a program's is always meant
        foreign = not secret.startswith(TOKEN_PREFIX) and not str(request.scope["path"]).startswith("/api/")
        if not foreign or not session_cookie(request, plane):
            raise NotSignedIn("this access token is not valid, ran out, or was revoked")
    cookie = session_cookie(request, plane)
    if not cookie:
        raise NotSignedIn("sign in, or send an access token as `Authorization: Bearer …`")
    session = await run_in_threadpool(session_of, plane.door, cookie)
    plane.uses.session(session.id)
    csrf = csrf_token(cookie)
    if request.method not in _SAFE:
        if not same_origin(request):
            raise ForeignOrigin(f"this change came from another site: {where_from(request)}. Nothing was done")
        if not hmac.compare_digest((await _csrf_given(request)).encode(), csrf.encode()):
            raise ForeignOrigin(
                "the form's token is missing or of another session; load the page again. Nothing was done"
            )
    return Caller(Actor(session.name, ActorKind.PERSON), session.role, csrf, session.id)


def checked_session(caller: Caller, session_id: str) -> None:
    """Check that a caller may end a session: one's own, and with the role admin any.

    Raises:
        NotAllowed: it is another's.
    """
    if session_id != caller.session and not caller.may(Role.ADMIN):
        raise NotAllowed(f"another's session is for the role {Role.ADMIN}; you have {caller.role}. Nothing was done")


def sessions_of(plane: Plane, caller: Caller) -> list[Session]:
    """List the sessions and unused links a caller may see: one's own, and with the role admin all."""
    with plane.door.reading() as connection:
        found = list_sessions(connection, plane.now())
    return [session for session in found if caller.may(Role.ADMIN) or session.id == caller.session]


def _needing(needed: Role) -> Callable[[Caller], Awaitable[Caller]]:
    async def check(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        if not caller.may(needed):
            raise NotAllowed(f"this needs the role {needed}; you have {caller.role}. Nothing was done")
        return caller

    return check


Evaluator = Annotated[Caller, Depends(_needing(Role.EVALUATE))]
Viewer = Annotated[Caller, Depends(_needing(Role.VIEWER))]
Operator = Annotated[Caller, Depends(_needing(Role.OPERATOR))]
Admin = Annotated[Caller, Depends(_needing(Role.ADMIN))]
