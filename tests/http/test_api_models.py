"""The cascade, models that are out of it, and the breakers, over the API."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import anyio
import pytest

from rollout.control.breakers import reset_breakers
from rollout.control.models import lift, quarantine, withdraw
from rollout.domain.cascade import ListedModel, OutReason
from rollout.domain.errors import StoreFailed
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path as Where
from rollout.domain.roles import Role
from rollout.resilience.permit import Permit, Refusal
from tests.http.api_support import MODELS, World, a_gate, a_world, assert_problem, trip

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path, clock=lambda: NOON, gate=a_gate(wall=NOON.timestamp)) as world:
        yield world


async def test_the_cascade_is_replaced_as_a_whole_and_guarded_like_a_flag(world: World) -> None:
    async with world.client(Role.OPERATOR) as client:
        shown = await client.get("/api/v1/cascade")
        tag = shown.headers["etag"]
        turned = {"models": [*reversed(MODELS)], "reason": "faster"}
        changed = await client.put("/api/v1/cascade", json=turned, headers={"If-Match": tag})
        head = world.head()
        stale = await client.put("/api/v1/cascade", json={"models": list(MODELS)}, headers={"If-Match": tag})
        paid = await client.put("/api/v1/cascade", json={"models": ["a/paid"]}, headers={"If-Match": "*"})
    assert shown.json() == {
        "models": list(MODELS),
        "revision": int(tag.strip('"')),
        "live": list(MODELS),
        "out": {},
    }
    assert changed.json()["models"] == [*reversed(MODELS)]
    assert changed.headers["etag"] == f'"{changed.json()["revision"]}"'
    problem = assert_problem(stale, 412)
    assert problem["current"] == changed.json()
    assert [change["reason"] for change in problem["changes"]] == ["faster"]
    assert "ROLLOUT_ALLOW_PAID" in assert_problem(paid, 422)["detail"]
    assert world.head() == head
    assert world.plane.holder.cascade == tuple(reversed(MODELS))


async def test_a_model_that_is_out_is_shown_with_its_reason_and_lifted(world: World) -> None:
    first, second = MODELS
    withdraw(world.door, first, OutReason.WITHDRAWN, "no longer listed")
    world.plane.refresh()
    async with world.client(Role.OPERATOR) as client:
        tag = (await client.get("/api/v1/cascade")).headers["etag"]
        shown = (await client.get("/api/v1/cascade")).json()
        followed = (await client.get("/api/v1/snapshot")).json()["cascade"]
        kept = await client.put("/api/v1/cascade", json={"models": [second, first]}, headers={"If-Match": tag})
        lifted = await client.post("/api/v1/models/lift", json={"model": first, "reason": "it answers"})
        head = world.head()
        again = await client.post("/api/v1/models/lift", json={"model": first})
    assert (shown["models"], shown["live"], followed) == (list(MODELS), [second], [second])
    assert shown["out"] == {
        first: {"why": "withdrawn", "detail": "no longer listed", "at": "2026-11-22T12:00:00.000000Z"}
    }
    assert kept.json()["live"] == [second], "setting the cascade lifts nobody"
    assert lifted.json()["live"] == again.json()["live"] == [second, first]
    assert world.head() == head, "what is lifted already writes no entry"
    assert world.plane.holder.cascade == (second, first)


async def test_a_lift_that_names_nobody_is_refused(world: World) -> None:
    head = world.head()
    async with world.client(Role.OPERATOR) as client:
        assert_problem(await client.post("/api/v1/models/lift", json={"model": "no/model:free"}), 404)
        for body in (
            {},
            {"model": 5},
            {"model": None},
            {"model": MODELS[0], "cost": 1},
            {"model": MODELS[0], "reason": 5},
        ):
            assert_problem(await client.post("/api/v1/models/lift", json=body), 422)
    assert world.head() == head


async def test_a_cascade_of_which_nothing_is_left_speaks_against_raising_the_share(world: World) -> None:
    for model in MODELS:
        quarantine(world.door, model, 0.1, Where.LITELLM)
    world.plane.refresh()
    assert any("every model of the cascade is out" in problem for problem in world.plane.preflight())


async def test_breakers_and_quota_are_said_to_everybody(world: World) -> None:
    assert world.plane.gate is not None
    sent = trip(world.plane.gate, FailureKind.EMPTY) + trip(world.plane.gate, FailureKind.UNREACHABLE, model="x/y:free")
    quarantine(world.door, MODELS[1], 0.1, Where.OPENROUTER)
    world.plane.refresh()
    world.upstream = world.upstream.__class__(
        "http://127.0.0.1:1/api/v1",
        simulated=True,
        phase=world.upstream.phase,
        models=(ListedModel(MODELS[0], free=True, expires=date(2026, 11, 25)),),
    )
    async with world.client(None) as client:
        said = (await client.get("/health/providers")).json()
    assert said["models"] == {MODELS[0]: "free until 2026-11-25", MODELS[1]: "quarantined"}
    assert said["quarantined"] == [MODELS[1]]
    assert said["breakers"][0] == {
        "path": "litellm",
        "model": None,
        "state": "open",
        "opens_in_seconds": 7.5,
        "failures": 4,
        "why": "unreachable",
    }
    assert [(each["path"], each["model"], each["state"]) for each in said["breakers"]] == [
        ("litellm", None, "open"),
        ("openrouter", None, "closed"),
        ("litellm", MODELS[0], "open"),
    ]
    assert said["quota"] == {
        "used_this_minute": sent,
        "per_minute": 20,
        "used_today": sent,
        "per_day": 50,
        "left_today": 50 - sent,
        "resets_at": "2026-11-23T00:00:00.000000Z",
        "blocked_until": None,
        "blocked_by": None,
    }
    assert said["retries_left"] == 2.0


async def test_a_process_that_sends_nothing_has_neither_breakers_nor_quota(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        async with world.client(None) as client:
            said = (await client.get("/health/providers")).json()
        async with world.client(Role.OPERATOR) as client:
            reset = await client.post("/api/v1/breakers/reset")
    assert (said["breakers"], said["quota"], said["quarantined"], said["retries_left"]) == ([], None, [], None)
    assert reset.json() == {"reset": []}


async def test_one_breaker_or_everything_is_reset_and_stands_in_the_ledger(world: World) -> None:
    gate = world.plane.gate
    assert gate is not None
    trip(gate, FailureKind.EMPTY)
    trip(gate, FailureKind.UNREACHABLE, model=MODELS[1])
    permit = gate.admit(Where.OPENROUTER, MODELS[0])
    assert isinstance(permit, Permit)
    gate.settle(permit, FailureKind.DAY_CAP)
    async with world.client(Role.OPERATOR) as client:
        one = await client.post("/api/v1/breakers/reset", json={"which": "litellm", "reason": "it is back"})
        none = await client.post("/api/v1/breakers/reset", json={"which": "litellm"})
        capped = gate.admit(Where.OPENROUTER, MODELS[0])
        rest = await client.post("/api/v1/breakers/reset", json={"reason": "the cap was wrong"})
        entries = (await client.get("/api/v1/audit?subject=breakers")).json()["entries"]
    assert (one.json(), none.json()) == ({"reset": ["litellm"]}, {"reset": []})
    assert isinstance(capped, Refusal)
    assert rest.json() == {"reset": [f"litellm/{MODELS[0]}", "quota"]}
    assert isinstance(gate.admit(Where.OPENROUTER, MODELS[0]), Permit)
    assert [(entry["reason"], entry["sentence"]) for entry in entries] == [
        ("the cap was wrong", f"reset every breaker and the remembered caps (forgotten: litellm/{MODELS[0]}, quota)"),
        (None, "reset litellm: nothing had to be"),
        ("it is back", "reset litellm"),
    ]


async def test_a_reset_that_names_nothing_that_could_have_a_breaker_is_refused(world: World) -> None:
    head = world.head()
    async with world.client(Role.OPERATOR) as client:
        for body in (
            {"which": "everything"},
            {"which": "no/model:free"},
            {"which": 5},
            {"all": True},
            {"reason": "a\nb"},
        ):
            assert_problem(await client.post("/api/v1/breakers/reset", json=body), 422)
    assert world.head() == head


async def test_a_reset_written_down_by_somebody_else_is_followed_once(world: World) -> None:
    gate = world.plane.gate
    assert gate is not None
    trip(gate, FailureKind.EMPTY)
    trip(gate, FailureKind.UNREACHABLE, model=MODELS[1])
    reset_breakers(world.door, "litellm", actor="cli:eva")
    until = time.monotonic() + 10  # the watch of the ledger hears it
    while isinstance(gate.admit(Where.LITELLM, MODELS[1]), Refusal):
        assert time.monotonic() < until
        await anyio.sleep(0.02)
    assert isinstance(gate.admit(Where.LITELLM, MODELS[0]), Refusal), "the model's own breaker was not meant"
    trip(gate, FailureKind.UNREACHABLE, model=MODELS[1])
    for _ in range(3):
        world.plane.refresh()
    assert isinstance(gate.admit(Where.LITELLM, MODELS[1]), Refusal), "what came after the reset counts"


async def test_ones_own_reset_is_not_made_twice(world: World) -> None:
    gate = world.plane.gate
    assert gate is not None
    world.plane.reset_breakers("litellm", actor="eva", reason=None)
    trip(gate, FailureKind.UNREACHABLE)
    world.plane.refresh()
    assert isinstance(gate.admit(Where.LITELLM, MODELS[1]), Refusal)


async def test_a_reset_that_cannot_be_written_down_is_not_made(world: World) -> None:
    gate = world.plane.gate
    assert gate is not None
    trip(gate, FailureKind.UNREACHABLE)
    world.plane.refresh()
    with closing(sqlite3.connect(world.path)) as around:
        around.execute("DROP TABLE head")
    with pytest.raises(StoreFailed):
        world.plane.reset_breakers(None, actor="eva", reason=None)
    assert isinstance(gate.admit(Where.LITELLM, MODELS[1]), Refusal)


async def test_a_quarantine_of_another_process_holds_here_until_it_is_lifted(world: World) -> None:
    gate = world.plane.gate
    assert gate is not None
    quarantine(world.door, MODELS[0], 0.1, Where.LITELLM)
    world.plane.refresh()
    assert isinstance(gate.admit(Where.OPENROUTER, MODELS[0]), Refusal)
    lift(world.door, MODELS[0], actor="eva")
    world.plane.refresh()
    assert isinstance(gate.admit(Where.OPENROUTER, MODELS[0]), Permit)


async def test_a_cost_that_is_not_on_record_yet_is_not_forgiven_by_the_way(world: World) -> None:
    gate = world.plane.gate
    assert gate is not None
    assert gate.charged(MODELS[0])
    world.plane.refresh()
    assert isinstance(gate.admit(Where.OPENROUTER, MODELS[0]), Refusal)
    async with world.client(None) as client:
        assert (await client.get("/health/providers")).json()["quarantined"] == [MODELS[0]]
