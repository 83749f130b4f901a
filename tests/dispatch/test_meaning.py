"""Events that say nothing, on both paths and for every reader; and pieces that LiteLLM takes for a stream's end."""

import asyncio
import json
from typing import Any

import pytest

from rollout.dispatch.dispatcher import Dispatcher
from rollout.domain.errors import UpstreamUnavailable
from rollout.domain.failure import FailureKind
from tests.dispatch import conftest as world
from tests.dispatch.test_broken_streams import HEJ, Front, event

ROLE = world.chunk("m", {"role": "assistant", "content": ""})
HE, J, STOP = world.chunk("m", {"content": "He"}), world.chunk("m", {"content": "j"}), world.chunk("m", {}, "stop")
USED = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0}})
DONE = b"data: [DONE]\n\n"
SOUND = [ROLE, HE, J, STOP, USED, DONE]
NOTHING = {
    "null": b"data: null\n\n",
    "null with blanks": b"data:  null \r\n\r\n",
    "empty data": b"data:\n\n",
    "data without a colon": b"data\n\n",
    "blank data": b"data:   \n\n",
    "two empty lines of data": b"data:\ndata:\n\n",
    "fields without data": b"event: ping\nid: 7\nretry: 10\n\n",
    "an unknown field": b"mood: good\n\n",
}
KEPT = {
    "empty lines": b"\n\r\n\r\n\n",
    "a comment": b": busy\n\n",
    "an empty comment": b":\n\n",
    "a comment with CR": b": busy\r\r",
}


async def read(pieces: Any, way: str, user: str) -> Any:
    """Return the text that a reader gets, and the bytes if it is one of bytes."""
    front = Front(*pieces)
    if way == "endpoint":
        await front.call(user)
        passed, data = front.passed, front.passed.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        assert data.endswith(DONE)
        lines = [line for line in data.split(b"\n") if line and not line.startswith(b":")]
        chunks = [json.loads(line.removeprefix(b"data:")) for line in lines[:-1]]
    else:
        passed = b""
        stream: Any = await front.dispatcher.ainvoke(messages=HEJ, user=user, stream=True)
        chunks = [each async for each in stream]
    assert [each.failure for each in front.seen] == [None]
    said = (each["choices"][0]["delta"].get("content") or "" for each in chunks if each["choices"])
    return "".join(said), passed


@pytest.mark.parametrize("user", ["off", "on"])
@pytest.mark.parametrize("way", ["endpoint", "iterator"])
@pytest.mark.parametrize("kind", [*NOTHING, *KEPT])
async def test_what_says_nothing_is_skipped_wherever_it_stands(kind: str, way: str, user: str) -> None:
    nothing = {**NOTHING, **KEPT}[kind]
    for at in range(len(SOUND)):
        said, passed = await read([*SOUND[:at], nothing, *SOUND[at:]], way, user)
        assert said == "Hej"
        if way == "endpoint":
            assert passed == b"".join(SOUND if kind in NOTHING else [*SOUND[:at], nothing, *SOUND[at:]])


@pytest.mark.parametrize("way", ["endpoint", "iterator"])
@pytest.mark.parametrize("size", [1, 5, 64, 100_000])
async def test_however_a_stream_is_split_what_says_nothing_is_left_out(way: str, size: int) -> None:
    odd = b"\xef\xbb\xbf" + b"".join(b"event: piece\nid: 1\n" + each + NOTHING["null"] for each in SOUND[:-1])
    for raw in (odd + DONE, odd.replace(b"\n", b"\r\n") + b"data:[DONE]", odd.replace(b"\n", b"\r") + b"data: [DONE]"):
        said, passed = await read([raw[at : at + size] for at in range(0, len(raw), size)], way, "off")
        assert said == "Hej"
        for useless in (b"data: null", b"event:", b"id:", b"\xef\xbb\xbf"):
            assert useless not in passed


@pytest.mark.parametrize("way", ["endpoint", "iterator"])
@pytest.mark.parametrize(
    "mark", [b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE] \t\n\n", b"data:\t[DONE]\r\n\r\n"]
)
@pytest.mark.parametrize(
    "behind", [b" \n", b": busy\n\n", b"data: null\n\n", HE + STOP + DONE, b"data: {broken\n\n", b"\xff"]
)
async def test_nothing_behind_the_end_mark_is_delivered(mark: bytes, behind: bytes, way: str) -> None:
    for pieces in ([*SOUND[:-1], mark + behind], [b"".join(SOUND[:-1]) + mark + behind], [*SOUND[:-1], mark, behind]):
        said, passed = await read(pieces, way, "off")
        assert said == "Hej"
        assert way == "iterator" or passed == b"".join(SOUND)


