"""Play the cells of the fault table, many at once: each has a user of its own, by whom its calls are told apart."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn

from rollout.dispatch.decision import Exchange
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.dispatch.senders import make_async_sender, make_sender
from rollout.resilience.gate import Gate
from rollout.resilience.quota import QuotaLimits
from rollout.simulator import World, running
from tests.faults.callers import ACCESS, Got, asynchronously, is_whole, over_http, synchronously
from tests.faults.judging import Seen
from tests.faults.rows import ONCE, ONLY, Cell
from tests.faults.script import fault_of, response_format_of
from tests.faults.upstreams import (
    MODELS,
    QUESTION,
    Everybody,
    Gateway,
    cool,
    cool_down,
    free_port,
    litellm,
    steady_wall,
    upstreams_at,
    warm,
)

_AT_ONCE: Final = 14
_CLOSED_WITHIN: Final = 5.0


class Switchboard:
    """The completions endpoint behind one uvicorn, with an app of its own for each cell."""

    def __init__(self) -> None:
        self.sender = make_async_sender()
        self.apps: dict[str, CompletionsApp] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand a request to its cell's app, by a header."""
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await self.sender.aclose()
            await send({"type": "lifespan.shutdown.complete"})
            return
        name = dict(scope["headers"])[b"x-cell"].decode()
        await self.apps[name](scope, receive, send)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an ASGI app by uvicorn in a thread; gives its base URL."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, name="endpoint")
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class Stage:
    """Everything that cells are played on. One simulated upstream, and LiteLLM as often as the cells need it."""

    def __init__(self, folder: Path, wanted: Sequence[Cell]) -> None:
        self._folder = folder
        self._wanted = wanted
        self.wall = steady_wall()
        self.world = World(seed=3, clock=self.wall, withdrawn=())
        self._switchboard = Switchboard()
        self._sender = make_sender()
        self._gateways: dict[str, Gateway] = {}

    def play(self) -> dict[str, list[Seen]]:
        """Play all cells; return what came of each cell's requests, by its id."""
        with ExitStack() as stack:
            self._base_url = stack.enter_context(running(self.world))
            self._endpoint = stack.enter_context(served(self._switchboard))
            self._start_gateways(stack)
            self.world.script.play([fault for cell in self._wanted if (fault := fault_of(cell)) is not None])
            killed = [cell for cell in self._wanted if cell.row.gateway_is == "killed"]
            apart = [cell for cell in self._wanted if cell.row.apart]
            others = [cell for cell in self._wanted if cell not in killed and cell not in apart]
            # what takes long begins first
            others.sort(key=lambda cell: not cell.row.closed)
            seen = self._all(others) | self._all(apart, at_once=2)
            if killed:
                seen |= self._all(killed, then=lambda: self._kill(len(killed)))
            self._see_closed(time.monotonic() + _CLOSED_WITHIN)
            entries = list(self.world.record)
        for cell in self._wanted:
            calls = [entry for entry in entries if entry.user == cell.id]
            for each in reversed(seen[cell.id]):
                # what came too late for the first request is counted against the second
                each.entries, calls = calls[each.arrived_before :], calls[: each.arrived_before]
        return seen

    def _start_gateways(self, stack: ExitStack) -> None:
        kinds = {cell.row.gateway_is for cell in self._wanted if cell.path == "gateway"}
        if kinds & {"real", "strange", "killed"}:
            self._start(stack, "real", lambda _: None)
        if "cooling" in kinds:
            self._start(stack, "cooling", cool_down)
        for gateway in self._gateways.values():
            gateway.wait_until_it_answers()
        for name, gateway in self._gateways.items():
            if name == "cooling":
                cool(gateway, self.world, [f"openrouter/{model}" for model in MODELS])
            else:
                warm(gateway)

    def _start(self, stack: ExitStack, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        folder = self._folder / name
        folder.mkdir()
        self._gateways[name] = stack.enter_context(litellm(folder, self._base_url, change))

    def _all(
        self, wanted: Sequence[Cell], then: Callable[[], None] = lambda: None, *, at_once: int = _AT_ONCE
    ) -> dict[str, list[Seen]]:
        with ThreadPoolExecutor(at_once) as pool:
            playing: dict[str, Future[list[Seen]]] = {cell.id: pool.submit(self._whole_cell, cell) for cell in wanted}
            then()
            return {name: future.result() for name, future in playing.items()}

    def _kill(self, count: int) -> None:
        """Kill the gateway once it holds every request, and what is to arrive before has arrived."""
        users = {cell.id for cell in self._wanted if cell.row.gateway_is == "killed"}
        end = time.monotonic() + 20
        while sum(entry.user in users for entry in self.world.record) < count:
            assert time.monotonic() < end, "not every request reached the upstream through the gateway"
            time.sleep(0.05)
        time.sleep(1.0)
        self._gateways["real"].kill()

    def _see_closed(self, end: float) -> None:
        """Give the upstream the time to notice that it was hung up on."""
        while time.monotonic() < end and not all(entry.finished for entry in self.world.record):
            time.sleep(0.05)

    def _whole_cell(self, cell: Cell) -> list[Seen]:
        try:
            return self._cell(cell)
        except Exception:  # noqa: BLE001 - whatever it is, it is this cell's alone; the others are played on
            return [Seen(Got("it broke", shown=traceback.format_exc(limit=-4)), (), 0.0, 0, 0)]

    def _cell(self, cell: Cell) -> list[Seen]:
        row = cell.row
        real = self._gateways.get("cooling" if row.gateway_is == "cooling" else "real")
        gateway_url = real.url if real and row.gateway_is != "refusing" else f"http://127.0.0.1:{free_port()}"
        limits: dict[str, Any] = dict(row.limits)
        upstreams = upstreams_at(self._base_url, gateway_url, limits)
        if row.gateway_is == "strange":
            upstreams = upstreams_at(self._base_url, gateway_url, {**limits, "litellm_key": "sk-another"})
        cascade = MODELS[:1] if row.meets in (ONCE, ONLY) else MODELS
        client = Everybody(upstreams, cascade, share=100_000 if cell.path == "gateway" else 0)
        gate = Gate(QuotaLimits(per_minute=0, per_day=0), clock=time.monotonic, wall=self.wall, chance=lambda: 0.0)
        for _ in range(30):
            gate.begin()  # what a process has sent before earned it retries
        while row.spent and gate.may_retry():
            pass
        over: list[Exchange] = []
        ask = self._caller(cell, client, gate, over.append)
        return [self._request(cell, ask, gate, over) for _ in range(1 if row.then is None else 2)]

    def _request(self, cell: Cell, ask: Callable[[dict[str, Any]], Got], gate: Gate, over: list[Exchange]) -> Seen:
        body: dict[str, Any] = {"messages": QUESTION, "user": cell.id}
        if cell.stream:
            body["stream"] = True
        if (wanted := response_format_of(cell.row)) is not None:
            body["response_format"] = wanted
        before, ended = gate.status().quota.used_today, len(over)
        arrived_before = sum(entry.user == cell.id for entry in self.world.record)
        began = time.monotonic()
        got = ask(body)
        took = time.monotonic() - began
        if got.answer == "served" and not is_whole(cell, got.content):
            got.answer = "half"
        end = time.monotonic() + 5
        while len(over) == ended and time.monotonic() < end:
            time.sleep(0.01)  # the endpoint's observer hears of it after its caller
        assert len(over) == ended + 1, "the observer was told other than once"
        return Seen(
            got,
            over[-1].decision.attempts,
            took,
            gate.status().quota.used_today - before,
            arrived_before,
            over[-1].failure,
        )

    def _caller(
        self, cell: Cell, client: Everybody, gate: Gate, observe: Callable[[Exchange], None]
    ) -> Callable[[dict[str, Any]], Got]:
        if cell.caller == "endpoint":
            shared = Dispatcher(
                client, gate=gate, observe=observe, async_sender=self._switchboard.sender, wall=self.wall
            )
            self._switchboard.apps[cell.id] = CompletionsApp(shared, lambda access: access == ACCESS)
            return lambda body: over_http(self._endpoint, cell, body)
        dispatcher = Dispatcher(
            client, gate=gate, observe=observe, sender=self._sender, async_sender=make_async_sender(), wall=self.wall
        )
        if cell.caller == "async":
            return lambda body: asyncio.run(asynchronously(dispatcher, cell, body))
        return lambda body: synchronously(dispatcher, cell, body)
