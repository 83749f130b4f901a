"""In an application: our calls beside the client libraries they are made of, and beside LiteLLM's SDK."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from itertools import cycle
from pathlib import Path
from time import monotonic, perf_counter, thread_time
from typing import Any, Final

import aiohttp
import httpx

import rollout
from bench.endpoint import litellm_plan
from bench.processes import ROOT, python_server, request
from bench.report import CannotMeasure, Part, Series, at_least, at_most, number, percentile, times
from bench.world import KEY, MODEL, a_snapshot, chat, upstream_variables, users
from rollout.client.client import RolloutClient
from rollout.client.default import set_default_client
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.paths import Call
from rollout.dispatch.request import normalise
from rollout.dispatch.within import Within
from rollout.gateway.install import python_of
from rollout.gateway.plan import litellm_environment
from rollout.resilience.policy import Attempt, Outcome, adrive
from rollout.wire.chat import Usage
from rollout.wire.snapshot import encode

AIOHTTP: Final = "aiohttp"
AINVOKE: Final = "rollout.ainvoke_llm"
HTTPX: Final = "httpx"
INVOKE: Final = "rollout.invoke_llm"
SDK: Final = "LiteLLM SDK, acompletion"
LOGIC: Final = "own logic"
_CALL: Final = "the whole call"
_JSON: Final = "reading and writing JSON"

_CALLS: Final = 50
_TURNS: Final = 5  # a round's; short turns, so that contenders see the same moments of the machine
_AT_ONCE: Final = 32
_EACH: Final = 12
_SDK_CALLS: Final = 12
_LOGIC_CALLS: Final = 300
_LOGIC_TURNS: Final = 8
_REQUEST: Final = chat()
_NONE: Final[Mapping[str, str]] = {}
_ANSWER: Final = json.dumps(
    {
        "id": "gen-0123456789",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 148 + "end"}}
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 149, "total_tokens": 161},
    }
).encode()


class Found:
    """Milliseconds per call one at a time, calls per second at once, and microseconds of CPU of our own logic."""

    def __init__(self) -> None:
        self.middle = Series()
        self.per_second = Series()
        self.cpu = Series()


def run(rounds: int) -> Part:
    found = Found()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stub = stack.enter_context(python_server("the upstream stub", "bench.stub"))
        stub.wait(request("POST", "/api/v1/chat/completions", body=b"{}"))
        client = client_beside(folder, stub.port)
        set_default_client(client)
        stack.callback(set_default_client, None)
        sdk = stack.enter_context(_sdk(folder, stub.port))
        url = f"http://127.0.0.1:{stub.port}/api/v1/chat/completions"
        asyncio.run(_asynchronously(url, found, rounds, sdk, stub.port))
        _synchronously(url, found, rounds)
        asyncio.run(_own_logic(client, found, rounds))
    return _part(found)


def client_beside(folder: Path, stub_port: int) -> RolloutClient:
    """Return a client with its snapshot, both of whose paths lead to the stub."""
    document = encode(a_snapshot(overrides=1000))
    client = RolloutClient(
        "http://127.0.0.1:9",
        environ=upstream_variables(stub_port),
        data_dir=folder,
        poll_interval=3600,
        transport=httpx.MockTransport(lambda _: httpx.Response(200, content=document, headers={"ETag": '"bench"'})),
    )
    if not client.wait_until_ready(60):
        raise CannotMeasure(f"the client did not take its snapshot: {client.status().problems}")
    return client


def _sdk(folder: Path, stub_port: int) -> subprocess.Popen[str]:
    plan = litellm_plan(folder, stub_port)
    return subprocess.Popen(
        [str(python_of(plan.environment)), "-I", str(ROOT / "bench" / "litellm_sdk.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=litellm_environment(plan, os.environ),
        text=True,
        start_new_session=True,  # Ctrl-C reaches us, and its input ends with us
    )


def _sdk_milliseconds(sdk: subprocess.Popen[str], stub_port: int, calls: int) -> Sequence[float]:
    assert sdk.stdin is not None
    assert sdk.stdout is not None
    order = {
        "request": {**_REQUEST, "model": f"openrouter/{MODEL}"},
        "url": f"http://127.0.0.1:{stub_port}/api/v1",
        "key": KEY,
        "calls": calls,
    }
    print(json.dumps(order), file=sdk.stdin, flush=True)
    line = sdk.stdout.readline()
    if not line:
        raise CannotMeasure("LiteLLM's SDK ended by itself; its words are above")
    milliseconds: Sequence[float] = json.loads(line)
    return milliseconds


async def _asynchronously(url: str, found: Found, rounds: int, sdk: subprocess.Popen[str], stub_port: int) -> None:
    people = cycle(users(64))
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))

        async def raw() -> None:
            async with session.post(url, data=json.dumps(_REQUEST).encode(), headers=headers) as response:
                document = json.loads(await response.read())
            assert document["choices"]

        async def ours() -> None:
            assert (await rollout.ainvoke_llm(_REQUEST, user=next(people)))["choices"]

        contenders: Mapping[str, Callable[[], Awaitable[None]]] = {AIOHTTP: raw, AINVOKE: ours}
        for call in contenders.values():
            await asyncio.gather(*(call() for _ in range(_AT_ONCE)))
        _sdk_milliseconds(sdk, stub_port, 5)
        for _ in range(rounds):
            for _ in range(_TURNS):
                for name, call in contenders.items():
                    found.middle.add(name, percentile([await _timed(call) for _ in range(_CALLS)], 50))
                found.middle.add(SDK, percentile(_sdk_milliseconds(sdk, stub_port, _SDK_CALLS), 50))
            for name, call in contenders.items():
                found.per_second.add(name, await _rate(call))


async def _timed(call: Callable[[], Awaitable[None]]) -> float:
    began = perf_counter()
    await call()
    return (perf_counter() - began) * 1000


def _timed_now(call: Callable[[], None]) -> float:
    began = perf_counter()
    call()
    return (perf_counter() - began) * 1000


async def _rate(call: Callable[[], Awaitable[None]]) -> float:
    async def caller() -> None:
        for _ in range(_EACH * 4):
            await call()

    began = perf_counter()
    await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))
    return _AT_ONCE * _EACH * 4 / (perf_counter() - began)


def _synchronously(url: str, found: Found, rounds: int) -> None:
    people = cycle(users(64))
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    with httpx.Client(trust_env=False, limits=limits) as http, ThreadPoolExecutor(_AT_ONCE) as threads:

        def raw() -> None:
            answer = http.post(url, content=json.dumps(_REQUEST).encode(), headers=headers)
            assert json.loads(answer.content)["choices"]

        def ours() -> None:
            assert rollout.invoke_llm(_REQUEST, user=next(people))["choices"]

        def several(call: Callable[[], None]) -> None:
            for _ in range(_EACH):
                call()

        contenders: Mapping[str, Callable[[], None]] = {HTTPX: raw, INVOKE: ours}
        for call in contenders.values():
            several(call)
        # alone first: httpx slows down with each connection that is open, and how many many callers leave is chance
        for _ in range(rounds * _TURNS):
            for name, call in contenders.items():
                found.middle.add(name, percentile([_timed_now(call) for _ in range(_CALLS)], 50))
        for call in contenders.values():
            list(threads.map(several, [call] * _AT_ONCE))
        for _ in range(rounds):
            for name, call in contenders.items():
                began = perf_counter()
                list(threads.map(several, [call] * _AT_ONCE))
                found.per_second.add(name, _AT_ONCE * _EACH / (perf_counter() - began))


class _Instant:
    """Sends nothing and has the answer at once: what is left is our own logic."""

    status = 200
    headers: Mapping[str, str] = {"content-type": "application/json"}

    async def open(self, call: Call) -> _Instant:
        assert call.body
        return self

    async def read(self) -> bytes:
        return _ANSWER

    async def next(self) -> bytes:
        return b""

    async def close(self) -> None:
        """Close nothing."""

    def abort(self) -> None:
        """Close nothing."""

    async def aclose(self) -> None:
        """Close nothing."""


async def _own_logic(client: RolloutClient, found: Found, rounds: int) -> None:
    dispatcher = Dispatcher(client, async_sender=_Instant())
    people = users(64)
    requests = [normalise(_REQUEST, {"user": user}) for user in people]
    usage = Usage(12, 149, 0.0)

    async def logic() -> None:
        sending = dispatcher.sending(requests[0])

        async def answered(attempt: Attempt) -> tuple[Outcome, None]:
            with Within(attempt.deadline - monotonic()):
                sending.gate.settle(attempt.permit, None)
            return sending.note(attempt, None, status=200, model=MODEL, headers=_NONE, usage=usage), None

        for place in range(_LOGIC_CALLS):
            sending = dispatcher.sending(requests[place % 64])
            await adrive(sending.policy(), answered, sleep=asyncio.sleep, clock=monotonic)
            assert sending.decision().attempts

    async def whole() -> None:
        for place in range(_LOGIC_CALLS):
            await dispatcher.ainvoke(_REQUEST, user=people[place % 64])

    async def plain() -> None:
        for _ in range(_LOGIC_CALLS):
            document: dict[str, Any] = json.loads(_ANSWER)
            assert document
            assert json.dumps(_REQUEST).encode()

    for _ in range(rounds * _LOGIC_TURNS):
        for name, work in ((LOGIC, logic), (_CALL, whole), (_JSON, plain)):
            began = thread_time()
            await work()
            found.cpu.add(name, (thread_time() - began) / _LOGIC_CALLS * 1e6)


def _part(found: Found) -> Part:
    def row(name: str, base: str) -> tuple[str, ...]:
        return (
            name,
            number(found.middle.median(name) * 1000),
            number(found.middle.added(name, base) * 1000) if name != base else "",
            times(found.middle.ratio(name, base)) if name != base else "",
            number(found.per_second.median(name)) if name != SDK else "",
            times(found.per_second.ratio(name, base)) if name not in (SDK, base) else "",
        )

    ours, sdk = found.middle.added(AINVOKE, AIOHTTP), found.middle.added(SDK, AIOHTTP)
    logic, whole = found.cpu.median(LOGIC), found.cpu.added(_CALL, _JSON)
    return Part(
        title="In an application",
        head=("one call", "p50 us", "added us", "of its base", "calls/s, 32 at once", "of its base's"),
        rows=[row(AIOHTTP, AIOHTTP), row(AINVOKE, AIOHTTP), row(SDK, AIOHTTP), row(HTTPX, HTTPX), row(INVOKE, HTTPX)],
        aims=(
            at_most("own logic, CPU per call", logic, 10, " us"),
            at_most("ainvoke_llm, p50 over aiohttp", ours * 1000, 60, " us"),
            at_least("ainvoke_llm, less added than LiteLLM's SDK", sdk / ours, 20, "x"),
            at_most("invoke_llm, p50 of httpx's", found.middle.ratio(INVOKE, HTTPX), 1.1, "x"),
        ),
        notes=(
            "Both write the request as JSON and read the answer; the base of the asynchronous calls is aiohttp, of "
            "the synchronous one httpx.",
            "Own logic: deciding, the models' order, the policy with its deadline, breakers, quota and retry budget, "
            "and the record of it. With everything else beside the sender and the JSON "
            f"({number(found.cpu.median(_JSON))} us) a call takes {number(whole)} us: its parameters are read, the "
            "answer is judged, its price looked at, and half of the answers get the upstream's shape back.",
        ),
    )
