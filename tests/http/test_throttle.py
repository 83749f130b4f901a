"""How often a sign-in may fail, and that nobody is locked out by it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rollout.control.access import invite
from rollout.domain.roles import Role
from rollout.http.throttle import MAX_ADDRESSES, OVERALL, PER_ADDRESS, Throttle
from tests.http.api_support import OURS, World, a_world
from tests.http.pages_support import nothing_changes, words


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock)


def test_an_address_may_fail_so_often_and_then_once_in_a_while(throttle: Throttle, clock: Clock) -> None:
    burst, seconds = PER_ADDRESS
    for _ in range(burst):
        assert throttle.wait("10.0.0.1") == 0
        throttle.failed("10.0.0.1")
    assert throttle.wait("10.0.0.1") == seconds
    assert throttle.wait("10.0.0.2") == 0
    clock.now += seconds
    assert throttle.wait("10.0.0.1") == 0
    throttle.failed("10.0.0.1")
    assert throttle.wait("10.0.0.1") == seconds
    clock.now += 1e6
    assert throttle.wait("10.0.0.1") == 0


def test_failing_on_while_refused_does_not_lengthen_the_wait(throttle: Throttle, clock: Clock) -> None:
    for _ in range(1_000):
        throttle.failed("10.0.0.1")
    clock.now += max(PER_ADDRESS[1], OVERALL[1])
    assert throttle.wait("10.0.0.1") == 0


def test_many_addresses_together_may_fail_so_often(throttle: Throttle, clock: Clock) -> None:
    for number in range(OVERALL[0]):
        throttle.failed(f"10.0.0.{number}")
    assert throttle.wait("10.9.9.9") == OVERALL[1]
    clock.now += OVERALL[1]
    assert throttle.wait("10.9.9.9") == 0


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1"),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("a name", "a name", "another name"),
        ("", "", "10.0.0.1"),
    ],
)
def test_one_host_is_one_caller_however_many_addresses_it_has(
    throttle: Throttle, one: str, same: str, other: str
) -> None:
    for _ in range(PER_ADDRESS[0]):
        throttle.failed(one)
    assert throttle.wait(same) > 0
    assert throttle.wait(other) == 0


def test_addresses_without_end_take_no_memory_without_end(throttle: Throttle, clock: Clock) -> None:
    for number in range(3 * MAX_ADDRESSES):
        throttle.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        clock.now += OVERALL[1] / 100
    assert len(throttle._addresses) <= MAX_ADDRESSES
    clock.now += 1e6
    throttle.failed("192.0.2.1")
    assert throttle.wait("192.0.2.2") == 0
    assert len(throttle._addresses) < MAX_ADDRESSES


def test_failures_are_on_record_and_fill_no_log(
    throttle: Throttle, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(10_000):
        throttle.failed("10.0.0.1")
    assert len(caplog.records) < 10
    clock.now += 120
    throttle.failed("10.0.0.1")
    said = [record.getMessage() for record in caplog.records]
    assert "10.0.0.1" in said[0]
    assert sum(int(line.split()[0]) for line in said) == 10_001


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


async def _sign_in(world: World, code: str) -> httpx.Response:
    async with world.client(None, Origin=OURS) as client:
        return await client.post("/sign-in", data={"code": code})


async def test_guessing_is_answered_429_and_changes_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with nothing_changes(world):
        answers = [await _sign_in(world, f"guess {number}") for number in range(PER_ADDRESS[0] + 5)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[: PER_ADDRESS[0]] == [401] * PER_ADDRESS[0]
    assert statuses[-1] == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= PER_ADDRESS[1]
    assert "too many sign-ins failed" in words(answers[-1].text)
    assert any("failed sign-in" in record.getMessage() for record in caplog.records)
    assert "guess" not in caplog.text


async def test_a_code_that_is_right_is_taken_however_many_others_fail(world: World) -> None:
    code = invite(world.door, "anna", Role.OPERATOR, actor="test")
    for number in range(PER_ADDRESS[0] + 5):
        await _sign_in(world, f"guess {number}")
    world.plane.refresh()  # what its watch does within moments
    answer = await _sign_in(world, f"  {OURS}/sign-in#code={code} ")
    assert answer.status_code == 303
    assert "set-cookie" in answer.headers
    assert (await _sign_in(world, code)).status_code in {401, 429}  # it works once


async def test_a_form_for_signing_in_is_small(world: World) -> None:
    async with world.client(None, Origin=OURS) as client:
        large = await client.post("/sign-in", data={"code": "x" * (64 * 1024)})
        many = await client.post("/sign-in", data={f"field{number}": "" for number in range(200)})
        marks = await client.post(
            "/sign-in", content=b"&;" * 30_000, headers={"Content-Type": "application/x-www-form-urlencoded"}
        )
        parts = await client.post("/sign-in", files={"code": b"x"})
    assert [answer.status_code for answer in (large, many, marks, parts)] == [413, 413, 413, 415]


async def test_who_is_not_known_may_send_little(world: World) -> None:
    body = b'{"reason": "' + b" " * 70_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    kill = "/api/v1/flags/enableLiteLLM/kill"
    async with world.client(None) as nobody, world.client(Role.OPERATOR) as operator:
        bad = await nobody.post(kill, content=body, headers=headers | {"Authorization": "Bearer rollout_nix"})
        assert (await nobody.post(kill, content=body, headers=headers)).status_code == bad.status_code == 413
        assert "65,536" in bad.json()["detail"]
        assert (await operator.post(kill, content=body, headers=headers)).status_code == 422  # read, and too long
