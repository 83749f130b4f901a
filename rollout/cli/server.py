"""What a server on this machine says of itself, on routes that need no access token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import httpx

from rollout.settings import Settings

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104 - names compared with, nothing is bound
_PATIENCE_SECONDS: Final = 2.0


def address_of(settings: Settings) -> str | None:
    """Return where a server with these settings answers on this machine; None where it picks a free port."""
    if settings.port == 0:
        return None
    host = _ANY.get(settings.host, settings.host).strip("[]")
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"


def ask(address: str | None, path: str) -> dict[str, Any] | None:
    """Ask a server of ours for a document; None where nobody answers, or somebody else."""
    if address is None:
        return None
    try:
        answer = httpx.get(f"{address}{path}", timeout=_PATIENCE_SECONDS, trust_env=False)
        document = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return document if answer.is_success and isinstance(document, dict) else None


def preflight_of(settings: Settings, installation: str) -> Sequence[str]:
    """Return what the running server of an installation says against raising a share; not knowing is a reason too."""
    address = address_of(settings)
    health, providers = ask(address, "/health"), ask(address, "/health/providers")
    if health is None or providers is None or not isinstance(providers.get("preflight"), list):
        where = f"at {address}" if address else "on a known port (ROLLOUT_PORT is 0)"
        return (
            f"no server of this installation answers {where}, so whether the gateway is healthy is not known "
            "(start `rollout up`, or set ROLLOUT_PORT to its port)",
        )
    if health.get("installation") != installation:
        return (f"the server at {address} belongs to another installation; set ROLLOUT_PORT to the port of this one",)
    return [str(problem) for problem in providers["preflight"]]
