"""Name who is asking once per request, for ASGI and for WSGI applications.

    app = RolloutUserMiddleware(app)                        # FastAPI, Starlette, any ASGI
    app.add_middleware(RolloutUserMiddleware)               # the same, Starlette's way
    application = RolloutUserWSGIMiddleware(application)    # Flask, Django, any WSGI

The user is whoever the application has signed in, else the header `X-Rollout-User`; `user_of` replaces that.
Both write the context variable of `rollout.user`, so that calls deep inside need no argument.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final

from rollout.client.user import user, user_from_header
from rollout.domain.identity import user_id

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_log: Final = logging.getLogger("rollout.middleware")
_HEADER: Final = b"x-rollout-user"


def user_of_scope(scope: Scope) -> str | None:
    """Return who asks in an ASGI scope: the authenticated user's `username` or `identity`, else the header's."""
    signed_in = scope.get("user")
    if signed_in is not None and getattr(signed_in, "is_authenticated", False) is True:
        for name in ("username", "identity"):
            try:
                who = user_id(getattr(signed_in, name, None))
            except NotImplementedError:  # Starlette's BaseUser leaves its properties to be filled in
                continue
            if who:
                return who
    for name, value in scope.get("headers") or ():
        if bytes(name).lower() == _HEADER:
            return user_from_header(bytes(value)) or None
    return None


def user_of_environ(environ: dict[str, Any]) -> str | None:
    """Return who asks in a WSGI environ: `REMOTE_USER`, else the header's."""
    for name in ("REMOTE_USER", "HTTP_X_ROLLOUT_USER"):
        said = str(environ.get(name) or "")
        try:
            # WSGI hands bytes over as Latin-1 text (PEP 3333); the same user must read the same under ASGI
            who = user_from_header(said.encode("latin-1"))
        except UnicodeEncodeError:
            who = user_id(said)
        if who:  # one that says nothing does not beat the next
            return who
    return None


class RolloutUserMiddleware:
    """Name the user of every HTTP request and WebSocket of an ASGI application.

    Args:
        app: the application.
        user_of: returns the user of a scope, None for nobody; an error in it is logged and means nobody.
    """

    def __init__(self, app: ASGIApp, user_of: Callable[[Scope], str | None] = user_of_scope) -> None:
        self._app, self._user_of = app, user_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with the user named."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with user(_asked(self._user_of, scope)):
            await self._app(scope, receive, send)


class RolloutUserWSGIMiddleware:
    """Name the user of every request of a WSGI application, while its answer is iterated and closed too.

    Args:
        app: the application.
        user_of: returns the user of an environ, None for nobody; an error in it is logged and means nobody.
    """

    def __init__(self, app: WSGIApp, user_of: Callable[[dict[str, Any]], str | None] = user_of_environ) -> None:
        self._app, self._user_of = app, user_of

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Run the application with the user named."""
        who = _asked(self._user_of, environ)
        with user(who):
            body = self._app(environ, start_response)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, list | tuple) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            return body  # nothing of the application runs while it is iterated, and servers know these by their type
        return _Body(body, who)


class _Body:
    """An answer whose every piece, and whose end, is made with the user named."""

    def __init__(self, body: Iterable[bytes], who: str | None) -> None:
        self._body, self._who = body, who
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        # set anew for each piece: a server may take them in other threads, and serve others in between
        with user(self._who):
            if self._pieces is None:
                self._pieces = iter(self._body)
            return next(self._pieces)

    def close(self) -> None:
        """Close the application's answer, as a server does at its end or when the caller went away."""
        close = getattr(self._body, "close", None)
        if close is not None:
            with user(self._who):
                close()


def _asked(user_of: Callable[[Any], str | None], request: Any) -> str | None:
    try:
        return user_of(request)
    except Exception:  # noqa: BLE001 - who asks is a convenience, never a reason to fail a request
        _log.exception("user_of failed; this request has no user and goes the direct path unless the share is 100 %")
        return None
