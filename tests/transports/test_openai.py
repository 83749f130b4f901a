"""The official OpenAI SDK, unchanged, through every door: what it reads, what it raises, and what arrives upstream."""

import asyncio
import json
from typing import Any

import openai
import pydantic
import pytest

from rollout.client.user import user
from rollout.domain.failure import FailureKind
from rollout.simulator import Fault, Kind
from tests.dispatch import conftest as world
from tests.transports.conftest import HEJ, MODEL, Door, Simulated, close, collect, each, over

ALPHA = world.CASCADE[0]
TRANSPORTS = ["transport-sync", "transport-async"]  # over HTTP the SDK's own client waits, and knows no variable
ASYNC = ["transport-async", "endpoint-async"]  # only what is asynchronous can be cancelled
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Verdict(pydantic.BaseModel):
    good: bool
    why: str


async def test_a_plain_answer_is_read(door: Door, simulated: Simulated) -> None:
    sdk = door.make(simulated.client)
    answer = await over(sdk.chat.completions.create(model=MODEL, messages=HEJ))
    assert answer.model == MODEL
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content.endswith("You said: Hej")
    assert answer.usage.cost == 0
    assert simulated.arrivals == 1


async def test_a_stream_is_read(door: Door, simulated: Simulated) -> None:
    sdk = door.make(simulated.client)
    stream = await over(sdk.chat.completions.create(model=MODEL, messages=HEJ, stream=True))
    chunks = await each(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.endswith("You said: Hej")
    assert chunks[-1].usage.cost == 0
    assert simulated.arrivals == 1


async def test_a_tool_is_called(door: Door, simulated: Simulated) -> None:
    sdk = door.make(simulated.client)
    answer = await over(sdk.chat.completions.create(model=MODEL, messages=HEJ, tools=[WEATHER], tool_choice="required"))
    (call,) = answer.choices[0].message.tool_calls
    assert (answer.choices[0].finish_reason, call.function.name) == ("tool_calls", "weather")
    assert "city" in json.loads(call.function.arguments)


async def test_a_tool_call_comes_in_pieces(door: Door, simulated: Simulated) -> None:
    sdk = door.make(simulated.client)
    stream = await over(
        sdk.chat.completions.create(model=MODEL, messages=HEJ, tools=[WEATHER], tool_choice="required", stream=True)
    )
    calls = [chunk.choices[0].delta.tool_calls for chunk in await each(stream) if chunk.choices]
    arguments = "".join(call[0].function.arguments or "" for call in calls if call)
    assert "city" in json.loads(arguments)


async def test_structured_output_becomes_a_model(door: Door, simulated: Simulated) -> None:
    sdk = door.make(simulated.client)
    answer = await over(sdk.chat.completions.parse(model=MODEL, messages=HEJ, response_format=Verdict))
    assert isinstance(answer.choices[0].message.parsed, Verdict)


async def test_the_sdks_own_stream_of_events_ends_with_a_model(door: Door, simulated: Simulated) -> None:
    sdk = door.make(simulated.client)
    opened = sdk.chat.completions.stream(model=MODEL, messages=HEJ, response_format=Verdict)
    if hasattr(opened, "__aenter__"):
        async with opened as stream:
            events = [event async for event in stream]
            final = await stream.get_final_completion()
    else:
        with opened as stream:
            events = list(stream)
            final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Verdict)
    assert {"chunk", "content.delta", "content.done"} <= {event.type for event in events}


async def test_the_raw_response_says_which_way_it_took(door: Door, upstream: world.Upstream, client: Any) -> None:
    sdk = door.make(client)
    raw = await over(sdk.chat.completions.with_raw_response.create(model=ALPHA, messages=HEJ, user="on"))
    headers = raw.headers
    assert (headers["x-rollout-path"], headers["x-rollout-served-by"]) == ("litellm", "litellm")
    assert (headers["x-rollout-cause"], headers["x-rollout-attempts"]) == ("override", "1")
    assert headers["x-rollout-model"] == ALPHA
    assert len(headers["x-rollout-request-id"]) == 16
    assert raw.parse().choices[0].message.content == "Hej"
    assert upstream.via_gateway[0].headers["authorization"] == f"Bearer {world.GATEWAY_KEY}"


