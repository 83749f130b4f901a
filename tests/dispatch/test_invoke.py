import asyncio
import gzip
import json
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rollout.dispatch.decision import Exchange, InvokeResult
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.senders.async_aiohttp import AiohttpSender
from rollout.dispatch.senders.async_httpx import AsyncHttpxSender
from rollout.dispatch.senders.seam import AsyncSender
from rollout.domain.errors import (
    DeadlineExceeded,
    InvalidRequest,
    RateLimited,
    SendingFailed,
    UpstreamRejected,
    UpstreamUnavailable,
)
from rollout.domain.evaluate import Cause, Reason
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from tests.dispatch import conftest as world

HEJ = [{"role": "user", "content": "Hej"}]
ONE_MODEL = world.CASCADE[:1]
"""For what is about one attempt: there is nothing to fall back to."""
ALPHA = world.CASCADE[0]


class Caller:
    """`invoke_llm` in one of its three ways, called from a test that need not know which; streams come as lists."""

    def __init__(self, client: world.FixedClient, way: str, **more: Any) -> None:
        self.way = way
        self.seen: list[Exchange] = []
        sender: AsyncSender | None = (
            AiohttpSender() if way == "aiohttp" else AsyncHttpxSender() if way == "httpx" else None
        )
        self.slept: list[float] = []

        async def asleep(seconds: float) -> None:
            self.slept.append(seconds)

        # without a retry to spare, so that one model is asked once; tests of retries bring a gate that has some
        world_of = {"gate": world.a_gate(retries=False), "sleep": self.slept.append, "asleep": asleep, **more}
        self.dispatcher = Dispatcher(client, observe=self.seen.append, async_sender=sender, **world_of)

    def __call__(self, **params: Any) -> Any:
        return asyncio.run(self._async(params)) if self.way != "sync" else self._sync(params)

    def _sync(self, params: Any) -> Any:
        result = self.dispatcher.invoke(messages=HEJ, **params)
        return (list(result), result) if params.get("stream") else result

    async def _async(self, params: Any) -> Any:
        result: Any = await self.dispatcher.ainvoke(messages=HEJ, **params)
        return ([each async for each in result], result) if params.get("stream") else result


@pytest.fixture(params=["sync", "aiohttp", "httpx"])
def call(request: Any, client: world.FixedClient) -> Any:
    return Caller(client, request.param)


def text_of(chunks: Any) -> Any:
    return "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks)


def kinds(decision_or_error: Any) -> Any:
    return [(each.path, each.failure) for each in decision_or_error.attempts]


def test_the_decision_says_which_way_a_request_takes(call: Caller, upstream: world.Upstream) -> None:
    direct = call(user="off")
    gateway = call(user="on")
    assert (len(upstream.directly), len(upstream.via_gateway)) == (1, 1)
    assert direct["choices"][0]["message"]["content"] == "Hej"
    assert gateway["x_unknown"] == {"kept": [1, 2.5]}
    assert (direct.decision.path, direct.decision.served_by) == (Path.OPENROUTER, Path.OPENROUTER)
    decision = gateway.decision
    assert (decision.path, decision.served_by, decision.rescued_from) == (Path.LITELLM, Path.LITELLM, None)
    assert (decision.reason, decision.cause, decision.revision) == (Reason.TARGETING_MATCH, Cause.OVERRIDE, 7)
    assert (decision.model, decision.model_substituted, decision.bucket) == (ALPHA, False, None)
    assert decision.attempts[0].served_model == ALPHA
    assert decision.latency > 0


def test_what_arrives_carries_our_keys_and_guards_the_price(call: Caller, upstream: world.Upstream) -> None:
    call(user="off", temperature=0.5)
    call(user="on")
    (direct,), (gateway,) = upstream.directly, upstream.via_gateway
    assert direct.headers["authorization"] == f"Bearer {world.OPENROUTER_KEY}"
    assert gateway.headers["authorization"] == f"Bearer {world.GATEWAY_KEY}"
    assert gateway.headers["x-litellm-num-retries"] == "0"
    for said in (direct.body, gateway.body["extra_body"]):
        assert said["provider"]["max_price"]["completion"] == 0
    assert direct.body["temperature"] == 0.5
    assert direct.body["user"] == "off"