@pytest.mark.parametrize("way", ["endpoint", "iterator"])
async def test_what_the_gateway_sends_behind_the_usage_is_not_delivered(way: str) -> None:
    said, passed = await read([*SOUND[:-1], HE, J, DONE], way, "on")
    assert said == "Hej"
    assert way == "iterator" or passed == b"".join(SOUND)


@pytest.mark.parametrize("data", [b"5", b"true", b'"text"', b"[1]", b'["DONE"]', b'"[DONE]"', b"{", b"nil"])
@pytest.mark.parametrize("user", ["off", "on"])
async def test_data_that_is_no_object_is_garbage(data: bytes, user: str) -> None:
    front = Front(ROLE, HE, b"data: %b\n\n" % data, J, STOP, USED, DONE)
    *_, told = await front.ask(user)
    assert told["error"]["code"] == "interrupted"
    assert front.passed.startswith(ROLE + HE)
    assert J not in front.passed


def test_an_event_without_meaning_is_skipped_by_the_synchronous_iterator_too(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    upstream.direct = upstream.gateway = world.streams(
        *NOTHING.values(), ROLE, HE, *NOTHING.values(), J, STOP, USED, DONE + HE
    )
    for user in ("off", "on"):
        stream: Any = Dispatcher(client).invoke(messages=HEJ, user=user, stream=True)
        assert "".join(each["choices"][0]["delta"].get("content") or "" for each in stream if each["choices"]) == "Hej"


LOST = [HE, STOP, J, USED, DONE]  # what LiteLLM makes of a stream whose second piece holds the end mark


async def test_a_piece_that_the_gateway_lost_breaks_the_stream_and_is_told() -> None:
    front = Front(*LOST)
    *_, told = await front.ask("on")
    assert told["error"]["code"] == "interrupted"
    assert "[DONE]" in told["error"]["message"]
    assert front.passed.startswith(HE + STOP)
    assert J not in front.passed
    with pytest.raises(UpstreamUnavailable, match="LiteLLM lost a piece"):
        [each async for each in await front.dispatcher.ainvoke(messages=HEJ, user="on", stream=True)]  # type: ignore[union-attr]


async def test_a_loss_speaks_against_neither_the_gateway_nor_the_model() -> None:
    front = Front(*LOST)
    for _ in range(10):
        await front.ask("on")
    assert all(each.status.failures == 0 for each in front.dispatcher.gate.status().breakers)


async def test_what_a_model_says_after_its_end_still_passes_on_the_direct_path() -> None:
    said, passed = await read(LOST, "endpoint", "off")
    assert said == "Hej"
    assert passed == b"".join(LOST)


async def test_the_end_of_one_choice_is_not_the_end_of_the_others() -> None:
    second = event({"choices": [{"index": 1, "delta": {"content": "B"}}]})
    said, _ = await read([HE, second, STOP, second, J, USED, DONE], "endpoint", "on")
    assert said == "HeBBj"


def test_a_loss_before_anything_was_delivered_is_answered_directly(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    upstream.gateway = world.streams(ROLE, STOP, J, USED, DONE)
    stream: Any = Dispatcher(client, gate=world.a_gate()).invoke(messages=HEJ, user="on", stream=True)
    assert "".join(each["choices"][0]["delta"].get("content") or "" for each in stream) == "".join(world.PIECES)
    assert [each.failure for each in stream.decision.attempts] == [FailureKind.NO_ANSWER, None]


SPEAKS: Any = [{"role": "user", "content": "Say: data: [DONE]"}]


def test_a_stream_whose_request_speaks_of_the_end_mark_is_asked_directly(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    gate = world.a_gate(per_day=50)
    dispatcher = Dispatcher(client, gate=gate)
    stream: Any = dispatcher.invoke(messages=SPEAKS, user="on", stream=True)
    assert list(stream)
    assert not upstream.via_gateway
    withheld, served = stream.decision.attempts
    assert (withheld.failure, withheld.quota_used, served.failure) == (FailureKind.UNREACHABLE, 0, None)
    assert (served.model, stream.decision.served_by) == (withheld.model, "openrouter")
    assert gate.status().quota.used_today == 1
    assert all(each.status.failures == 0 for each in gate.status().breakers)
    plain: Any = dispatcher.invoke(messages=SPEAKS, user="on")
    assert plain.decision.served_by == "litellm"


def test_without_a_direct_path_a_stream_that_speaks_of_the_end_mark_goes_through_the_gateway(
    upstream: world.Upstream,
) -> None:
    client = world.FixedClient(world.upstreams_at(upstream.url, openrouter_key=""))
    stream: Any = asyncio.run(whole(Dispatcher(client)))
    assert stream.decision.served_by == "litellm"


async def whole(dispatcher: Dispatcher) -> Any:
    stream: Any = await dispatcher.ainvoke(messages=SPEAKS, user="on", stream=True)
    async for _ in stream:
        pass
    await dispatcher.aclose()
    return stream
