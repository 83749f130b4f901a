"""The official SDK in front of both doors: a transport of ours inside its own client, and the endpoint over HTTP."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
import pytest

from rollout.dispatch.decision import Exchange
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.dispatch.senders import make_async_sender
from rollout.settings import Upstreams
from rollout.simulator import World, running
from rollout.transports.httpx2 import AsyncRolloutTransport, RolloutTransport
from tests.dispatch import conftest as dispatching

MODEL = "qwen/qwen3-coder:free"
HEJ: Any = [{"role": "user", "content": "Hej"}]

upstream = dispatching.upstream
client = dispatching.client


@dataclass
class Simulated:
    """The simulator, and a client of it whose users all go direct."""

    world: World
    client: dispatching.FixedClient
    before: int

    @property
    def arrivals(self) -> int:
        """Requests that came since the test began."""
        return self.world.record.seen - self.before


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[World, str]]:
    """One simulator for a module: starting and stopping it takes longer than most tests."""
    world = World(seed=7)
    with running(world) as url:
        yield world, url


@pytest.fixture
def simulated(simulator: tuple[World, str]) -> Simulated:
    world, url = simulator
    world.script.play([])
    client = dispatching.FixedClient(
        Upstreams(
            openrouter_url=url,
            openrouter_key="sk-or-simulated",
            litellm_url="http://127.0.0.1:9",
            total_timeout=20.0,
            attempt_timeout=5.0,
            first_token_timeout=5.0,
            stall_timeout=5.0,
        )
    )
    client.cascade = (MODEL, "northwind/breeze-8b:free")
    return Simulated(world, client, world.record.seen)


async def over(value: Any) -> Any:
    """Return what an SDK's call returns, whichever of the two it is."""
    return await value if inspect.isawaitable(value) else value


async def collect(stream: Any, into: list[Any]) -> None:
    """Read a stream of either kind into a list, which keeps what came before an error."""
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            into.append(item)  # noqa: PERF401 - a comprehension would lose what came before an error
    else:
        into.extend(stream)


async def each(stream: Any) -> list[Any]:
    """Read a stream of either kind to its end."""
    got: list[Any] = []
    await collect(stream, got)
    return got


async def close(stream: Any) -> None:
    """Close a stream of either kind."""
    await over(stream.close())


class Endpoint:
    """The endpoint behind one real server for a module; each test puts an app of its own behind it."""

    def __init__(self) -> None:
        self.app: Any = None
        self.sender = make_async_sender()  # one for all apps: it is closed on the loop it was opened on

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self.app(scope, receive, send)
            return
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await self.sender.aclose()
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Endpoint, str]]:
    endpoint = Endpoint()
    server = dispatching.Served(endpoint)
    yield endpoint, server.url
    server.close()


class Door:
    """One way in for the SDK: `name` is transport or endpoint, and sync or async."""

    def __init__(self, name: str, endpoint: Endpoint, url: str) -> None:
        self.name = name
        self._way, _, self._kind = name.partition("-")
        self._endpoint, self._url = endpoint, url
        self._seen: list[Exchange] = []
        self._over = threading.Event()
        self._made: list[Any] = []

    def make(self, decides: Any, **more: Any) -> Any:
        """Return the SDK's client, over a client that decides."""
        settings: dict[str, Any] = {"api_key": "caller-key", "base_url": "http://nowhere.invalid/v1", **more}
        if self._way == "endpoint":
            dispatcher = Dispatcher(decides, observe=self._observe, async_sender=self._endpoint.sender)
            self._endpoint.app = CompletionsApp(dispatcher, lambda _: True)
            settings["base_url"] = f"{self._url}/v1"
        else:
            settings["http_client"] = self._http(Dispatcher(decides, observe=self._observe))
        self._made.append((openai.OpenAI if self._kind == "sync" else openai.AsyncOpenAI)(**settings))
        return self._made[-1]

    def _http(self, dispatcher: Dispatcher) -> Any:
        if self._kind == "sync":
            return httpx2.Client(transport=RolloutTransport(dispatcher))
        return httpx2.AsyncClient(transport=AsyncRolloutTransport(dispatcher))

    def _observe(self, exchange: Exchange) -> None:
        self._seen.append(exchange)
        self._over.set()

    async def told(self) -> Exchange:
        """Return the one exchange that was observed; the endpoint says so after its answer is out."""
        assert await asyncio.to_thread(self._over.wait, 5)
        (exchange,) = self._seen
        return exchange

    async def close(self) -> None:
        for sdk in self._made:
            await over(sdk.close())


@pytest.fixture(params=["transport-sync", "transport-async", "endpoint-sync", "endpoint-async"])
async def door(request: pytest.FixtureRequest, served: tuple[Endpoint, str]) -> AsyncIterator[Door]:
    made = Door(request.param, *served)
    yield made
    await made.close()
