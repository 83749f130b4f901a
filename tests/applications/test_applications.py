"""Applications on other people's clients, in environments of their own, on both paths: plain, streams, JSON, tools."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rollout.dispatch.decision import Exchange
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.domain.flag import Path as Route
from rollout.resilience.gate import Gate
from rollout.resilience.quota import QuotaLimits
from rollout.simulator import Fault, Kind, World, running
from tests.faults.callers import ACCESS
from tests.faults.cells import served
from tests.faults.upstreams import MODELS, Everybody, litellm, upstreams_at, warm

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.litellm]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache"
OURS = ("ROLLOUT_", "LITELLM_", "OPENROUTER_", "FORCE_DIRECT", "OPENAI_", "COVERAGE_", "LANGCHAIN_", "LANGSMITH_")
PLAIN, FENCING, ODD = MODELS
QUESTION = "Hej Åsa"
PATHS = {"direct": Route.OPENROUTER, "gateway": Route.LITELLM}


class Endpoints:
    """An endpoint for each path, and what was observed there."""

    def __init__(self) -> None:
        self.urls: dict[str, str] = {}
        self.seen: list[Exchange] = []

    def app(self, upstreams: Any, *, share: int) -> CompletionsApp:
        gate = Gate(QuotaLimits(0, 0), clock=time.monotonic, wall=time.time, chance=lambda: 0.0)
        dispatcher = Dispatcher(Everybody(upstreams, MODELS, share=share), gate=gate, observe=self.seen.append)
        return CompletionsApp(dispatcher, lambda access: access == ACCESS)


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """One model fences its JSON, another streams events without meaning beside its answer."""
    world = World(seed=3, withdrawn=())
    made = Endpoints()
    with ExitStack() as stack:
        upstream = stack.enter_context(running(world))
        gateway = stack.enter_context(litellm(tmp_path_factory.mktemp("gateway"), upstream))
        gateway.wait_until_it_answers()
        warm(gateway)
        upstreams = upstreams_at(upstream, gateway.url, {})
        for path, share in (("direct", 0), ("gateway", 100_000)):
            made.urls[path] = stack.enter_context(served(made.app(upstreams, share=share))) + "/v1"
        world.script.play([Fault(Kind.FENCED, model=FENCING), Fault(Kind.EVENTS_WITHOUT_MEANING, model=ODD)])
        yield made


def run(command: Sequence[str | Path], folder: Path) -> Any:
    """Run a program and return what it printed, parsed."""
    environ: Mapping[str, str] = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    return json.loads(done.stdout)


def through_its_own_path(endpoints: Endpoints, path: str) -> None:
    """Check that every request was answered at once, and by the path that it was sent to."""
    answered = [(each.failure, each.decision.served_by, len(each.decision.attempts)) for each in endpoints.seen]
    assert set(answered) == {(None, PATHS[path], 1)}
    endpoints.seen.clear()


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter beside the clients; making their environment takes half a minute, once."""
    environment = CACHE / "applications"
    subprocess.run(
        [sys.executable, ROOT / "bin" / "setup.py", environment, ROOT / "locks" / "applications.txt"], check=True
    )
    return environment / "bin" / "python"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("client", ["openai", "langchain", "instructor", "pydantic_ai"])
async def test_a_python_application_gets_what_it_asks_for(
    endpoints: Endpoints, python: Path, tmp_path: Path, client: str, path: str
) -> None:
    command: list[str | Path] = [python, HERE / "python_program.py", client, endpoints.urls[path], PLAIN, FENCING, ODD]
    seen = await asyncio.to_thread(run, command, tmp_path)
    for way, model in (("plain", PLAIN), ("stream", ODD)):
        said = seen.get(way, f"{model} {QUESTION}")
        assert model in said
        assert said.endswith(QUESTION)
    assert seen["json"] is True
    assert seen.get("tools", ["weather"] * 2) == ["weather"] * 2
    assert seen.get("fenced", True) is True
    through_its_own_path(endpoints, path)


@pytest.fixture(scope="module")
def installed() -> Path:
    """The folder with the AI SDK in it, from its lock unless it is there; scripts of packages do not run."""
    folder, source = CACHE / "ai-sdk", HERE / "ai_sdk"
    stamp = folder / "set-up"
    digest = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder)
        install = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        subprocess.run(install, cwd=folder, check=True)
        stamp.write_text(digest)
    shutil.copy(source / "program.mjs", folder)
    return folder


@pytest.mark.node
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("provider", ["openai-compatible", "openrouter"])
async def test_an_application_on_the_ai_sdk_gets_what_it_asks_for(
    endpoints: Endpoints, installed: Path, provider: str, path: str
) -> None:
    command: list[str | Path] = ["node", installed / "program.mjs", provider, endpoints.urls[path], PLAIN, ODD]
    seen = await asyncio.to_thread(run, command, installed)
    for way, model in (("plain", PLAIN), ("stream", ODD)):
        assert model in seen[way]
        assert seen[way].endswith(QUESTION)
    assert seen["finish"] == ["stop", "stop"]
    assert seen["tools"] == ["weather", "weather"]
    assert [type(each) for each in seen["json"]] == [bool, bool]
    through_its_own_path(endpoints, path)
