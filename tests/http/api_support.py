"""A control plane on a real SQLite file, asked through its real layers without a socket."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy.engine import URL

from rollout.client.holder import Holder
from rollout.control.access import create_token, invite, redeem
from rollout.control.installation import establish, set_cascade
from rollout.dispatch.recent import Recent
from rollout.domain.cascade import ListedModel
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path as Where
from rollout.domain.roles import Role
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from rollout.http.app import assemble, create_app
from rollout.http.auth import cookie_name, csrf_token
from rollout.http.plane import Plane
from rollout.http.security import App, Receive, Scope, Send
from rollout.resilience.gate import Gate
from rollout.resilience.permit import Refusal
from rollout.resilience.quota import QuotaLimits
from rollout.settings import Settings
from rollout.store.door import Door, utc_now
from rollout.store.engine import open_engine
from rollout.store.ledger import Head, read_head
from rollout.store.migrate import upgrade

INSTALLATION: Final = "0123456789abcdef0123456789abcdef"
MODELS: Final = ("first/model:free", "second/model:free")
FLAG: Final = "/api/v1/flags/enableLiteLLM"
OURS: Final = "http://127.0.0.1:8080"


async def completions(scope: Scope, receive: Receive, send: Send) -> None:
    """Stand where the completions endpoint stands, which has its own tests."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-beside", b"yes")]})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


@dataclass(slots=True)
class World:
    """One control plane, with what a test may turn: the gateway, the upstream, and what lies on the disk."""

    path: Path
    door: Door
    plane: Plane
    app: App
    secrets: dict[Role, str]
    gateway: GatewayState = field(
        default_factory=lambda: GatewayState(GatewayPhase.HEALTHY, "healthy", 0.0, answering=True)
    )
    upstream: UpstreamState = field(
        default_factory=lambda: UpstreamState(
            "http://127.0.0.1:1/api/v1", simulated=True, phase=UpstreamPhase.OK, detail="answers and takes our key"
        )
    )

    def client(self, role: Role | None = Role.ADMIN, *, app: App | None = None, **headers: str) -> httpx.AsyncClient:
        """Return a client with an access token of a role, without one for None."""
        said = {"Authorization": f"Bearer {self.secrets[role]}"} if role else {}
        transport = httpx.ASGITransport(app or self.app)
        return httpx.AsyncClient(transport=transport, base_url=OURS, headers=said | headers)

    def browser(self, role: Role = Role.ADMIN) -> tuple[httpx.AsyncClient, str]:
        """Return a client with a session's cookie, and that session's CSRF token."""
        session = redeem(self.door, invite(self.door, "Asta", role, actor="test"))
        client = self.client(None)
        client.cookies.set(cookie_name(self.plane), session.secret)
        return client, csrf_token(session.secret)

    def head(self) -> Head:
        """Return the ledger's head as it lies in the database."""
        with self.door.reading() as connection:
            return read_head(connection)

    def down(self) -> None:
        """Make the gateway unwell."""
        self.gateway = GatewayState(GatewayPhase.STARTING, "LiteLLM is starting", 0.0)


@contextmanager
def a_world(
    folder: Path,
    settings: Settings | None = None,
    clock: Callable[[], datetime] = utc_now,
    gate: Gate | None = None,
    recent: Recent | None = None,
    installation: str = INSTALLATION,
) -> Iterator[World]:
    """Make an installation with a cascade and one access token per role, and follow its database."""
    path = folder / "rollout.db"
    shutil.copyfile(_template(), path)
    numbers = count(1)
    door = Door(open_engine(URL.create("sqlite", database=str(path))), clock, salts=lambda: f"{next(numbers):032x}")
    establish(door, new_id=lambda: installation)
    set_cascade(door, MODELS, actor="test")
    secrets = {role: create_token(door, f"a {role}", role, actor="test").secret for role in Role}
    plane = Plane(
        door,
        settings or Settings(),
        Holder(),
        gateway=lambda: world.gateway,
        upstream=lambda: world.upstream,
        gate=gate,
        recent=recent,
    )
    world = World(path, door, plane, assemble(plane, completions), secrets)
    world.upstream = UpstreamState(
        world.upstream.base_url,
        simulated=True,
        phase=UpstreamPhase.OK,
        detail="answers and takes our key",
        models=(ListedModel(MODELS[0], free=True), ListedModel(MODELS[1], free=False)),
        checked_at=1.0,
    )
    plane.start()
    try:
        yield world
    finally:
        plane.stop()
        door.engine.dispose()


def a_gate(*, per_minute: int = 20, per_day: int | None = 50, wall: Callable[[], float] = time.time) -> Gate:
    """Return a process's breakers and quota; its clock stands, so what is open stays so."""
    return Gate(QuotaLimits(per_minute, per_day), clock=lambda: 100.0, wall=wall, chance=lambda: 0.5)


def trip(gate: Gate, failure: FailureKind, path: Where = Where.LITELLM, model: str = MODELS[0]) -> int:
    """Let attempts end badly until no more is let through; return how many those were."""
    for attempt in range(10):
        permit = gate.admit(path, model)
        if isinstance(permit, Refusal):
            return attempt
        gate.settle(permit, failure)
    raise AssertionError(f"{failure} trips nothing")


def bare_app(world: World) -> Any:
    """Return the FastAPI application alone."""
    return create_app(world.plane)


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check an RFC 9457 answer and return its document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert len(document["title"]) > 5
    assert len(document["detail"]) > 5
    return document


@cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rollout-http-"))
    path = folder / "template.db"
    engine = open_engine(URL.create("sqlite", database=str(path)))
    upgrade(engine)
    engine.dispose()
    return path
