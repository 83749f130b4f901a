"""Sixty requests in ten seconds whose first attempts fail: on both paths with the real parts, and LiteLLM alone."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

import httpx
import pytest

from rollout.dispatch.dispatcher import Dispatcher
from rollout.domain.errors import RolloutError
from rollout.domain.flag import Path as Way
from rollout.gateway.config import alias, gateway_config
from rollout.resilience.breaker import BreakerState
from rollout.resilience.gate import Gate
from rollout.resilience.quota import NO_LIMITS
from rollout.simulator import CASCADE, Fault, Kind, World, running
from tests.faults.upstreams import MASTER_KEY, QUESTION, Everybody, Gateway, litellm, steady_wall, upstreams_at, warm

pytestmark = [pytest.mark.litellm, pytest.mark.processes, pytest.mark.slow]

REQUESTS: Final = 60
SECONDS: Final = 10.0
SEED: Final = 5
MODELS: Final = tuple(CASCADE)
IN_TURN: Final = (Kind.UPSTREAM_BUSY, Kind.ERROR_503_RETRY_AFTER, Kind.EMPTY_CONTENT, Kind.FINISH_REASON_ERROR_AT_ONCE)


class Parts(NamedTuple):
    """The simulated upstream and the real LiteLLM before it."""

    world: World
    upstream: str
    gateway: Gateway


class Came(NamedTuple):
    """What came of sixty requests, and how many calls reached the upstream for them."""

    served: int
    calls: int


def own_cascade(config: dict[str, Any]) -> None:
    """Configure LiteLLM for five models, with the fallback chain that is generated for them."""
    upstream = config["model_list"][0]["litellm_params"]["api_base"]
    config.update(gateway_config(MODELS, upstream_base_url=upstream))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    world = World(seed=SEED, clock=steady_wall(), withdrawn=())
    with ExitStack() as stack:
        upstream = stack.enter_context(running(world))
        gateway = stack.enter_context(litellm(tmp_path_factory.mktemp("storm"), upstream, own_cascade))
        gateway.wait_until_it_answers()
        warm(gateway)
        yield Parts(world, upstream, gateway)


def a_dispatcher(parts: Parts, way: Way) -> tuple[Dispatcher, Gate]:
    """Return a process's sender that sends everybody one way, and its gate."""
    chance = random.Random(SEED).random
    gate = Gate(NO_LIMITS, clock=time.monotonic, wall=time.time, chance=chance)
    everybody = Everybody(
        upstreams_at(parts.upstream, parts.gateway.url, {}), MODELS, share=100_000 if way is Way.LITELLM else 0
    )
    return Dispatcher(everybody, gate=gate), gate


async def with_us(dispatcher: Dispatcher, user: str) -> bool:
    try:
        result: Any = await dispatcher.ainvoke(messages=QUESTION, user=user)
    except RolloutError:
        return False
    return bool(result["choices"][0]["message"]["content"].endswith("👋"))


async def without_us(http: httpx.AsyncClient, user: str) -> bool:
    body = {"model": alias(1), "messages": QUESTION, "user": user}
    answer = await http.post("/v1/chat/completions", json=body)
    if answer.status_code != 200:
        return False
    return bool((answer.json()["choices"][0]["message"]["content"] or "").endswith("👋"))


async def spread(ask: Callable[[str], Any], users: list[str]) -> int:
    """Ask for each user, evenly over ten seconds; return how many were served."""

    async def one(number: int, user: str) -> bool:
        await asyncio.sleep(SECONDS * number / len(users))
        return bool(await ask(user))

    return sum(await asyncio.gather(*(one(*each) for each in enumerate(users))))


