"""Answer only requests for a host of ours: a page of another site may call this machine under a name of its own."""

import json
import re
from collections.abc import Iterable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})

_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]*)(?::[0-9]*)?")


class HostCheck:
    """Refuses requests whose Host header names none of `hosts`, nor this machine's loopback."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = LOOPBACK | {f"[{host}]" if ":" in host else host for host in map(str.lower, hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            header = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1")
            if _name(header) not in self._hosts:
                message = f"{header[:100]!r} is no host of this simulator; start it with --host or --allow-host"
                body = json.dumps({"error": {"code": 421, "message": message}}).encode()
                headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
                await send({"type": "http.response.start", "status": 421, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)


def _name(header: str) -> str:
    """Return the name in a Host header, lower case; nothing of ours if there is more in it than a name and a port."""
    found = _HOST.fullmatch(header.lower())
    return found[1] if found else "?"
