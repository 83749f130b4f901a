"""In an application, streaming: our streams of 50 chunks beside the client libraries they are made of."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any, Final, NamedTuple

import aiohttp
import httpx

import rollout
from bench.library import AINVOKE, AIOHTTP, HTTPX, INVOKE, client_beside
from bench.processes import python_server, request
from bench.report import Part, Series, at_most, number, percentile, times
from bench.stub import CHUNKS
from bench.world import KEY, chat, users
from rollout.client.default import set_default_client

_STREAMS: Final = 15
_TURNS: Final = 4  # a round's; short turns, so that contenders see the same moments of the machine
_AT_ONCE: Final = 32
_EACH: Final = 6
_EACH_SYNC: Final = 2  # raw httpx is slow with many connections
_REQUEST: Final = chat()
_BODY: Final = json.dumps(chat(stream=True)).encode()
_HEADERS: Final = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}

Chunk = dict[str, Any]


class Took(NamedTuple):
    """Milliseconds to the first chunk, and to the end of the stream."""

    first: float
    whole: float


class Found:
    """Milliseconds one at a time; with 32 at once milliseconds to the first chunk, and streams per second."""

    def __init__(self) -> None:
        self.first = Series()
        self.whole = Series()
        self.first_at_once = Series()
        self.per_second = Series()

    def alone(self, name: str, took: Sequence[Took]) -> None:
        """Take down streams one after the other."""
        self.first.add(name, percentile([each.first for each in took], 50))
        self.whole.add(name, percentile([each.whole for each in took], 50))

    def at_once(self, name: str, took: Sequence[Took], seconds: float) -> None:
        """Take down streams that ran at once."""
        self.first_at_once.add(name, percentile([each.first for each in took], 50))
        self.per_second.add(name, len(took) / seconds)


def run(rounds: int) -> Part:
    found = Found()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stub = stack.enter_context(python_server("the upstream stub", "bench.stub"))
        stub.wait(request("POST", "/api/v1/chat/completions", body=b"{}"))
        set_default_client(client_beside(folder, stub.port))
        stack.callback(set_default_client, None)
        url = f"http://127.0.0.1:{stub.port}/api/v1/chat/completions"
        asyncio.run(_asynchronously(url, found, rounds))
        _synchronously(url, found, rounds)
    return _part(found)


async def _asynchronously(url: str, found: Found, rounds: int) -> None:
    people = cycle(users(64))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def raw() -> AsyncIterator[Chunk]:
            async with session.post(url, data=_BODY, headers=_HEADERS) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        yield json.loads(line[6:])

        async def ours() -> AsyncIterator[Chunk]:
            async with await rollout.ainvoke_llm(_REQUEST, stream=True, user=next(people)) as stream:
                async for chunk in stream:
                    yield chunk

        contenders: Mapping[str, Callable[[], AsyncIterator[Chunk]]] = {AIOHTTP: raw, AINVOKE: ours}

        async def several(streams: Callable[[], AsyncIterator[Chunk]]) -> Sequence[Took]:
            return [await _timed(streams()) for _ in range(_EACH)]

        for streams in contenders.values():
            await asyncio.gather(*(_timed(streams()) for _ in range(_AT_ONCE)))
        for _ in range(rounds):
            for _ in range(_TURNS):
                for name, streams in contenders.items():
                    found.alone(name, [await _timed(streams()) for _ in range(_STREAMS)])
            for name, streams in contenders.items():
                began = perf_counter()
                took = await asyncio.gather(*(several(streams) for _ in range(_AT_ONCE)))
                found.at_once(name, [each for one in took for each in one], perf_counter() - began)


def _synchronously(url: str, found: Found, rounds: int) -> None:
    people = cycle(users(64))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    with httpx.Client(trust_env=False, limits=limits) as http, ThreadPoolExecutor(_AT_ONCE) as threads:

        def raw() -> Iterator[Chunk]:
            with http.stream("POST", url, content=_BODY, headers=_HEADERS) as response:
                for line in response.iter_lines():
                    if line.startswith("data: {"):
                        yield json.loads(line[6:])

        def ours() -> Iterator[Chunk]:
            with rollout.invoke_llm(_REQUEST, stream=True, user=next(people)) as stream:
                yield from stream

        contenders: Mapping[str, Callable[[], Iterator[Chunk]]] = {HTTPX: raw, INVOKE: ours}

        def several(streams: Callable[[], Iterator[Chunk]]) -> Sequence[Took]:
            return [_timed_now(streams()) for _ in range(_EACH_SYNC)]

        for streams in contenders.values():
            several(streams)
        # alone first: httpx slows down with each connection that is open, and how many many callers leave is chance
        for _ in range(rounds * _TURNS):
            for name, streams in contenders.items():
                found.alone(name, [_timed_now(streams()) for _ in range(_STREAMS)])
        for streams in contenders.values():
            list(threads.map(several, [streams] * _AT_ONCE))
        for _ in range(rounds):
            for name, streams in contenders.items():
                began = perf_counter()
                took = list(threads.map(several, [streams] * _AT_ONCE))
                found.at_once(name, [each for one in took for each in one], perf_counter() - began)


async def _timed(chunks: AsyncIterator[Chunk]) -> Took:
    began = perf_counter()
    first, count = 0.0, 0
    async for _ in chunks:
        first = first or perf_counter()
        count += 1
    ended = perf_counter()
    assert count == CHUNKS
    return Took((first - began) * 1000, (ended - began) * 1000)


def _timed_now(chunks: Iterator[Chunk]) -> Took:
    began = perf_counter()
    first, count = 0.0, 0
    for _ in chunks:
        first = first or perf_counter()
        count += 1
    ended = perf_counter()
    assert count == CHUNKS
    return Took((first - began) * 1000, (ended - began) * 1000)


def _part(found: Found) -> Part:
    def row(name: str, base: str) -> tuple[str, ...]:
        ours = name != base
        return (
            name,
            number(found.first.median(name) * 1000),
            number(found.first.added(name, base) * 1000) if ours else "",
            number(found.whole.median(name) * 1000),
            number(found.whole.added(name, base) * 1000) if ours else "",
            times(found.whole.ratio(name, base)) if ours else "",
            number(found.first_at_once.median(name)),
            number(found.per_second.median(name)),
            times(found.per_second.ratio(name, base)) if ours else "",
        )

    return Part(
        title="In an application, streaming",
        head=(
            f"one stream of {CHUNKS} chunks",
            "first chunk us",
            "added us",
            "whole us",
            "added us",
            "of its base",
            "first chunk ms, 32 at once",
            "streams/s, 32 at once",
            "of its base's",
        ),
        rows=[row(AIOHTTP, AIOHTTP), row(AINVOKE, AIOHTTP), row(HTTPX, HTTPX), row(INVOKE, HTTPX)],
        aims=(
            at_most("ainvoke_llm, first chunk over aiohttp", found.first.added(AINVOKE, AIOHTTP), 1, " ms"),
            at_most("ainvoke_llm, whole stream over aiohttp", found.whole.added(AINVOKE, AIOHTTP), 1, " ms"),
            at_most("invoke_llm, whole stream of httpx's", found.whole.ratio(INVOKE, HTTPX), 1.1, "x"),
        ),
        notes=(
            "Each reads every chunk's JSON; one at a time but where it says otherwise. The bases look for lines that "
            "begin with `data: {` and check nothing; ours checks what an answer has to hold.",
        ),
    )
