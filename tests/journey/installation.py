"""A whole installation as real processes: `rollout up` with the simulator and the real LiteLLM."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).resolve().parents[2]
_T = TypeVar("_T")

LITELLM = ROOT / ".cache" / "litellm"


def wait_for(ask: Callable[[], _T | None], *, within: float, what: str) -> _T:
    """Ask until there is an answer; a test that waits in vain says for what."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if (answer := ask()) is not None:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come within {within:.0f} s")


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


@dataclass
class Installation:
    """One running `rollout up`; `said` is what it printed so far."""

    process: subprocess.Popen[str]
    data: Path
    url: str
    environ: dict[str, str]
    said: list[str] = field(default_factory=list)

    def sign_in_link(self) -> str:
        """Return the one-time link it printed."""
        return wait_for(lambda: self._found(r"(http\S+/sign-in#code=\S+)"), within=20, what="the sign-in link")

    def _found(self, pattern: str) -> str | None:
        found = re.search(pattern, "".join(self.said))
        return found[1] if found else None

    def providers(self) -> dict[str, Any]:
        """Return `/health/providers`."""
        document: dict[str, Any] = httpx.get(f"{self.url}/health/providers", timeout=5).json()
        return document

    def wait_until_healthy(self, *, restarts: int = 0) -> dict[str, Any]:
        """Wait until LiteLLM answers, after so many restarts at least; return the gateway's document."""

        def healthy() -> dict[str, Any] | None:
            gateway: dict[str, Any] = self.providers()["gateway"]
            return gateway if gateway["phase"] == "healthy" and gateway["restarts"] >= restarts else None

        return wait_for(healthy, within=180, what="a healthy gateway")

    def cli(self, *arguments: str) -> Any:
        """Run a command of the terminal beside the server; return what it printed as JSON."""
        done = subprocess.run(
            [sys.executable, "-m", "rollout", *arguments, "--json"],
            env=self.environ, cwd=self.data.parent, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stop(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=30)


@contextmanager
def installation(folder: Path, **more: str) -> Iterator[Installation]:
    """Run `rollout up` in a folder of its own; whatever happens, it is gone afterwards."""
    port, litellm_port = free_ports(2)
    ours = ("ROLLOUT_", "LITELLM_", "OPENROUTER_", "FORCE_DIRECT_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    data = folder / "data"
    environ |= {
        "ROLLOUT_DATA_DIR": str(data),
        "ROLLOUT_PORT": str(port),
        "LITELLM_PORT": str(litellm_port),
        "PYTHONUNBUFFERED": "1",
        **more,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "rollout", "up", "--litellm", str(LITELLM)],
        env=environ, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    made = Installation(process, data, f"http://127.0.0.1:{port}", environ)
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: made.said.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        yield made
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)
        reader.join(timeout=10)
        process.stdout.close()


def is_alive(pid: int) -> bool:
    """Say whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> set[int]:
    """Return every process below one."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        below.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in below.get(waiting.pop(), []):
            found.add(child)
            waiting.append(child)
    return found