def test_a_stream_yields_chunks_and_its_decision(call: Caller, upstream: world.Upstream) -> None:
    chunks, stream = call(user="on", stream=True)
    assert text_of(chunks) == "".join(world.PIECES)
    assert stream.decision.served_by is Path.LITELLM
    assert [(each.failure, each.stream) for each in call.seen] == [(None, True)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (world.says(500, {"error": {"message": "boom"}}), FailureKind.SERVER_ERROR),
        (world.says(401, {"error": {"message": "key"}}), FailureKind.UNAUTHORIZED),
        (world.says(408, {"error": {"message": "late"}}), FailureKind.TIMEOUT),
        (world.says(200, b"<html>", content_type="text/html"), FailureKind.NO_ANSWER),
        (world.says(200, {"error": {"code": 502, "message": "x"}}), FailureKind.SERVER_ERROR),
        (world.streams(then="cut"), FailureKind.NO_ANSWER),
        (world.streams(b'data: {"error": {"code": 503}}\n\n'), FailureKind.SERVER_ERROR),
    ],
)
def test_a_gateway_that_fails_before_it_delivers_is_rescued_and_stays_on_record(
    call: Caller, upstream: world.Upstream, behaviour: world.Behaviour, kind: FailureKind, stream: bool
) -> None:
    upstream.gateway = behaviour
    result = call(user="on", stream=stream)
    decision = (result[1] if stream else result).decision
    if stream:
        assert text_of(result[0]) == "".join(world.PIECES)
    assert decision.path is Path.LITELLM
    assert decision.served_by is Path.OPENROUTER
    assert decision.rescued_from is Path.LITELLM
    if not (kind is FailureKind.SERVER_ERROR and stream is False and decision.attempts[0].status == 200):
        assert decision.attempts[0].failure in (kind, FailureKind.NO_ANSWER)
    assert decision.attempts[1].failure is None
    assert len(call.seen) == 1


def test_an_unreachable_gateway_is_rescued(call: Caller, upstream: world.Upstream, client: world.FixedClient) -> None:
    client.upstreams = world.upstreams_at(upstream.url, litellm_url="http://127.0.0.1:1")
    decision = call(user="on").decision
    assert kinds(decision) == [(Path.LITELLM, FailureKind.UNREACHABLE), (Path.OPENROUTER, None)]


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, UpstreamRejected, FailureKind.REJECTED),
        (402, UpstreamRejected, FailureKind.PAYMENT_REQUIRED),
        (404, UpstreamRejected, FailureKind.MODEL_GONE),
        (429, RateLimited, FailureKind.RATE_LIMITED),
    ],
)
def test_what_the_gateway_is_not_to_blame_for_is_not_sent_again(
    call: Caller, upstream: world.Upstream, client: world.FixedClient, status: int, error: Any, kind: FailureKind
) -> None:
    client.cascade = ONE_MODEL
    upstream.gateway = world.says(status, {"error": {"message": "because"}}, "Retry-After: 3")
    with pytest.raises(error, match="because") as caught:
        call(user="on")
    assert kinds(caught.value) == [(Path.LITELLM, kind)]
    assert caught.value.status == status
    assert caught.value.retry_after == (3.0 if status == 429 else None)
    assert caught.value.decision.served_by is None
    assert not upstream.directly
    assert [each.failure for each in call.seen] == [kind]


def test_when_both_paths_fail_the_error_tells_of_both(
    call: Caller, upstream: world.Upstream, client: world.FixedClient
) -> None:
    client.cascade = ONE_MODEL
    upstream.gateway = upstream.direct = world.says(503, {"error": {"message": f"key {world.OPENROUTER_KEY}"}})
    with pytest.raises(UpstreamUnavailable, match="before that litellm failed") as caught:
        call(user="on")
    assert len(caught.value.attempts) == 2
    assert world.OPENROUTER_KEY not in str(caught.value) + repr(caught.value.attempts)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("behaviour", [world.silence, world.comments])
