"""The outermost layer, plain ASGI: which hosts are answered, how large a body may be, what browsers may do.

A page on another site can make a browser call 127.0.0.1 under a name of its own (DNS rebinding); checking the
Host header stops that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from ipaddress import IPv6Address
from typing import Any, Final

from rollout.dispatch.asgi import CallerLeft
from rollout.http.bodies import BodyRefused, take_body
from rollout.settings import Settings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ORIGIN: Final = re.compile(r"(https?)://(\[[^\[\]]*\]|[^:/\[\]@?#]+)(?::([0-9]{1,5}))?")
_HOST: Final = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")
_DNS_NAME: Final = re.compile(r"[a-z0-9._-]*")

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
_PROBES: Final = frozenset({"/livez", "/readyz"})
"""Asked by the address of a pod; they hold nothing that a page on another site could want."""

_SHOWN: Final = 5  # of the names a refusal lists
_ANY: Final = frozenset({"", "0.0.0.0", "::", "[::]"})  # noqa: S104 - names compared with, nothing is bound here

_HEADERS: Final = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Return the host names this process answers to, lower case and without ports."""
    bound = settings.host.lower()
    given = {bound, *settings.allowed_hosts} - _ANY
    return LOOPBACK | {host_name(f"[{name}]" if name.count(":") > 1 and name[0] != "[" else name) for name in given}


class HostCheck:
    """Refuse requests for a host that is not ours, on every route; `*` among the names allows any."""

    def __init__(self, app: App, hosts: frozenset[str]) -> None:
        self._app, self._hosts = app, hosts
        self._seen: set[bytes] = set()  # raw Host headers found good; there are a handful

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] not in _PROBES:
            host = next((value for name, value in scope["headers"] if name == b"host"), b"")
            if host not in self._seen:
                name = host_name(host.decode("latin-1").lower())
                if name not in self._hosts and not ("*" in self._hosts and _is_name(name)):
                    await refuse(send, 421, "This host is not answered here", self._unknown(name))
                    return
                if len(self._seen) < 100:
                    self._seen.add(host)
        await self._app(scope, receive, send)

    def _unknown(self, name: str) -> str:
        known = sorted(self._hosts)
        expected = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
        return (
            f"the request names the host {name[:80]!r}, which is not among the hosts this server answers to; "
            f"add it to ROLLOUT_ALLOWED_HOSTS, or let the proxy in front keep the Host header. Known: {expected[:100]}"
        )


class BrowserRules:
    """Add security headers to every answer, and stop what no route should have to read.

    Args:
        app: what answers.
        known: says whether an access token holds, so that its request may carry more; see `bodies`.
    """

    def __init__(self, app: App, known: Callable[[str], bool] = lambda _: False) -> None:
        self._app, self._known = app, known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if not scope.get("query_string", b"").isascii():
            await refuse(send, 400, "That URL cannot be read", "a query string is ASCII: encode the rest with %")
            return
        try:
            body = await take_body(scope, receive, self._known)
        except CallerLeft:
            return  # half a request is none: a kill or a restore works without a body too
        except BodyRefused as refused:
            await refuse(send, refused.status, refused.title, refused.detail, refused.headers)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                headers += _HEADERS
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        await self._app(scope, replay, with_headers)


def host_name(host: str) -> str:
    """Return the name in a Host header, an IPv6 address in its brackets; the whole text where it is no such thing."""
    found = _HOST.fullmatch(host)
    return _shortest(found[1]) if found else host


def _shortest(name: str) -> str:
    """Return an IPv6 address in brackets in its shortest form, so that one address has one name."""
    if not name.startswith("["):
        return name
    try:
        return f"[{IPv6Address(name[1:-1])}]"
    except ValueError:
        return name


def _is_name(name: str) -> bool:
    """Tell whether a host's name is one at all: what is not would only fail later, where addresses are put together."""
    if not name.startswith("["):
        return _DNS_NAME.fullmatch(name) is not None
    try:
        return bool(IPv6Address(name[1:-1]))
    except ValueError:
        return False


def is_origin_of(origin: str, host: str) -> bool:
    """Tell whether an Origin header names the place that a Host header names.

    A proxy may write out the port that the scheme has anyway, or leave any port out. Without a port only the name
    can be compared; on loopback, where other programs have other ports of the same name, none means the scheme's own.
    """
    found = _ORIGIN.fullmatch(origin.lower())
    here = _HOST.fullmatch(host.lower())
    if found is None or here is None or not here[1] or _shortest(found[2]) != _shortest(here[1]):
        return False
    usual = "443" if found[1] == "https" else "80"
    port = host.rpartition(":")[2] if host.lower() != here[1] else ""
    if not port:
        return _shortest(here[1]) not in LOOPBACK or (found[3] or usual) == usual
    return (found[3] or usual) == port


async def refuse(send: Send, status: int, title: str, detail: str, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer a problem document with the headers every answer has, and `more`."""
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *_HEADERS,
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
