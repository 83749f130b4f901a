"""In front: what a hop adds to a direct call, ours beside the real LiteLLM proxy and Portkey, to one upstream stub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final

from bench import portkey
from bench.load import Load
from bench.processes import ROOT, Server, free_port, python_server, request
from bench.report import Aim, CannotMeasure, Part, Series, at_least, at_most, number, percentile, times
from bench.world import KEY, MODEL, SECRET, chats, make_database, rollout_serve, upstream_variables
from rollout.gateway.config import gateway_config, render, write_config
from rollout.gateway.install import is_installed
from rollout.gateway.pin import pinned_release
from rollout.gateway.plan import GatewayPlan, litellm_command, litellm_environment
from rollout.resources import resource

DIRECT: Final = "direct"
BARE: Final = "bare ASGI + aiohttp"
OURS: Final = "rollout, endpoint alone"
WITH_CONTROL: Final = "rollout serve"
LITELLM: Final = "LiteLLM proxy"
PORTKEY: Final = "Portkey gateway"

_COMPLETIONS: Final = "/v1/chat/completions"
_STARTS: Final = 5
_TURNS: Final = 3  # a round's; short turns, so that contenders see the same moments of the machine
_PEOPLE: Final = 64
_LITELLM_PATIENCE: Final = 120.0


@dataclass(frozen=True, slots=True)
class Hop:
    """A way to the stub: where, and the requests as they are sent to it; `stream` is empty where it cannot stream."""

    port: int
    plain: Sequence[bytes]
    stream: Sequence[bytes]


@dataclass(slots=True)
class Found:
    """Everything that is measured. Figures are milliseconds but for `per_second`, `cold` (seconds) and `memory`."""

    middle: Series = field(default_factory=Series)
    first: Series = field(default_factory=Series)
    stream: Series = field(default_factory=Series)
    per_second: Series = field(default_factory=Series)
    whole: dict[str, list[float]] = field(default_factory=dict)
    cold: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def litellm_environment_folder() -> Path:
    """Return where LiteLLM is installed.

    Raises:
        CannotMeasure: it is not.
    """
    folder = ROOT / ".cache" / "litellm"
    if not is_installed(folder, resource("locks") / "litellm.txt"):
        raise CannotMeasure("LiteLLM is not installed in .cache/litellm; run `make bench`")
    return folder


def litellm_plan(folder: Path, stub_port: int) -> GatewayPlan:
    """Return how LiteLLM is run towards the stub; its configuration is written."""
    plan = GatewayPlan(
        environment=litellm_environment_folder(),
        lock=resource("locks") / "litellm.txt",
        folder=folder,
        port=free_port(),
        upstream_base_url=f"http://127.0.0.1:{stub_port}/api/v1",
        upstream_key=KEY,
        master_key=KEY,
    )
    write_config(plan.config, render(gateway_config([MODEL], upstream_base_url=plan.upstream_base_url)))
    return plan


def run(rounds: int) -> Part:
    found = Found()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stub = stack.enter_context(python_server("the upstream stub", "bench.stub"))
        stub.wait(_ask(_hop(stub.port)))
        servers = _start(stack, folder, stub.port, found)
        hops = {name: hop for name, (_, hop) in servers.items()}
        load = stack.enter_context(Load())
        _measure(load, {DIRECT: _hop(stub.port), **hops}, found, rounds)
        for name, (server, _) in servers.items():
            found.memory[name] = server.resident_mb()
    return _part(found)


def _hop(port: int, *, secret: str = KEY, model: str = MODEL, more: Mapping[str, str] | None = None) -> Hop:
    def requests(*, stream: bool) -> Sequence[bytes]:
        headers = {"Authorization": f"Bearer {secret}", **(more or {})}
        return [
            request("POST", _COMPLETIONS, headers=headers, body=body)
            for body in chats(_PEOPLE, stream=stream, model=model)
        ]

    return Hop(port, requests(stream=False), requests(stream=True))


def _ask(hop: Hop) -> bytes:
    return _once(hop.plain[0])


def _once(asked: bytes) -> bytes:
    return asked.replace(b"Host: 127.0.0.1\r\n", b"Host: 127.0.0.1\r\nConnection: close\r\n")


def _start(stack: ExitStack, folder: Path, stub_port: int, found: Found) -> Mapping[str, tuple[Server, Hop]]:
    """Start every hop, each several times but LiteLLM, which takes long; take down their cold starts."""
    variables = upstream_variables(stub_port)

    def bare() -> tuple[Server, Hop]:
        upstream = {"BENCH_UPSTREAM": f"http://127.0.0.1:{stub_port}{_COMPLETIONS}"}
        server = python_server(BARE, "bench.bare", environ=upstream)
        return server, _hop(server.port)

    def ours() -> tuple[Server, Hop]:
        server = python_server(OURS, "bench.dataplane", environ=variables)
        return server, _hop(server.port, secret=SECRET)

    database = folder / "data"
    database.mkdir()
    secret = make_database(database)

    def with_control() -> tuple[Server, Hop]:
        server = rollout_serve(database, stub_port)
        return server, _hop(server.port, secret=secret)

    def litellm() -> tuple[Server, Hop]:
        plan = litellm_plan(folder, stub_port)
        environ = litellm_environment(plan, os.environ)
        server = Server(LITELLM, litellm_command(plan), port=plan.port, environ=environ)
        return server, _hop(plan.port, model=f"openrouter/{MODEL}")

    servers = {}
    for name, make, starts in ((BARE, bare, _STARTS), (OURS, ours, _STARTS), (WITH_CONTROL, with_control, 3)):
        cold = []
        for _ in range(starts - 1):
            server, hop = make()
            with server:
                cold.append(server.wait(_ask(hop)))
        server, hop = make()
        stack.enter_context(server)
        cold.append(server.wait(_ask(hop)))
        found.cold[name] = median(cold)
        servers[name] = server, hop
    server, hop = litellm()
    stack.enter_context(server)
    found.cold[LITELLM] = server.wait(_ask(hop), patience=_LITELLM_PATIENCE)
    servers[LITELLM] = server, hop
    if started := _portkey(stack, stub_port, found):
        servers[PORTKEY] = started
    return servers


def _portkey(stack: ExitStack, stub_port: int, found: Found) -> tuple[Server, Hop] | None:
    """Start Portkey's gateway where it can run; note what it cannot do here."""
    if why := portkey.why_not(portkey.FOLDER, os.environ.get("PATH", os.defpath)):
        found.left_out[PORTKEY] = f"not run: {why}"
        return None
    server = stack.enter_context(portkey.server(PORTKEY, portkey.FOLDER))
    hop = _hop(server.port, more=portkey.headers(stub_port))
    found.cold[PORTKEY] = server.wait(_ask(hop))
    if not portkey.answers(server.port, _ask(hop), b'end"'):
        raise CannotMeasure("Portkey's gateway answered 200 with something else than the stub's answer")
    note = f"Portkey {portkey.RELEASE}, one process."
    if not portkey.answers(server.port, _once(hop.stream[0]), b"data: [DONE]"):
        hop = replace(hop, stream=())
        note += " It does not bring the stub's stream through with the node of this machine, so nothing is timed there."
    found.notes.append(note)
    return server, hop