def test_deadlines_hold_against_silence_and_against_keep_alives_and_close_the_upstream(
    call: Caller, upstream: world.Upstream, client: world.FixedClient, behaviour: world.Behaviour, stream: bool
) -> None:
    client.cascade = ONE_MODEL
    client.upstreams = world.upstreams_at(upstream.url, attempt_timeout=0.2, first_token_timeout=0.2)
    upstream.gateway = upstream.direct = behaviour
    with pytest.raises(DeadlineExceeded) as caught:
        call(user="on", stream=stream)
    assert kinds(caught.value) == [(Path.LITELLM, FailureKind.TIMEOUT), (Path.OPENROUTER, FailureKind.TIMEOUT)]
    assert all(each.closed.wait(5) for each in upstream.calls)
    assert all(150 < each.milliseconds < 2000 for each in caught.value.attempts)


def test_the_total_deadline_leaves_no_time_for_a_rescue(
    call: Caller, upstream: world.Upstream, client: world.FixedClient
) -> None:
    client.upstreams = world.upstreams_at(upstream.url, total_timeout=0.2)
    upstream.gateway = world.silence
    with pytest.raises(DeadlineExceeded):
        call(user="on")
    assert not upstream.directly


def test_a_stream_that_breaks_after_it_delivered_raises_and_is_not_sent_again(
    call: Caller, upstream: world.Upstream
) -> None:
    upstream.gateway = world.streams(world.chunk("m", {"content": "He"}), then="cut")
    with pytest.raises(UpstreamUnavailable, match="cut in the middle") as caught:
        call(user="on", stream=True)
    assert kinds(caught.value) == [(Path.LITELLM, FailureKind.INTERRUPTED)]
    assert not upstream.directly
    assert [each.failure for each in call.seen] == [FailureKind.INTERRUPTED]


def test_an_error_in_the_middle_of_a_stream_is_raised(call: Caller, upstream: world.Upstream) -> None:
    upstream.direct = world.streams(
        world.chunk("m", {"content": "He"}), b'data: {"error": {"code": "server_error", "message": "gone"}}\n\n'
    )
    with pytest.raises(UpstreamUnavailable, match="gone"):
        call(user="off", stream=True)


@pytest.mark.parametrize("after", [b": busy\n\n", b""])
def test_a_stream_that_stands_still_is_given_up_and_closed(
    call: Caller, upstream: world.Upstream, client: world.FixedClient, after: Any
) -> None:
    client.upstreams = world.upstreams_at(upstream.url, stall_timeout=0.2)
    upstream.direct = world.streams(
        world.chunk("m", {"content": "He"}), *([after] * 50 if after else []), then="silence", every=0.02
    )
    with pytest.raises(DeadlineExceeded, match="stood still"):
        call(user="off", stream=True)
    assert upstream.directly[0].closed.wait(5)


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([b"data: [DONE]\n\n"], FailureKind.EMPTY),
        ([world.chunk("m", {"role": "assistant", "content": ""})], FailureKind.TRUNCATED),
        ([], FailureKind.NO_ANSWER),
    ],
)
def test_a_stream_that_ends_before_its_first_token_is_a_failed_attempt(
    call: Caller, upstream: world.Upstream, client: world.FixedClient, pieces: Any, kind: FailureKind
) -> None:
    client.cascade = ONE_MODEL
    upstream.direct = world.streams(*pieces)
    with pytest.raises(UpstreamUnavailable) as caught:
        call(user="off", stream=True)
    assert kinds(caught.value) == [(Path.OPENROUTER, kind)]


