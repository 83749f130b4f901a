"""A terminal before an installation: straight at its database, or through the API of its real server."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result

from rollout.cli.root import rollout as command
from rollout.client.holder import Holder
from rollout.control.access import create_token
from rollout.control.installation import establish, set_cascade
from rollout.domain.roles import Role
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from rollout.http.app import assemble
from rollout.http.plane import Plane
from rollout.resilience.gate import Gate
from rollout.resilience.quota import QuotaLimits
from rollout.settings import parse_settings
from rollout.store.door import Door
from rollout.store.engine import database_url, open_engine
from rollout.store.migrate import upgrade

CASCADE = ("z-ai/glm-4.5-air:free", "qwen/qwen3-coder:free")
HEALTHY = GatewayState(GatewayPhase.HEALTHY, "LiteLLM answers", since=0.0, answering=True)
INSTALLING = GatewayState(GatewayPhase.INSTALLING, "LiteLLM is being installed", since=0.0)


@dataclass(frozen=True, slots=True)
class Terminal:
    """Runs commands in this process, with an environment of its own."""

    environ: Mapping[str, str]

    def __call__(self, *arguments: str, code: int = 0, stdin: str | bytes | None = None) -> Result:
        """Run one command, and insist on its exit code."""
        result = CliRunner().invoke(command, arguments, obj=self.environ, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"{arguments}: {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result

    def ends(self, *arguments: str) -> Result:
        """Run one command, however it ends; a fault of ours is none of the ends."""
        result = CliRunner().invoke(command, arguments, obj=self.environ)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def json(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Any:
        """Run one command with `--json`; return what it printed on standard output."""
        return json.loads(self(*arguments, "--json", code=code, stdin=stdin).stdout)

    def fails(self, *arguments: str, code: int = 1) -> dict[str, Any]:
        """Run one command that fails; return its error, which stands on standard error alone."""
        result = self(*arguments, "--json", code=code)
        assert result.stdout == ""
        error: dict[str, Any] = json.loads(result.stderr.strip().splitlines()[-1])["error"]
        return error

    def with_(self, **variables: str) -> Terminal:
        """Return a terminal with more variables."""
        return Terminal({**self.environ, **variables})

    def process(self, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a real process."""
        return subprocess.Popen(
            [sys.executable, "-m", "rollout", *arguments],
            env={"PATH": "/usr/bin:/bin", **self.environ},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )


@dataclass(slots=True)
class Server:
    """A control plane under a real uvicorn, in a thread; the gateway's state is the test's to set."""

    port: int
    door: Door
    notice: Callable[[], None] = lambda: None
    gateway: GatewayState = HEALTHY
    gate: Gate = field(
        default_factory=lambda: Gate(QuotaLimits(20, 50), clock=lambda: 100.0, wall=time.time, chance=lambda: 0.5)
    )
    upstream: UpstreamState = field(
        default_factory=lambda: UpstreamState("http://127.0.0.1:1/api/v1", simulated=True, phase=UpstreamPhase.OK)
    )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def unwell(self) -> None:
        """Let the gateway be on its way."""
        self.gateway = INSTALLING

    def token(self, role: Role) -> str:
        """Make an access token that the server knows."""
        secret = create_token(self.door, f"a {role}", role, actor="test").secret
        self.notice()
        return secret


@contextmanager
def serving(port: int, environ: Mapping[str, str], listener: socket.socket) -> Iterator[Server]:
    settings = parse_settings(environ)
    engine = open_engine(database_url(settings.database_url, settings.data_dir))
    door = Door(engine)
    server = Server(port, door)
    plane = Plane(
        door, settings, Holder(), gateway=lambda: server.gateway, upstream=lambda: server.upstream, gate=server.gate
    )
    server.notice = plane.refresh  # what its watch does within moments
    plane.start()

    async def no_completions(_scope: Any, _receive: Any, _send: Any) -> None:
        raise AssertionError("nobody asks for completions here")

    config = uvicorn.Config(assemble(plane, no_completions), lifespan="off", log_config=None, access_log=False)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.005)
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join(10)
        plane.stop()
        engine.dispose()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def bare(tmp_path: Path, free_port: int) -> Terminal:
    """A terminal on a machine where nothing was ever started."""
    return Terminal({"ROLLOUT_DATA_DIR": str(tmp_path / "data"), "ROLLOUT_PORT": str(free_port)})


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a fresh installation with a cascade, to be copied."""
    file = tmp_path_factory.mktemp("template") / "rollout.db"
    engine = open_engine(database_url(None, file.parent))
    upgrade(engine)
    door = Door(engine)
    establish(door, new_id=lambda: "0123456789abcdef")
    set_cascade(door, CASCADE, actor="test")
    engine.dispose()
    return file


@pytest.fixture
def alone(bare: Terminal, template: Path) -> Terminal:
    """A terminal beside the database of an installation whose server does not run."""
    folder = Path(bare.environ["ROLLOUT_DATA_DIR"])
    folder.mkdir()
    shutil.copy(template, folder)
    return bare


@pytest.fixture
def server(alone: Terminal) -> Iterator[Server]:
    """The installation's server, its gateway healthy."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(alone.environ["ROLLOUT_PORT"])))
        listener.listen()
        with serving(int(alone.environ["ROLLOUT_PORT"]), alone.environ, listener) as server:
            yield server


@pytest.fixture
def beside(alone: Terminal, server: Server) -> Terminal:  # the server is running
    """A terminal straight at the database of an installation whose server runs."""
    return alone


@pytest.fixture
def remote(bare: Terminal, server: Server) -> Terminal:
    """A terminal that goes through the API, as an admin."""
    token = server.token(Role.ADMIN)
    return Terminal({"ROLLOUT_URL": server.url, "ROLLOUT_TOKEN": token, "ROLLOUT_DATA_DIR": "/nowhere"})


@pytest.fixture(params=["database", "api"])
def terminal(request: pytest.FixtureRequest) -> Terminal:
    """Both ways to the same installation."""
    chosen = request.getfixturevalue("beside" if request.param == "database" else "remote")
    assert isinstance(chosen, Terminal)
    return chosen


def without(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return a document without members that differ between two calls."""
    return {name: value for name, value in document.items() if name not in names}
