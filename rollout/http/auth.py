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
from rollout.domain.errors import ForeignOrigin, NotAllowed, NotSignedIn
from rollout.domain.roles import Role
from rollout.http.plane import Plane
from rollout.http.security import is_origin_of

COOKIE: Final = "rollout_session"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling. `csrf` is empty for access tokens, which no browser sends by itself."""

    name: str
    role: Role
    csrf: str = ""

    def may(self, needed: Role) -> bool:
        """Say whether the caller's role reaches."""
        return self.role.reaches(needed)


def plane_of(request: Request) -> Plane:
    """Return the application's plane."""
    plane = request.app.state.plane
    assert isinstance(plane, Plane)  # noqa: S101 - set where the application is made
    return plane


async def _the_plane(request: Request) -> Plane:
    return plane_of(request)  # async: a plain function would wait for a thread, and they may all hang in the database


ThePlane = Annotated[Plane, Depends(_the_plane)]


def csrf_token(session_secret: str) -> str:
    """Return the CSRF token of a session, derived from its secret so that nothing has to be kept."""
    return hmac.new(session_secret.encode(), b"rollout csrf", hashlib.sha256).hexdigest()


def bearer(request: Request) -> str | None:
    """Return the secret of an `Authorization: Bearer` header."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def same_origin(request: Request) -> bool:
    """Say whether a browser's request comes from our own pages; one without an Origin is judged by Fetch Metadata."""
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
    if request.headers.get("content-type", "").startswith(("application/x-www-form-urlencoded", "multipart/")):
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
            return Caller(f"token {token.name}", token.role)
        # a proxy that signs people in may add a token of its own to a page's requests; a program's is always meant
        foreign = not secret.startswith(TOKEN_PREFIX) and not request.url.path.startswith("/api/")
        if not foreign or COOKIE not in request.cookies:
            raise NotSignedIn("this access token is not valid, or was revoked")
    cookie = request.cookies.get(COOKIE)
    if cookie is None:
        raise NotSignedIn("sign in, or send an access token as `Authorization: Bearer …`")
    session = await run_in_threadpool(session_of, plane.door, cookie)
    csrf = csrf_token(cookie)
    if request.method not in _SAFE:
        if not same_origin(request):
            raise ForeignOrigin(f"this change came from another site: {where_from(request)}. Nothing was done")
        if not hmac.compare_digest((await _csrf_given(request)).encode(), csrf.encode()):
            raise ForeignOrigin(
                "the form's token is missing or of another session; load the page again. Nothing was done"
            )
    return Caller(session.name, session.role, csrf)


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
