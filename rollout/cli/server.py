"""What a server on this machine says of itself, on routes that need no access token."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from rollout.files import write_whole
from rollout.settings import Settings

_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "::1"}  # noqa: S104 - names compared with, nothing is bound
_PATIENCE_SECONDS: Final = 2.0
_ADDRESS: Final = "server.json"


def address_of(settings: Settings) -> str | None:
    """Return where a server with these settings answers on this machine; None where that cannot be known.

    Without a port of their own, settings mean the server that runs in the data folder, where one does.
    """
    if (settings.port == 0 or not settings.port_given) and (left := _left_address(settings.data_dir)) is not None:
        return left
    return url_of(settings.host, settings.port) if settings.port else None


def url_of(host: str, port: int) -> str:
    """Return the URL under which a server that listens there is reached on this machine."""
    host = _ANY.get(host, host).strip("[]")
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.contextmanager
def address_left(data_dir: Path, address: str) -> Iterator[None]:
    """Leave our address in the data folder while the block lasts, for commands that are given no port.

    Only a convenience: where it cannot be written, commands have to be told.
    """
    file = data_dir / _ADDRESS
    ours = {"address": address, "pid": os.getpid()}
    with contextlib.suppress(OSError):
        write_whole(file, json.dumps(ours).encode())
    try:
        yield
    finally:
        if _read(file) == ours:  # else another server of this folder came after us
            with contextlib.suppress(OSError):
                file.unlink()


def _left_address(data_dir: Path) -> str | None:
    """Return the address a server left, where that server still runs and is listened to."""
    left = _read(data_dir / _ADDRESS)
    if left is None:
        return None
    address, pid = left.get("address"), left.get("pid")
    if not isinstance(address, str) or not isinstance(pid, int) or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass  # it runs, as somebody else
    except (OSError, OverflowError):
        return None  # killed before it could take the file away
    return address if ask(address, "/livez") is not None else None


def _read(file: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


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