def storm(parts: Parts, name: str, faults: Callable[[int, str], list[Fault]]) -> dict[str, Came]:
    """Play a storm on both paths and to LiteLLM alone, at the same time; each user meets its own faults."""
    columns = {
        column: [f"{name} {column} {number}" for number in range(REQUESTS)] for column in ("direct", "gateway", "alone")
    }
    parts.world.record.clear()
    parts.world.script.play(
        [fault for users in columns.values() for number, user in enumerate(users) for fault in faults(number, user)]
    )

    async def everything() -> dict[str, int]:
        direct, gateway = a_dispatcher(parts, Way.OPENROUTER)[0], a_dispatcher(parts, Way.LITELLM)[0]
        headers = {"authorization": f"Bearer {MASTER_KEY}"}
        async with httpx.AsyncClient(base_url=parts.gateway.url, headers=headers, timeout=60, trust_env=False) as http:
            served = await asyncio.gather(
                spread(lambda user: with_us(direct, user), columns["direct"]),
                spread(lambda user: with_us(gateway, user), columns["gateway"]),
                spread(lambda user: without_us(http, user), columns["alone"]),
            )
        await direct.aclose()
        await gateway.aclose()
        return dict(zip(columns, served, strict=True))

    served = asyncio.run(everything())
    parts.world.script.play([])
    calls = {column: sum(entry.user in users for entry in parts.world.record) for column, users in columns.items()}
    return {column: Came(served[column], calls[column]) for column in columns}


def told(capsys: pytest.CaptureFixture[str], name: str, came: dict[str, Came]) -> None:
    with capsys.disabled():
        print(
            f"\n  {name}: " + "; ".join(f"{each} {one.served} of 60, {one.calls} calls" for each, one in came.items())
        )


def test_if_every_first_attempt_fails_the_other_models_answer(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    came = storm(parts, "all first", lambda number, user: [Fault(IN_TURN[number % 4], user=user, first=1)])
    told(capsys, "every first attempt fails", came)
    assert came["direct"].served >= 57
    assert came["gateway"].served >= 57


def test_if_three_first_attempts_in_ten_fail_everybody_is_served(
    parts: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    came = storm(
        parts, "some", lambda number, user: [Fault(IN_TURN[number % 4], user=user, first=1)] if number % 10 < 3 else []
    )
    told(capsys, "3 in 10 first attempts fail", came)
    assert (came["direct"].served, came["gateway"].served) == (60, 60)


def test_one_model_that_is_always_busy_leaves_nobody_without_an_answer(
    parts: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    came = storm(parts, "one model", lambda _, user: [Fault(Kind.UPSTREAM_BUSY, user=user, model=MODELS[0])])
    told(capsys, "one model is always busy", came)
    assert came["direct"].served >= 59
    assert came["gateway"].served >= 59


def test_an_outage_of_the_whole_upstream_is_not_multiplied(parts: Parts, capsys: pytest.CaptureFixture[str]) -> None:
    came = storm(parts, "outage", lambda number, user: [Fault(IN_TURN[number % 4], user=user)])
    told(capsys, "the whole upstream is out", came)
    assert came["direct"].calls <= 72
    assert came["gateway"].calls <= 72


@pytest.mark.parametrize("times", [5, 50])
def test_one_body_that_the_gateway_fails_on_leaves_everybody_else_on_the_gateway(parts: Parts, times: int) -> None:
    parts.world.script.play([Fault(Kind.ERROR_500, user="poison", via="litellm")])

    async def everything() -> tuple[Gate, list[Any], list[Any]]:
        dispatcher, gate = a_dispatcher(parts, Way.LITELLM)
        poison: list[dict[str, Any]] = [{"role": "user", "content": "a body that brings the gateway down"}]
        his = [await dispatcher.ainvoke(messages=poison, user="poison") for _ in range(times)]
        others = [await dispatcher.ainvoke(messages=QUESTION, user=f"other {each}") for each in range(10)]
        await dispatcher.aclose()
        return gate, his, others

    gate, his, others = asyncio.run(everything())
    parts.world.script.play([])
    assert {each.decision.served_by for each in his} == {Way.OPENROUTER}, "the one caller is served all the same"
    assert {(each.decision.served_by, each.decision.model) for each in others} == {(Way.LITELLM, MODELS[0])}
    assert {line.status.state for line in gate.status().breakers} == {BreakerState.CLOSED}