def test_a_connection_is_used_again_after_answers_and_streams(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    sync = Caller(client, "sync")
    for _ in range(3):
        sync(user="off")
        sync(user="off", stream=True)
    assert upstream.connections == 1

    async def several(caller: Any) -> None:
        for _ in range(3):
            await caller._async({"user": "off"})
            await caller._async({"user": "off", "stream": True})

    for way in ("aiohttp", "httpx"):
        before = upstream.connections
        asyncio.run(several(Caller(client, way)))
        assert upstream.connections == before + 1


def test_a_model_outside_the_cascade_is_replaced_and_said(call: Caller, upstream: world.Upstream) -> None:
    assert call(user="off", model="gpt-4o").decision.model_substituted
    assert call(user="off", model=world.CASCADE[1]).decision.model == world.CASCADE[1]
    assert [each.body["model"] for each in upstream.directly] == list(world.CASCADE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cascade": ()}, "cascade is empty"),
        ({"cascade": ("openai/gpt-5",)}, "not a free model"),
        ({"upstreams": {"openrouter_key": None}}, "OPENROUTER_API_KEY is not set"),
    ],
)
def test_what_is_not_set_up_is_said_and_nothing_is_sent(
    call: Caller, client: world.FixedClient, upstream: world.Upstream, changes: Any, says: str
) -> None:
    if "cascade" in changes:
        client.cascade = changes["cascade"]
    client.upstreams = world.upstreams_at(upstream.url, **changes.get("upstreams", {}))
    with pytest.raises(InvalidRequest, match=says):
        call(user="off")
    assert not upstream.calls


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"toolChoice": "required"}, "tool_choice"),
        ({"n": "2"}, "n"),
        ({"tools": [{"type": "mcp"}]}, "tools"),
        ({"plugins": {"id": "web"}}, "plugins"),
        ({"extra_body": {"preset": "a"}}, "preset"),
    ],
)
@pytest.mark.parametrize("user", ["on", "off"])
def test_a_bad_request_is_refused_before_anything_is_sent(
    call: Caller, upstream: world.Upstream, user: str, wrong: Any, field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        call(user=user, **wrong)
    assert caught.value.field == field
    assert not upstream.calls


def test_without_a_key_nobody_comes_to_the_rescue_and_the_error_says_so(
    call: Caller, client: world.FixedClient, upstream: world.Upstream
) -> None:
    client.cascade = ONE_MODEL
    client.upstreams = world.upstreams_at(upstream.url, openrouter_key=None)
    upstream.gateway = world.says(500, {})
    with pytest.raises(UpstreamUnavailable, match="OPENROUTER_API_KEY is not set"):
        call(user="on")
    assert len(upstream.calls) == 1


def test_who_is_asking_comes_from_the_argument_else_from_the_current_user(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    caller = Caller(client, "sync", current_user=lambda: "on")
    assert caller().decision.path is Path.LITELLM
    assert caller(user="off").decision.path is Path.OPENROUTER
    assert Caller(client, "sync")().decision.path is Path.OPENROUTER
    assert "user" not in upstream.via_gateway[0].body["extra_body"]


def test_an_observer_that_fails_hurts_nobody(
    client: world.FixedClient, upstream: world.Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    def observe(exchange: Any) -> None:
        raise RuntimeError("observer")

    result: Any = Dispatcher(client, observe=observe).invoke(messages=HEJ, user="on")
    assert result["choices"]
    assert "the request itself is not affected" in caplog.text


def test_a_result_is_a_plain_mapping_that_survives_copying(client: world.FixedClient, upstream: world.Upstream) -> None:
    result = Dispatcher(client).invoke(messages=HEJ, user="on")
    assert isinstance(result, dict)
    assert json.loads(json.dumps(result)) == result
    again = pickle.loads(pickle.dumps(result))
    assert isinstance(again, InvokeResult)
    assert (again, again.decision) == (result, result.decision)


@pytest.mark.parametrize("leave", ["close", "drop", "with"])
def test_leaving_a_stream_closes_its_upstream(client: world.FixedClient, upstream: world.Upstream, leave: Any) -> None:
    upstream.direct = world.streams(world.chunk("m", {"content": "He"}), then="silence")
    caller = Caller(client, "sync")
    stream: Any = caller.dispatcher.invoke(messages=HEJ, user="off", stream=True)
    assert next(stream)["choices"]
    if leave == "close":
        stream.close()
        assert list(stream) == []
    elif leave == "with":
        with stream:
            pass
    del stream
    assert upstream.directly[0].closed.wait(5)
    assert [each.failure for each in caller.seen] == [FailureKind.CANCELLED]


@pytest.mark.parametrize("way", ["aiohttp", "httpx"])
async def test_leaving_an_asynchronous_stream_closes_its_upstream(
    client: world.FixedClient, upstream: world.Upstream, way: str
) -> None:
    upstream.direct = world.streams(world.chunk("m", {"content": "He"}), then="silence")
    caller = Caller(client, way)
    stream: Any = await caller.dispatcher.ainvoke(messages=HEJ, user="off", stream=True)
    async with stream:
        assert (await anext(stream))["choices"]
    assert await asyncio.to_thread(upstream.directly[0].closed.wait, 5)
    assert [each.failure for each in caller.seen] == [FailureKind.CANCELLED]


@pytest.mark.parametrize("way", ["aiohttp", "httpx"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_call_closes_its_upstream_and_is_on_record(
    client: world.FixedClient, upstream: world.Upstream, way: str, stream: bool
) -> None:
    upstream.gateway = world.silence
    caller = Caller(client, way)
    task = asyncio.ensure_future(caller.dispatcher.ainvoke(messages=HEJ, user="on", stream=stream))
    await upstream.asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(upstream.calls[0].closed.wait, 5)
    assert [(each.failure, kinds(each.decision)) for each in caller.seen] == [
        (FailureKind.CANCELLED, [(Path.LITELLM, FailureKind.CANCELLED)])
    ]


@pytest.mark.parametrize("way", ["aiohttp", "httpx"])
def test_each_event_loop_has_its_own_connections_and_closes_them(
    client: world.FixedClient, upstream: world.Upstream, way: str
) -> None:
    caller = Caller(client, way)
    for _ in range(3):
        assert caller(user="off")["choices"]  # warnings are errors: an unclosed session would fail this
    assert upstream.connections == 3
    assert not caller.dispatcher.async_sender.__dict__.popitem()[1]._kept


def test_threads_share_one_client(client: world.FixedClient, upstream: world.Upstream) -> None:
    caller = Caller(client, "sync")
    threads = [threading.Thread(target=caller, kwargs={"user": "on"}) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(upstream.via_gateway) == 8
    assert len(caller.seen) == 8


def test_sending_failed_is_one_tree(call: Caller, upstream: world.Upstream) -> None:
    upstream.direct = world.says(500, {})
    with pytest.raises(SendingFailed):
        call(user="off")


def test_an_answer_that_drips_is_over_at_its_deadline(client: world.FixedClient, upstream: world.Upstream) -> None:
    # each piece in time, then silence: the time-out of a single read would start anew
    client.upstreams = world.upstreams_at(upstream.url, attempt_timeout=0.3)

    async def drip(asked: Any, reader: Any, writer: Any) -> None:
        writer.write(world.head(200, "application/json"))
        for _ in range(60):
            writer.write(world.framed(b" "))
            await asyncio.sleep(0.02)
        await world.silence(asked, reader, writer)

    upstream.direct = drip
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        Caller(client, "sync")(user="off")
    assert time.monotonic() - started < 1.0


def test_many_threads_that_come_first_at_once_share_one_sender(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    dispatcher = Dispatcher(client)
    together = threading.Barrier(16)

    def first() -> tuple[int, int]:
        together.wait()
        return id(dispatcher.sender), id(dispatcher.gate)

    with ThreadPoolExecutor(16) as threads:
        made = {each.result() for each in [threads.submit(first) for _ in range(16)]}
    assert len(made) == 1


def test_an_answer_that_is_compressed_although_nobody_asked_for_it_is_read(
    call: Caller, upstream: world.Upstream
) -> None:
    packed = gzip.compress(json.dumps(world.completion(ALPHA, "packed")).encode())
    upstream.direct = world.says(200, packed, "Content-Encoding: gzip")
    assert call(user="off")["choices"][0]["message"]["content"] == "packed"
    assert upstream.directly[0].headers["accept-encoding"] == "identity"
