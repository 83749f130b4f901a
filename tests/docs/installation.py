"""A whole installation for the documentation to talk to: a control plane, its endpoint, a gateway, an upstream.

The control plane, the endpoint and the database are the real ones, the upstream is the simulator. In the gateway's
place stands a passage to the simulator that takes LiteLLM's model names, because nothing here is about LiteLLM.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rollout.cli.serving import Deciding
from rollout.client.holder import Holder
from rollout.control.access import create_token
from rollout.control.installation import establish, set_cascade
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.domain.cascade import ListedModel
from rollout.domain.roles import Role
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from rollout.http.app import assemble
from rollout.http.plane import Plane
from rollout.settings import Settings, Upstreams
from rollout.simulator import World, running
from rollout.store.door import Door
from rollout.store.engine import database_url, open_engine
from rollout.store.migrate import upgrade

DOCUMENTED: Final = "127.0.0.1:8080"
CASCADE: Final = ("qwen/qwen3-coder:free", "lumen/aurora-3-flash:free")


class Served:
    """An ASGI app behind a real uvicorn on a free port, in a thread of its own."""

    def __init__(self, app: Any) -> None:
        self._server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="none")
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


def passage(upstream: str) -> Starlette:
    """Return what stands in the gateway's place."""

    async def complete(request: Request) -> Response:
        document = await request.json()
        document["model"] = document["model"].removeprefix("openrouter/")
        del document["disable_fallbacks"]
        async with httpx.AsyncClient(trust_env=False) as http:
            key = {"Authorization": "Bearer sk-or-documentation"}
            answer = await http.post(f"{upstream}/chat/completions", json=document, headers=key)
        return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])


@dataclass(frozen=True, slots=True)
class Installation:
    """What is running: `folder` holds `data`, `tokens` an access token of each role."""

    folder: Path
    port: int
    plane: Plane
    upstream: str
    gateway: str
    tokens: dict[Role, str] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return what every process of the documentation is given: a terminal beside the database."""
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "ROLLOUT_PORT": str(self.port),
            "PYTHONWARNINGS": "error",
            "NO_COLOR": "1",
        }

    def application(self) -> dict[str, str]:
        """Return what an application's process is given beside that."""
        return self.environment() | {
            "ROLLOUT_URL": self.url,
            "ROLLOUT_TOKEN": self.tokens[Role.EVALUATE],
            "ROLLOUT_DATA_DIR": str(self.folder / "application"),
            "OPENROUTER_BASE_URL": self.upstream,
            "OPENROUTER_API_KEY": "sk-or-documentation",
            "LITELLM_BASE_URL": self.gateway,
            "LITELLM_MASTER_KEY": "sk-documentation",
        }

    def real(self, text: str) -> str:
        """Return a block's text with the port that is really served."""
        return text.replace(DOCUMENTED, f"127.0.0.1:{self.port}")

    def documented(self, text: str) -> str:
        """Return what was printed with the port that the documentation names."""
        return text.replace(f"127.0.0.1:{self.port}", DOCUMENTED)


@contextmanager
def installed(folder: Path) -> Iterator[Installation]:
    """Run an installation in a folder for as long as the block runs."""
    data = folder / "data"
    data.mkdir(mode=0o700)
    with running(World()) as upstream_url:
        gateway = Served(passage(upstream_url))
        upstreams = Upstreams(
            openrouter_url=upstream_url,
            openrouter_key="sk-or-documentation",
            litellm_url=f"http://127.0.0.1:{gateway.port}",
            litellm_key="sk-documentation",
        )
        door = Door(open_engine(database_url(None, data)))
        upgrade(door.engine)
        establish(door, new_id=lambda: "0123456789abcdef")
        set_cascade(door, list(CASCADE), actor="rollout")
        tokens = {role: create_token(door, f"all of {role}", role, actor="rollout").secret for role in Role}
        holder = Holder()
        plane = Plane(
            door,
            Settings(upstreams=upstreams, data_dir=data),
            holder,
            gateway=lambda: GatewayState(GatewayPhase.HEALTHY, "LiteLLM answers", 0.0, answering=True),
            upstream=lambda: UpstreamState(
                upstream_url,
                simulated=True,
                phase=UpstreamPhase.OK,
                detail="answers and takes our key",
                models=tuple(ListedModel(model, free=True) for model in CASCADE),
            ),
        )
        plane.start()
        dispatcher = Dispatcher(Deciding(holder, upstreams))
        completions = CompletionsApp(dispatcher, plane.may_send, simulated=True)
        server = Served(assemble(plane, completions))
        try:
            yield Installation(folder, server.port, plane, upstream_url, f"http://127.0.0.1:{gateway.port}", tokens)
        finally:
            server.close()
            plane.stop()
            gateway.close()
            door.engine.dispose()
