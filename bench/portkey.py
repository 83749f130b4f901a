"""Portkey's gateway beside us, where node and npm are: `python -m bench.portkey` installs it, or says why it cannot.

It has no lock with hashes as LiteLLM has: it is a peer for benchmarks, pinned by its version, without its scripts.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.processes import ROOT, Server, free_port

PACKAGE: Final = "@portkey-ai/gateway"
RELEASE: Final = "1.15.2"
FOLDER: Final = ROOT / ".cache" / "portkey"

_NPM_SECONDS: Final = 300
_ANSWER_SECONDS: Final = 10


def install(folder: Path, search: str) -> str | None:
    """Install the pinned release into a folder, unless it is there.

    Args:
        folder: where.
        search: the search path on which node and npm are looked for, as in PATH.

    Returns:
        why it cannot be run here; None where it can.
    """
    if why := _tools_missing(search):
        return why
    if installed_release(folder) == RELEASE:
        return None
    npm = shutil.which("npm", path=search)
    assert npm is not None
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--ignore-scripts", "--no-package-lock", "--save-exact", "--no-fund", "--no-audit", "--loglevel=error")
    command = [npm, "install", "--prefix", str(folder), f"{PACKAGE}@{RELEASE}", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_NPM_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"npm took longer than {_NPM_SECONDS} s"
    if done.returncode != 0:
        print(done.stderr.strip(), file=sys.stderr)
        return "npm could not install it"
    return None


def why_not(folder: Path, search: str) -> str | None:
    """Say why it cannot be run; None where it can."""
    if why := _tools_missing(search):
        return why
    found = installed_release(folder)
    return None if found == RELEASE else "not installed; run `make bench`"


def installed_release(folder: Path) -> str | None:
    """Return the version that is installed in a folder, None where none is."""
    try:
        document = json.loads((_home(folder) / "package.json").read_text(encoding="utf-8"))
        return str(document["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def headers(stub_port: int) -> Mapping[str, str]:
    """Return what a request carries, so that it goes to the stub."""
    return {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{stub_port}/v1"}


def server(name: str, folder: Path) -> Server:
    """Return the gateway, not started yet; it listens on this machine alone."""
    port = free_port()
    node = shutil.which("node")
    assert node is not None
    command = [
        node,
        "--require",
        str(ROOT / "bench" / "loopback.cjs"),
        str(_home(folder) / "build" / "start-server.js"),
        f"--port={port}",
        "--headless",
    ]
    kept = {variable: os.environ[variable] for variable in ("PATH", "HOME", "LANG", "TMPDIR") if variable in os.environ}
    return Server(name, command, port=port, environ=kept)


def answers(port: int, asked: bytes, end: bytes) -> bool:
    """Ask once; say whether an answer with status 200 holds what the stub's answer ends with."""
    held = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(asked)
            while piece := connection.recv(65536):
                held += piece
                if end in held:
                    break
    except OSError:
        return False
    return held.startswith(b"HTTP/1.1 200") and end in held


def _tools_missing(search: str) -> str | None:
    for tool in ("npm", "node"):
        if shutil.which(tool, path=search) is None:
            return f"no {tool}"
    return None


def _home(folder: Path) -> Path:
    return folder / "node_modules" / PACKAGE


if __name__ == "__main__":
    if reason := install(FOLDER, os.environ.get("PATH", os.defpath)):
        print(f"Portkey's gateway will be left out: {reason}", file=sys.stderr)