async def test_an_answer_of_the_gateway_is_in_the_upstreams_shape(
    door: Door, upstream: world.Upstream, client: Any
) -> None:
    rewritten = world.completion(f"openrouter/{ALPHA}")
    rewritten["choices"][0]["message"]["provider_specific_fields"] = {"refusal": "I cannot"}
    upstream.gateway = world.says(200, rewritten)
    sdk = door.make(client)
    answer = await over(sdk.chat.completions.create(model=ALPHA, messages=HEJ, user="on"))
    assert answer.model == ALPHA
    assert answer.choices[0].message.refusal == "I cannot"
    assert answer.x_unknown == {"kept": [1, 2.5]}


async def test_the_user_in_the_header_beats_the_one_in_the_body(
    door: Door, upstream: world.Upstream, client: Any
) -> None:
    sdk = door.make(client)
    create = sdk.chat.completions.create
    await over(create(model=ALPHA, messages=HEJ, user="off", extra_headers={"X-Rollout-User": "on"}))
    assert (len(upstream.via_gateway), len(upstream.directly)) == (1, 0)


async def test_a_broken_gateway_is_rescued_unnoticed(door: Door, upstream: world.Upstream, client: Any) -> None:
    upstream.gateway = world.says(500, {"error": {"message": "no", "code": 500}})
    sdk = door.make(client)
    for stream in (False, True):
        raw = await over(
            sdk.chat.completions.with_raw_response.create(model=ALPHA, messages=HEJ, user="on", stream=stream)
        )
        headers = raw.headers
        assert (headers["x-rollout-path"], headers["x-rollout-served-by"]) == ("litellm", "openrouter")
        if stream:
            await each(await over(raw.parse()))
    assert (len(upstream.via_gateway), len(upstream.directly)) == (2, 2)


