"""The wheel, installed into a clean environment and used from another folder than the checkout."""

import os
import re
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.processes]

ROOT = Path(__file__).resolve().parents[2]
OURS = ("ROLLOUT_", "LITELLM_", "OPENROUTER_", "FORCE_DIRECT", "COVERAGE_", "PYTHON")
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
PATIENCE = 60.0


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment that holds the wheel and what its lock names, nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    subprocess.run([sys.executable, *PIP, *build], check=True)
    (wheel,) = folder.glob("llm_rollout-*.whl")
    venv.create(folder / "environment", with_pip=True, symlinks=True)
    python = folder / "environment" / "bin" / "python"
    install = ("install", "--quiet", "--no-deps")
    locked = ("--require-hashes", "--only-binary=:all:", "--requirement", ROOT / "locks" / "server.txt")
    subprocess.run([python, *PIP, *install, *locked], check=True)
    subprocess.run([python, *PIP, *install, wheel], check=True)
    return python.parent


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return plain | {
        "ROLLOUT_PORT": str(port),
        "ROLLOUT_DATA_DIR": str(tmp_path / "data"),
        "LITELLM_BASE_URL": "http://127.0.0.1:9",  # discard: nothing listens
        "OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1",
    }


@pytest.fixture
def log(programs: Path, environ: dict[str, str], tmp_path: Path) -> Iterator[Path]:
    """The output of a server that runs from the wheel and answers."""
    path = tmp_path / "serve.log"
    with path.open("wb") as output:
        server = subprocess.Popen(
            [programs / "rollout", "serve"], env=environ, cwd=tmp_path, stdout=output, stderr=output
        )
    try:
        end = time.monotonic() + PATIENCE
        while not _answers(environ):
            assert server.poll() is None, path.read_text()
            assert time.monotonic() < end, path.read_text()
            time.sleep(0.1)
        yield path
    finally:
        server.terminate()
        assert server.wait(PATIENCE) == 0, path.read_text()


def _answers(environ: dict[str, str]) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{environ['ROLLOUT_PORT']}/livez", timeout=5).is_success
    except httpx.HTTPError:
        return False


def _ran(programs: Path, environ: dict[str, str], folder: Path, *command: str) -> str:
    name, *arguments = command
    done = subprocess.run([programs / name, *arguments], env=environ, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_serves_its_pages_and_keeps_its_ledger(
    programs: Path, environ: dict[str, str], log: Path, tmp_path: Path
) -> None:
    link = re.search(r"(http://\S+)/sign-in#code=(\S+)", log.read_text())
    assert link is not None, log.read_text()
    with httpx.Client(base_url=link[1], headers={"Origin": link[1]}, follow_redirects=True) as browser:
        page = browser.post("/sign-in", data={"code": link[2]})
        assert "enableLiteLLM" in page.text
        styles = re.search(r'href="(/static/style\.css[^"]*)"', page.text)
        assert styles is not None
        assert browser.get(styles[1]).is_success
    _ran(programs, environ, tmp_path, "rollout", "flags", "override", "enableLiteLLM", "ada", "on")
    assert "ada" in _ran(programs, environ, tmp_path, "rollout", "audit", "list")
    assert "the ledger holds" in _ran(programs, environ, tmp_path, "rollout", "audit", "verify")


def test_the_wheel_runs_without_the_checkout(programs: Path, environ: dict[str, str], tmp_path: Path) -> None:
    where = "import rollout.resources as it; print(it.__file__)"
    assert str(programs.parent) in _ran(programs, environ, tmp_path, "python", "-c", where)
    _ran(programs, environ, tmp_path, "rollout", "db", "upgrade")
    assert "model_list" in _ran(programs, environ, tmp_path, "rollout", "gateway", "config")