def _measure(load: Load, hops: Mapping[str, Hop], found: Found, rounds: int) -> None:
    for hop in hops.values():  # warm: connections, caches, whatever is made on first use
        load.run(hop.port, hop.plain, concurrency=8, seconds=0.5, most=200)
        if hop.stream:
            load.run(hop.port, hop.stream, concurrency=1, seconds=0.5, most=10)
    streaming = {name: hop for name, hop in hops.items() if hop.stream}
    for _ in range(rounds):
        for _ in range(_TURNS):
            for name, hop in hops.items():
                plain = load.run(hop.port, hop.plain, concurrency=1, seconds=0.25, most=500)
                found.whole.setdefault(name, []).extend(plain.whole)
                found.middle.add(name, percentile(plain.whole, 50))
        for name, hop in hops.items():
            found.per_second.add(name, load.run(hop.port, hop.plain, concurrency=32, seconds=1.2).per_second)
        for _ in range(_TURNS):
            for name, hop in streaming.items():
                stream = load.run(hop.port, hop.stream, concurrency=1, seconds=0.25, most=50)
                found.stream.add(name, percentile(stream.whole, 50))
                found.first.add(name, percentile(stream.first, 50))


def _part(found: Found) -> Part:
    def tail(name: str) -> float:
        return percentile(found.whole[name], 99) - percentile(found.whole[DIRECT], 99)

    def share_of_litellm(name: str) -> str:
        return times(found.middle.added(LITELLM, DIRECT) / found.middle.added(name, DIRECT))

    direct = (
        DIRECT,
        f"({number(found.middle.median(DIRECT))})",
        f"({number(percentile(found.whole[DIRECT], 99))})",
        number(found.per_second.median(DIRECT)),
        f"({number(found.first.median(DIRECT))})",
        f"({number(found.stream.median(DIRECT))})",
        "",
        "",
        "",
    )

    def hop(name: str) -> tuple[str, ...]:
        if why := found.left_out.get(name):
            return (name, why, *[""] * 7)
        streams = name in found.stream
        return (
            name,
            number(found.middle.added(name, DIRECT)),
            number(tail(name)),
            number(found.per_second.median(name)),
            number(found.first.added(name, DIRECT)) if streams else "-",
            number(found.stream.added(name, DIRECT)) if streams else "-",
            number(found.cold[name]),
            number(found.memory[name]),
            share_of_litellm(name),
        )

    litellm = pinned_release((resource("locks") / "litellm.txt").read_text(encoding="utf-8"))
    return Part(
        title="In front of the upstream",
        head=(
            "ms added by",
            "p50",
            "p99",
            "req/s, 32 at once",
            "first byte",
            "50-chunk stream",
            "cold start s",
            "MB",
            "p50 less than LiteLLM",
        ),
        rows=[direct, *map(hop, (BARE, OURS, WITH_CONTROL, LITELLM, PORTKEY))],
        aims=_aims(found, tail(OURS)),
        notes=(
            "One at a time but where it says otherwise; the direct call's own times stand in brackets. "
            f"LiteLLM {litellm}, one worker.",
            "Ours evaluates a share of 50 % with forced users, counts, and answers with headers; both of its paths "
            "lead to the stub. `rollout serve` is the endpoint and the control plane in one process.",
            *found.notes,
        ),
    )