@pytest.mark.parametrize(
    ("kind", "error", "status", "arrivals"),
    [
        (Kind.RATE_LIMIT_DAY, openai.RateLimitError, 429, 1),
        (Kind.PAYMENT_REQUIRED, openai.InternalServerError, 502, 1),
        (Kind.UNAUTHORIZED, openai.InternalServerError, 502, 1),
        (Kind.NOT_FOUND_FREE_VARIANT_ENDED, openai.InternalServerError, 502, 2),
        (Kind.FORBIDDEN, openai.BadRequestError, 400, 1),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_has_the_sdks_type_and_the_sdk_does_not_send_it_again(
    door: Door,
    simulated: Simulated,
    kind: Kind,
    error: type[openai.APIStatusError],
    status: int,
    arrivals: int,
    stream: bool,
) -> None:
    simulated.world.script.play([Fault(kind)])
    sdk = door.make(simulated.client, max_retries=5)
    with pytest.raises(error) as raised:
        await over(sdk.chat.completions.create(model=MODEL, messages=HEJ, stream=stream))
    assert raised.value.status_code == status
    assert raised.value.response.headers["x-should-retry"] == "false"
    body = raised.value.response.json()
    assert set(body["error"]) == {"message", "type", "code", "param"}
    assert simulated.arrivals == arrivals
    assert (await door.told()).failure is not None


async def test_the_sdks_retries_do_not_multiply_the_policys(door: Door, simulated: Simulated) -> None:
    simulated.world.script.play([Fault(Kind.ERROR_500)])
    sdk = door.make(simulated.client, max_retries=5)
    with pytest.raises(openai.InternalServerError):
        await over(sdk.chat.completions.create(model=MODEL, messages=HEJ))
    exchange = await door.told()
    assert simulated.arrivals == len(exchange.decision.attempts) <= 3


async def test_a_request_that_cannot_be_sent_is_refused_and_nothing_is(door: Door, simulated: Simulated) -> None:
    sdk = door.make(simulated.client)
    with pytest.raises(openai.BadRequestError, match="messages"):
        await over(sdk.chat.completions.create(model=MODEL, messages=[]))
    assert simulated.arrivals == 0


async def test_an_unreachable_upstream_is_an_answer_and_no_connection_error(door: Door, client: Any) -> None:
    client.upstreams = world.upstreams_at("http://127.0.0.1:9", total_timeout=3.0)
    sdk = door.make(client, max_retries=5)
    with pytest.raises(openai.APIStatusError) as raised:
        await over(sdk.chat.completions.create(model=ALPHA, messages=HEJ, user="off"))
    assert raised.value.status_code == 502


async def test_a_stream_that_breaks_raises_after_what_came(door: Door, upstream: world.Upstream, client: Any) -> None:
    upstream.direct = world.streams(world.chunk(ALPHA, {"content": "He"}), then="cut")
    sdk = door.make(client)
    stream = await over(sdk.chat.completions.create(model=ALPHA, messages=HEJ, user="off", stream=True))
    got: list[Any] = []
    with pytest.raises(openai.APIError, match="connection was cut"):
        await collect(stream, got)
    assert [chunk.choices[0].delta.content for chunk in got] == ["He"]
    assert len(upstream.directly) == 1


async def test_a_closed_stream_closes_the_upstream(door: Door, upstream: world.Upstream, client: Any) -> None:
    upstream.direct = world.streams(world.chunk(ALPHA, {"content": "He"}), then="silence")
    sdk = door.make(client)
    stream = await over(sdk.chat.completions.create(model=ALPHA, messages=HEJ, user="off", stream=True))
    first = await anext(stream) if hasattr(stream, "__aiter__") else next(stream)
    assert first.choices[0].delta.content == "He"
    await close(stream)
    assert await asyncio.to_thread(upstream.directly[0].closed.wait, 5)


async def test_a_stream_closed_unread_closes_the_upstream(door: Door, upstream: world.Upstream, client: Any) -> None:
    upstream.direct = world.streams(world.chunk(ALPHA, {"content": "He"}), then="silence")
    sdk = door.make(client)
    stream = await over(sdk.chat.completions.create(model=ALPHA, messages=HEJ, user="off", stream=True))
    await close(stream)
    assert await asyncio.to_thread(upstream.directly[0].closed.wait, 5)


@pytest.mark.parametrize("door", TRANSPORTS, indirect=True)
async def test_a_silent_upstream_ends_when_the_clients_patience_does(
    door: Door, upstream: world.Upstream, client: Any
) -> None:
    upstream.direct = world.silence
    sdk = door.make(client, timeout=0.3, max_retries=5)
    with pytest.raises(openai.APIStatusError) as raised:
        await over(sdk.chat.completions.create(model=ALPHA, messages=HEJ, user="off"))
    assert raised.value.status_code == 504
    assert len(upstream.directly) == 1
    assert await asyncio.to_thread(upstream.directly[0].closed.wait, 5)


@pytest.mark.parametrize("door", ASYNC, indirect=True)
async def test_a_cancelled_call_closes_the_upstream(door: Door, upstream: world.Upstream, client: Any) -> None:
    upstream.direct = world.silence
    sdk = door.make(client)
    asking = asyncio.ensure_future(sdk.chat.completions.create(model=ALPHA, messages=HEJ, user="off"))
    call = await upstream.asked()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await asyncio.to_thread(call.closed.wait, 5)
    assert (await door.told()).failure is FailureKind.CANCELLED


@pytest.mark.parametrize("door", TRANSPORTS, indirect=True)
async def test_who_is_asking_may_stand_around_the_call(door: Door, upstream: world.Upstream, client: Any) -> None:
    sdk = door.make(client)
    with user("on"):
        await over(sdk.chat.completions.create(model=ALPHA, messages=HEJ))
    assert (len(upstream.via_gateway), len(upstream.directly)) == (1, 0)
