"""Servers that fork their workers, in an environment of their own: a kill reaches every worker of each.

What uWSGI does without `--enable-threads` is no fault of the application: a kill arrives with the requests, and the
status says what to do.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.client.control_plane import ControlPlane

pytestmark = [pytest.mark.slow, pytest.mark.processes]

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".cache" / "prefork"
OURS = ("ROLLOUT_", "LITELLM_", "OPENROUTER_", "FORCE_DIRECT", "COVERAGE_")
WORKERS = 3
PATIENCE = 60.0

GUNICORN = ("gunicorn", "--bind", "127.0.0.1:{port}", "--workers", str(WORKERS), "prefork_app:application")
UWSGI = ("uwsgi", "--http-socket", "127.0.0.1:{port}", "--processes", str(WORKERS), "--wsgi", "prefork_app", "--master")
SERVERS = {
    "gunicorn": GUNICORN,
    "gunicorn, preloaded": (*GUNICORN, "--preload"),
    "gunicorn with threads, preloaded": (*GUNICORN, "--preload", "--worker-class", "gthread"),
    "gunicorn with gevent": (*GUNICORN, "--worker-class", "gevent"),
    "gunicorn with gevent, preloaded": (*GUNICORN, "--worker-class", "gevent", "--preload"),
    "uWSGI with threads": (*UWSGI, "--enable-threads"),
    "uWSGI with threads, loaded by each worker": (*UWSGI, "--enable-threads", "--lazy-apps"),
    "uWSGI without threads": UWSGI,
}


@pytest.fixture(scope="module")
def programs() -> Path:
    """Where the servers' programs lie; making their environment takes some seconds, once."""
    subprocess.run([sys.executable, ROOT / "bin" / "setup.py", ENVIRONMENT, ROOT / "locks" / "prefork.txt"], check=True)
    return ENVIRONMENT / "bin"


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    plane.snapshot = plane.at(share=100_000, revision=1)
    yield plane
    plane.stop()


@pytest.mark.parametrize("server", SERVERS)
def test_a_kill_reaches_every_worker(server: str, programs: Path, plane: ControlPlane, tmp_path: Path) -> None:
    with _serving(programs, SERVERS[server], plane, tmp_path) as ask:
        _until_all(ask, lambda said: said["cause"] == "percentage" and said["state"] == "following")
        plane.snapshot = plane.at(share=100_000, revision=2, killed=True)
        workers = _until_all(ask, lambda said: said["cause"] == "kill_switch")
    if server == "uWSGI without threads":
        assert all("--enable-threads" in " ".join(said["problems"]) for said in workers), workers
    else:
        assert not any(said["problems"] for said in workers), workers


class Ask:
    """Asks an application's workers, several at once, so that each of them is asked."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/"

    def _once(self, _: int) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(self._url, timeout=10) as answer:
                said: dict[str, Any] = json.load(answer)
                return said
        except OSError:
            return None  # it does not listen yet

    def all(self) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(2 * WORKERS) as asking:
            return [said for said in asking.map(self._once, range(2 * WORKERS)) if said is not None]


def _until_all(ask: Ask, true: Any) -> list[dict[str, Any]]:
    """Ask until the newest answer of every worker is as wanted; return those answers."""
    end, newest = time.monotonic() + PATIENCE, dict[int, dict[str, Any]]()
    while len(newest) < WORKERS or not all(map(true, newest.values())):
        assert time.monotonic() < end, newest
        newest |= {said["pid"]: said for said in ask.all()}
        time.sleep(0.1)
    return list(newest.values())


@contextlib.contextmanager
def _serving(programs: Path, command: tuple[str, ...], plane: ControlPlane, folder: Path) -> Iterator[Ask]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environ |= {
        "ROLLOUT_URL": plane.url,
        "ROLLOUT_DATA_DIR": str(folder / "data"),
        "PYTHONPATH": str(Path(__file__).parent),
        "VIRTUAL_ENV": str(programs.parent),  # where uWSGI, which embeds its Python, finds the packages
    }
    program, *options = (word.format(port=port) for word in command)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([programs / program, *options], env=environ, cwd=folder, stdout=log, stderr=log)
        try:
            yield Ask(port)
        except AssertionError as error:
            error.add_note((folder / "log").read_text(errors="replace")[-3000:])
            raise
        finally:
            server.send_signal(signal.SIGINT)  # to uWSGI, SIGTERM means "reload"
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