def _aims(found: Found, tail: float) -> Sequence[Aim]:
    added = found.middle.added
    return (
        at_most("added p50", added(OURS, DIRECT), 0.5, " ms"),
        at_most("added p99", tail, 1.2, " ms"),
        at_least("req/s at 32", found.per_second.median(OURS), 2500),
        at_most("first byte added", found.first.added(OURS, DIRECT), 1, " ms"),
        at_most("50-chunk stream added", found.stream.added(OURS, DIRECT), 1, " ms"),
        at_most("memory", found.memory[OURS], 70, " MB"),
        at_most("cold start", found.cold[OURS], 0.8, " s"),
        at_least("added p50, less than LiteLLM's", added(LITELLM, DIRECT) / added(OURS, DIRECT), 25, "x"),
        at_least(
            "stream added, less than LiteLLM's",
            found.stream.added(LITELLM, DIRECT) / found.stream.added(OURS, DIRECT),
            25,
            "x",
        ),
        at_least("req/s at 32, more than LiteLLM's", found.per_second.ratio(OURS, LITELLM), 25, "x"),
        at_most("added p50, with the control plane", added(WITH_CONTROL, DIRECT), 0.5, " ms"),
        at_least("req/s at 32, with the control plane", found.per_second.median(WITH_CONTROL), 2500),
    )
