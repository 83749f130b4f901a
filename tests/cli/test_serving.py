"""What the server does when it hears of its gateway; and a gateway that takes requests and answers none."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from rollout.cli.serving import Phases
from rollout.domain.flag import Path
from rollout.gateway.plan import Pace
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.watch import ExternalGateway
from rollout.resilience.gate import Gate
from rollout.resilience.permit import Permit, Refusal
from rollout.resilience.quota import NO_LIMITS
from rollout.resilience.scope import LONGEST_REST

P = GatewayPhase
UNWELL = GatewayState(P.UNWELL, "LiteLLM left 2 questions unanswered", since=0.0)
HEALTHY = GatewayState(P.HEALTHY, "LiteLLM answers", since=0.0, answering=True)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(NO_LIMITS, clock=clock, wall=lambda: 0.0, chance=lambda: 0.5)


def asked(gate: Gate) -> Permit | Refusal:
    return gate.admit(Path.LITELLM, "a/b:free")


def test_a_gateway_that_hangs_is_not_asked_until_it_answers_again(gate: Gate) -> None:
    phases = Phases(gate)
    phases.heard(HEALTHY)
    assert isinstance(asked(gate), Permit)
    phases.heard(UNWELL)
    refused = asked(gate)
    assert isinstance(refused, Refusal)
    assert "LiteLLM left 2 questions unanswered" in refused.detail
    assert isinstance(gate.admit(Path.OPENROUTER, "a/b:free"), Permit)
    for phase in (P.RESTARTING, P.STARTING):
        phases.heard(replace(UNWELL, phase=phase))
        assert isinstance(asked(gate), Refusal)
    phases.heard(HEALTHY)
    assert isinstance(asked(gate), Permit)


def test_one_late_answer_forgets_nothing_of_what_requests_found_out(gate: Gate) -> None:
    phases = Phases(gate)
    phases.heard(HEALTHY)
    gate.rest(Path.LITELLM, "four failures in a row", 10.0)
    phases.heard(replace(HEALTHY, detail="LiteLLM left 1 question unanswered", answering=False))
    phases.heard(HEALTHY)
    assert isinstance(asked(gate), Refusal)


def test_a_gateway_that_nobody_hears_of_any_more_is_probed_all_the_same(gate: Gate, clock: Clock) -> None:
    Phases(gate).heard(UNWELL)
    clock.now += LONGEST_REST
    assert isinstance(asked(gate), Permit)
    assert isinstance(asked(gate), Refusal), "one probe at a time"


@pytest.mark.parametrize("phase", [P.WAITING, P.INSTALLING, P.STARTING])
def test_a_first_start_rests_nothing_for_nothing_listens_that_could_be_waited_for(gate: Gate, phase: P) -> None:
    Phases(gate).heard(GatewayState(phase, "on its way", since=0.0))
    assert isinstance(asked(gate), Permit)


def test_a_gateway_that_was_healthy_all_along_keeps_what_its_requests_found(gate: Gate) -> None:
    phases = Phases(gate)
    phases.heard(HEALTHY)
    gate.rest(Path.LITELLM, "four failures in a row", 10.0)
    phases.heard(replace(HEALTHY, restarts=1))
    assert isinstance(asked(gate), Refusal)


def test_what_goes_wrong_is_logged_as_such(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    phases = Phases(gate)
    states = [
        replace(HEALTHY, phase=P.STARTING, answering=False),
        HEALTHY,
        UNWELL,
        replace(UNWELL, phase=P.RESTARTING, detail="LiteLLM ended by itself (signal SIGKILL)"),
        replace(UNWELL, phase=P.FAILED),
        GatewayState(P.EXTERNAL, "not asked yet", since=0.0),
        GatewayState(P.EXTERNAL, "answers", since=0.0, answering=True),
        GatewayState(P.EXTERNAL, "does not answer", since=0.0, last_error="does not answer"),
    ]
    with caplog.at_level(logging.INFO, logger="rollout"):
        for state in states:
            phases.heard(state)
            phases.heard(replace(state, detail="the same, said again"))
    assert [record.levelno for record in caplog.records] == [
        *(logging.INFO, logging.INFO, logging.WARNING, logging.WARNING, logging.ERROR),
        *(logging.INFO, logging.INFO, logging.WARNING),
    ]


@contextlib.asynccontextmanager
async def frozen() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Listen, and answer nobody until the event is set; yields the port and the event."""
    thawed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await thawed.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], thawed
        thawed.set()


async def test_a_gateway_of_somebody_else_that_accepts_and_never_answers_is_left_alone(gate: Gate) -> None:
    phases, changed = Phases(gate), asyncio.Event()

    def heard(state: GatewayState) -> None:
        phases.heard(state)
        changed.set()

    async def until(kind: type[Permit | Refusal]) -> None:
        async with asyncio.timeout(30):
            while not isinstance(asked(gate), kind):
                changed.clear()
                await changed.wait()

    async with frozen() as (port, thawed):
        gateway = ExternalGateway(
            f"http://127.0.0.1:{port}",
            clock=lambda: 0.0,
            sleep=asyncio.sleep,
            on_change=heard,
            pace=Pace(look=0.02, answer_within=0.1),
        )
        task = asyncio.ensure_future(gateway.run())
        try:
            await until(Refusal)
            thawed.set()
            await until(Permit)
        finally:
            task.cancel()
            await asyncio.wait({task})
