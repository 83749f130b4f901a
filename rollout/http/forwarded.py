"""What a proxy says about the connection it took: believed from `ROLLOUT_TRUSTED_PROXIES` alone.

The scheme (`X-Forwarded-Proto`), the host (`X-Forwarded-Host`) and the caller's address (`X-Forwarded-For`), or the
same three in `Forwarded` (RFC 7239), take the place of what the connection itself says. Of a list the last entry
counts, which the proxy that speaks to us wrote; of addresses, the last that is no trusted proxy. From anybody else
these headers change nothing.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from rollout.http.security import App, Receive, Scope, Send, refuse

Networks = tuple[IPv4Network | IPv6Network, ...]

_PAIR: Final = re.compile(r'\s*([A-Za-z-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*')
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_SCHEMES: Final = frozenset({"http", "https"})


class Forwarded:
    """Let requests of trusted proxies be what their callers sent."""

    def __init__(self, app: App, trusted: Networks) -> None:
        self._app, self._trusted = app, trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        client = scope.get("client")
        if scope["type"] == "http" and client and self._is_trusted(client[0]):
            prefix = _last(scope, b"x-forwarded-prefix").strip("/")
            if prefix:
                await refuse(
                    send,
                    421,
                    "These pages need a host of their own",
                    f"the proxy serves them below the path {prefix[:80]!r}; give them a host name without a path",
                )
                return
            scope = self._as_sent(scope)
        await self._app(scope, receive, send)

    def _as_sent(self, scope: Scope) -> Scope:
        """Return a request as its caller sent it to the proxy."""
        said = _pairs(_last(scope, b"forwarded"))
        scheme = (_last(scope, b"x-forwarded-proto") or said.get("proto", "")).lower()
        host = _last(scope, b"x-forwarded-host") or said.get("host", "")
        changed: Scope = dict(scope)
        if scheme in _SCHEMES:
            changed["scheme"] = scheme
        if _HOST.fullmatch(host):
            others = [(name, value) for name, value in scope["headers"] if name != b"host"]
            changed["headers"] = [(b"host", host.encode("ascii")), *others]
        if (caller := self._caller(scope)) is not None:
            changed["client"] = (caller, 0)
        return changed

    def _caller(self, scope: Scope) -> str | None:
        """Return the address of whoever the outermost trusted proxy heard, None if nobody says."""
        listed = [part.strip() for part in _joined(scope, b"x-forwarded-for").split(",") if part.strip()]
        if not listed:
            listed = [_pairs(part).get("for", "") for part in _joined(scope, b"forwarded").split(",")]
        found = None
        for entry in reversed(listed):
            address = _address(entry)
            if address is None:
                break
            found = address
            if not self._is_trusted(address):
                break
        return found

    def _is_trusted(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        found = getattr(found, "ipv4_mapped", None) or found  # of a socket that speaks both
        return any(found in network for network in self._trusted)


def _joined(scope: Scope, wanted: bytes) -> str:
    return ",".join(value.decode("latin-1") for name, value in scope["headers"] if name == wanted)


def _last(scope: Scope, wanted: bytes) -> str:
    return _joined(scope, wanted).rpartition(",")[2].strip()


def _pairs(element: str) -> dict[str, str]:
    """Read one element of `Forwarded`; what is no pair is left aside."""
    pairs = (found for part in element.split(";") if (found := _PAIR.fullmatch(part)))
    return {
        found[1].lower(): re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else found[3] for found in pairs
    }


def _address(text: str) -> str | None:
    """Return the address in an entry of a list, which may carry a port."""
    text = text.strip().strip('"')
    bare = text[1:].partition("]")[0] if text.startswith("[") else text
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        return str(ip_address(bare))
    except ValueError:
        return None
