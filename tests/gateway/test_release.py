"""Which release a gateway is that somebody else runs, and what is wrong with it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress

import httpx
import pytest

from rollout.gateway.pin import why_unsupported
from rollout.gateway.plan import Pace
from rollout.gateway.state import GatewayState
from rollout.gateway.watch import ExternalGateway, key_header, release_in

KEY = "sk-of-the-gateway"


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("1.84.0", "streams do not say what they cost"),
        ("1.93.2", "streams do not say what they cost"),
        ("1.82.7", "malicious"),
        ("1.70.0", "CVE-2026-49468"),
        ("1.97.0", "timeouts never fire"),
        ("1.100.0", "takes all memory"),
    ],
)
def test_a_release_that_is_not_supported_is_named_with_what_is_wrong_and_what_to_do(release: str, words: str) -> None:
    said = why_unsupported(release)
    assert said is not None
    assert f"LiteLLM {release}" in said
    assert words in said
    assert "run LiteLLM 1.94.0 or later" in said


@pytest.mark.parametrize("release", ["1.94.0", "1.96.2", "1.99.0", "1.106.2", "2.0.0", "main", None])
def test_nothing_is_said_of_other_releases_nor_of_one_that_nobody_knows(release: str | None) -> None:
    assert why_unsupported(release) is None


@pytest.mark.parametrize(
    ("status", "body", "release"),
    [
        (200, {"litellm_version": "1.94.0"}, "1.94.0"),
        (200, {"litellm_version": 5}, None),
        (200, {"litellm_version": "<b>"}, None),
        (200, [], None),
        (401, {"litellm_version": "1.94.0"}, None),
    ],
)
def test_a_release_is_read_only_from_a_good_answer(status: int, body: object, release: str | None) -> None:
    assert release_in(httpx.Response(status, json=body)) == release
    assert release_in(httpx.Response(200, text="<html>")) is None


def test_a_key_that_no_header_can_carry_is_not_sent() -> None:
    assert [key_header(key) for key in (None, "", "a\nb", "å")] == [{}] * 4
    assert key_header(KEY) == {"Authorization": f"Bearer {KEY}"}


@asynccontextmanager
async def a_gateway(release: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Answer as LiteLLM does: its liveness to everybody, its release to whoever has the key."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                asked.append(path)
                known = f"Bearer {KEY}" in head or "details" not in path
                body = json.dumps({"litellm_version": release} if "details" in path else "I'm alive!").encode()
                status = 200 if known else 401
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.mark.parametrize(("key", "release"), [(KEY, "1.84.0"), ("sk-another", None), (None, None)])
async def test_a_foreign_gateway_is_asked_for_its_release_once_in_a_while(key: str | None, release: str | None) -> None:
    states: list[GatewayState] = []
    looked = asyncio.Event()

    async with a_gateway("1.84.0") as (url, asked):

        async def sleep(seconds: float) -> None:
            if asked.count("/health/liveliness") >= 10:
                looked.set()
            await asyncio.sleep(seconds)

        gateway = ExternalGateway(
            url, key=key, clock=lambda: 0.0, sleep=sleep, on_change=states.append, pace=Pace(look=0.001)
        )
        task = asyncio.ensure_future(gateway.run())
        try:
            async with asyncio.timeout(30):
                await looked.wait()
            assert (gateway.state.answering, gateway.state.release) == (True, release)
        finally:
            task.cancel()
            await asyncio.wait({task})
    assert asked.count("/health/readiness/details") == 1
    assert KEY not in repr(states)
