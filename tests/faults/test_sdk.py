"""The official SDK, with its own two retries left on: what reaches the upstream is never more than our attempts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.resilience.gate import Gate
from rollout.resilience.quota import QuotaLimits
from rollout.simulator import Fault, Kind, World, running
from tests.faults.callers import ACCESS
from tests.faults.cells import served
from tests.faults.upstreams import MODELS, QUESTION, Everybody, free_port, upstreams_at


class Endpoint:
    """A simulated upstream, and the endpoint in front of it; each test begins with a process that knows nothing."""

    def __init__(self, world: World, upstream: str) -> None:
        self.world = world
        self._upstream = upstream

    def app(self, **limits: float) -> CompletionsApp:
        upstreams = upstreams_at(self._upstream, f"http://127.0.0.1:{free_port()}", limits)
        gate = Gate(QuotaLimits(0, 0), clock=time.monotonic, wall=time.time, chance=lambda: 0.0)
        for _ in range(30):
            gate.begin()
        dispatcher = Dispatcher(Everybody(upstreams, MODELS, share=0), gate=gate)
        return CompletionsApp(dispatcher, lambda access: access == ACCESS)

    def asked(self) -> list[str]:
        return [entry.model for entry in self.world.record]


@pytest.fixture(scope="module")
def simulated() -> Iterator[Endpoint]:
    world = World(seed=3, withdrawn=())
    with running(world) as upstream:
        yield Endpoint(world, upstream)


@pytest.fixture
def endpoint(simulated: Endpoint) -> Endpoint:
    simulated.world.record.clear()
    return simulated


def ask(url: str, *, stream: bool) -> str:
    with openai.OpenAI(api_key=ACCESS, base_url=f"{url}/v1", timeout=30) as client:
        body: dict[str, Any] = {"model": MODELS[0], "messages": QUESTION, "stream": stream}
        answer: Any = client.chat.completions.create(**body)
        if not stream:
            return str(answer.choices[0].message.content)
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("kind", "error", "calls"),
    [
        (Kind.ERROR_500, openai.InternalServerError, 3),
        (Kind.ERROR_503_RETRY_AFTER, openai.InternalServerError, 3),
        (Kind.UPSTREAM_BUSY, openai.RateLimitError, 3),
        (Kind.RATE_LIMIT_DAY, openai.RateLimitError, 1),
        (Kind.UNAUTHORIZED, openai.InternalServerError, 1),
        (Kind.FORBIDDEN, openai.BadRequestError, 1),
        (Kind.HANG, openai.InternalServerError, 3),
        (Kind.EMPTY_CONTENT, openai.InternalServerError, 3),
    ],
    ids=lambda value: str(getattr(value, "value", getattr(value, "__name__", value))),
)
def test_the_sdk_sends_nothing_again_by_itself(
    endpoint: Endpoint, kind: Kind, error: type[openai.APIStatusError], calls: int, *, stream: bool
) -> None:
    endpoint.world.script.play([Fault(kind)])
    limits = {"attempt_timeout": 0.5, "first_token_timeout": 0.5} if kind is Kind.HANG else {}
    with served(endpoint.app(**limits)) as url, pytest.raises(error):
        ask(url, stream=stream)
    assert len(endpoint.asked()) == calls


@pytest.mark.parametrize("kind", [Kind.MID_STREAM_ERROR, Kind.NO_DONE, Kind.CUT_CONNECTION, Kind.FINISH_REASON_ERROR])
def test_the_sdk_raises_what_is_told_inside_a_stream(endpoint: Endpoint, kind: Kind) -> None:
    endpoint.world.script.play([Fault(kind)])
    with served(endpoint.app()) as url, pytest.raises(openai.APIError):
        ask(url, stream=True)
    assert endpoint.asked() == [MODELS[0]]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_the_sdk_gets_the_next_models_answer(endpoint: Endpoint, *, stream: bool) -> None:
    endpoint.world.script.play([Fault(Kind.ERROR_500, model=MODELS[0])])
    with served(endpoint.app()) as url:
        assert ask(url, stream=stream).endswith("👋")
    assert endpoint.asked() == list(MODELS[:2])
