"""A stream that is dropped without a word: its upstream is closed and it is reported, in each way of calling."""

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rollout.dispatch.decision import Exchange
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.senders.async_aiohttp import AiohttpSender
from rollout.dispatch.senders.async_httpx import AsyncHttpxSender
from rollout.domain.failure import FailureKind
from rollout.transports import AsyncRolloutTransport
from tests.dispatch import conftest as world

HEJ = [{"role": "user", "content": "Hej"}]
SENDERS: Any = {"aiohttp": AiohttpSender, "httpx": AsyncHttpxSender}


class Left(Exception):
    """The application left in the middle of a stream."""


class Caller:
    """An application in front of an upstream that says one word and then nothing."""

    def __init__(self, client: world.FixedClient, upstream: world.Upstream, way: str = "aiohttp") -> None:
        upstream.direct = world.streams(world.chunk("m", {"content": "He"}), then="silence")
        self.upstream = upstream
        self.seen: list[Exchange] = []
        gate = world.a_gate()
        self.dispatcher = Dispatcher(client, observe=self.seen.append, async_sender=SENDERS[way](), gate=gate)

    async def leaves(self) -> None:
        """Leave an `async for` by an exception, as application code does."""
        stream: Any = await self.dispatcher.ainvoke(messages=HEJ, user="off", stream=True)
        async for _ in stream:
            raise Left

    async def opened(self) -> Any:
        stream: Any = await self.dispatcher.ainvoke(messages=HEJ, user="off", stream=True)
        assert (await anext(stream))["choices"]
        return stream

    def failures(self) -> list[FailureKind | None]:
        return [each.failure for each in self.seen]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens at a later turn of this loop, collecting what nobody holds."""
    async with asyncio.timeout(5):
        while not condition():
            gc.collect()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", list(SENDERS))
async def test_streams_that_an_exception_leaves_close_their_upstreams_and_are_reported_once(
    client: world.FixedClient, upstream: world.Upstream, way: str
) -> None:
    caller = Caller(client, upstream, way)
    for _ in range(3):
        with pytest.raises(Left):
            await caller.leaves()
    await until(lambda: len(caller.seen) == 3 and all(each.closed.is_set() for each in upstream.directly))
    await caller.dispatcher.aclose()
    assert caller.failures() == [FailureKind.CANCELLED] * 3


async def test_a_stream_that_only_the_collector_finds_is_closed_by_its_loop(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    caller = Caller(client, upstream)
    holder: list[Any] = [await caller.opened()]
    holder.append(holder)
    del holder
    await asyncio.to_thread(gc.collect)  # another thread, as it may be at any time
    await until(lambda: bool(caller.seen) and upstream.directly[0].closed.is_set())
    assert caller.failures() == [FailureKind.CANCELLED]


def test_a_stream_that_outlives_its_loop_is_reported_when_it_is_dropped(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    caller = Caller(client, upstream, "httpx")
    stream = asyncio.run(caller.opened())
    assert upstream.directly[0].closed.wait(5)
    assert caller.seen == []
    assert sys.getrefcount(stream) == 2
    del stream
    assert caller.failures() == [FailureKind.CANCELLED]


@pytest.mark.parametrize("end", ["read", "close"])
async def test_a_stream_that_ended_is_not_reported_again_when_it_is_dropped(
    client: world.FixedClient, upstream: world.Upstream, end: str
) -> None:
    caller = Caller(client, upstream)
    if end == "read":
        upstream.direct = world.normal
    stream = await caller.opened()
    if end == "read":
        assert [each async for each in stream]
    else:
        await stream.aclose()
    del stream
    await asyncio.sleep(0.02)
    assert caller.failures() == [None if end == "read" else FailureKind.CANCELLED]


@pytest.mark.parametrize("way", list(SENDERS))
async def test_a_transports_answer_that_is_dropped_closes_its_upstream(
    client: world.FixedClient, upstream: world.Upstream, way: str
) -> None:
    caller = Caller(client, upstream, way)
    body = {"messages": HEJ, "stream": True, "user": "off"}
    async with httpx.AsyncClient(transport=AsyncRolloutTransport(caller.dispatcher)) as http:
        request = http.build_request("POST", "https://api.example/v1/chat/completions", json=body)
        response = await http.send(request, stream=True)
        async for piece in response.aiter_bytes():
            assert piece
            break
        del response
        await until(lambda: bool(caller.seen) and upstream.directly[0].closed.is_set())
    assert caller.failures() == [FailureKind.CANCELLED]
    await caller.dispatcher.aclose()
