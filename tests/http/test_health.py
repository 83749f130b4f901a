"""Health, and a database that is gone: what still works, and what says so."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio
import httpx
import pytest

from rollout.client.holder import Holder
from rollout.control.models import lift, quarantine
from rollout.domain.cascade import ListedModel
from rollout.domain.failure import FailureKind
from rollout.domain.flag import MAIN_FLAG
from rollout.domain.flag import Path as Route
from rollout.domain.local import LocalOverrides
from rollout.domain.roles import Role
from rollout.gateway.progress import InstallPhase, InstallProgress
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.upstream import UpstreamPhase
from rollout.http.unwell import resting
from rollout.resilience.gate import Gate
from rollout.resilience.permit import Permit
from rollout.resilience.quota import QuotaLimits
from tests.http.api_support import FLAG, INSTALLATION, MODELS, World, a_gate, a_world, assert_problem, trip


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


async def _until(client: httpx.AsyncClient, path: str, good: Callable[[httpx.Response], bool]) -> httpx.Response:
    until = time.monotonic() + 10
    while not good(answer := await client.get(path)):
        assert time.monotonic() < until, answer.text
        await anyio.sleep(0.02)
    return answer


async def test_health_needs_nobody_to_sign_in_and_tells_no_secret(world: World) -> None:
    world.gateway = replace(world.gateway, log=Path("/somewhere/litellm.log"), pid=17)
    async with world.client(None) as client:
        live = await client.get("/livez")
        ready = await client.get("/readyz")
        health = (await client.get("/health")).json()
        providers = (await client.get("/health/providers")).json()
    assert live.json() == ready.json() == {"status": "ok"}
    assert health.pop("uptime_seconds") >= 0
    assert health.pop("version")
    assert health == {
        "status": "ok",
        "problems": [],
        "installation": INSTALLATION,
        "revision": world.head().revision,
        "gateway": "healthy",
        "upstream": "ok",
        "simulated": True,
        "killed": False,
    }
    assert providers["models"] == {MODELS[0]: "free", MODELS[1]: "not free"}
    assert providers["gateway"]["log"] == "/somewhere/litellm.log"
    assert providers["upstream"] == {
        "base_url": "http://127.0.0.1:1/api/v1",
        "simulated": True,
        "phase": "ok",
        "detail": "answers and takes our key",
        "free_models": 1,
        "checked_at": 1.0,
    }
    assert providers["preflight"] == []


async def test_health_stays_200_and_names_what_is_unwell(world: World) -> None:
    progress = InstallProgress(InstallPhase.INSTALLING, 3, 90)
    world.gateway = GatewayState(GatewayPhase.INSTALLING, "installing LiteLLM", 1.0, install=progress)
    world.upstream = replace(world.upstream, phase=UpstreamPhase.UNREACHABLE, detail="nobody answers", models=())
    async with world.client(None) as client:
        answer = await client.get("/health")
        providers = (await client.get("/health/providers")).json()
    health = answer.json()
    assert (answer.status_code, health["status"]) == (200, "degraded")
    assert health["problems"] == [
        "the gateway is not healthy (installing LiteLLM)",
        "the upstream is not usable (nobody answers)",
    ]
    assert providers["preflight"] == health["problems"]
    assert providers["gateway"]["install"]
    assert set(providers["models"].values()) == {"unknown"}


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass(slots=True)
class Weighed:
    """A gate in a control plane, and what is said of it."""

    world: World
    gate: Gate

    def end(self, failure: FailureKind, retry_after: float | None = None, route: Route = Route.OPENROUTER) -> None:
        permit = self.gate.admit(route, MODELS[0])
        assert isinstance(permit, Permit)
        self.gate.settle(permit, failure, retry_after)

    async def said(self) -> tuple[str, list[str], list[str]]:
        async with self.world.client(None) as client:
            health = (await client.get("/health")).json()
            providers = (await client.get("/health/providers")).json()
        return health["status"], health["problems"], providers["preflight"]


@pytest.fixture
def weighed(tmp_path: Path) -> Iterator[Weighed]:
    gate = a_gate(wall=NOON.timestamp)
    with a_world(tmp_path, clock=lambda: NOON, gate=gate) as world:
        yield Weighed(world, gate)


async def test_a_day_that_is_used_up_is_unwell_and_speaks_against_raising_the_share(weighed: Weighed) -> None:
    weighed.end(FailureKind.DAY_CAP)
    problems = ["nothing is sent until 00:00 UTC: the account's free requests of today are used up"]
    assert await weighed.said() == ("degraded", problems, problems)


async def test_a_minute_that_the_upstream_refuses_is_unwell_and_over_before_a_share_is_raised(weighed: Weighed) -> None:
    weighed.end(FailureKind.MINUTE_CAP, 30.0)
    problem = "nothing is sent until 12:00:30 UTC: the account's free requests of this minute are used up"
    assert await weighed.said() == ("degraded", [problem], [])


async def test_a_path_that_rests_is_unwell_and_the_gateways_speaks_against_raising_the_share(weighed: Weighed) -> None:
    for route in Route:
        trip(weighed.gate, FailureKind.UNREACHABLE, route)
    litellm, openrouter = (
        f"the path {route} is left alone (unreachable); `rollout gateway reset {route}` ends it" for route in Route
    )
    assert await weighed.said() == ("degraded", [litellm, openrouter], [litellm])


async def test_a_model_that_cost_money_is_unwell_until_a_person_lifts_it(weighed: Weighed) -> None:
    weighed.gate.charged(MODELS[1])
    problem = f"{MODELS[1]} cost money and is left alone until a person lifts it (`rollout cascade lift {MODELS[1]}`)"
    assert await weighed.said() == ("degraded", [problem], [])
    quarantine(weighed.world.door, MODELS[1], 0.1, Route.OPENROUTER)
    weighed.world.plane.refresh()
    assert await weighed.said() == ("degraded", [problem], [])
    lift(weighed.world.door, MODELS[1], actor="eva")
    weighed.world.plane.refresh()
    assert await weighed.said() == ("ok", [], [])


async def test_whether_requests_can_be_sent_changes_nothing_for_a_load_balancer(weighed: Weighed) -> None:
    weighed.end(FailureKind.DAY_CAP)
    weighed.gate.charged(MODELS[0])
    async with weighed.world.client(None) as client:
        assert [(await client.get(probe)).json() for probe in ("/livez", "/readyz")] == [{"status": "ok"}] * 2


async def test_raising_the_share_is_refused_while_the_gateways_path_rests(weighed: Weighed) -> None:
    trip(weighed.gate, FailureKind.UNREACHABLE)
    async with weighed.world.client() as client:
        refused = await client.patch(FLAG, json={"percentage": 60}, headers={"If-Match": "*"})
        weighed.gate.reset()
        raised = await client.patch(FLAG, json={"percentage": 60}, headers={"If-Match": "*"})
    assert "the path litellm is left alone" in assert_problem(refused, 409)["problems"][0]
    assert raised.status_code == 200


def test_a_path_that_the_next_request_tries_is_not_left_alone() -> None:
    now = 100.0
    gate = Gate(QuotaLimits(), clock=lambda: now, wall=NOON.timestamp, chance=lambda: 0.5)
    trip(gate, FailureKind.UNREACHABLE)
    assert list(resting(gate.status(), Route.LITELLM))
    now += 60
    assert not list(resting(gate.status(), Route.LITELLM)), "at 0 % nobody would ever try it, so it would never be over"


async def test_a_model_the_upstream_does_not_list_is_said_to_be_missing(world: World) -> None:
    world.upstream = replace(world.upstream, models=(ListedModel(MODELS[0], free=True),))
    async with world.client(None) as client:
        models = (await client.get("/health/providers")).json()["models"]
    assert models == {MODELS[0]: "free", MODELS[1]: "not listed"}


async def test_health_says_when_everybody_goes_direct_by_a_kill(world: World) -> None:
    async with world.client() as client:
        await client.post(f"{FLAG}/kill")
        assert (await client.get("/health")).json()["killed"] is True
        await client.post(f"{FLAG}/restore")
        assert (await client.get("/health")).json()["killed"] is False


async def test_health_shows_what_the_environment_got_wrong(world: World) -> None:
    world.plane.holder = Holder(LocalOverrides(killed=True, problems=("FORCE_DIRECT_OPENROUTER is 'perhaps'",)))
    world.plane.refresh()
    async with world.client(None) as client:
        health = (await client.get("/health")).json()
    assert health["problems"] == ["FORCE_DIRECT_OPENROUTER is 'perhaps'"]
    assert health["killed"] is True


async def _changes_are_refused(client: httpx.AsyncClient) -> None:
    for method, path, body in (
        ("GET", FLAG, None),
        ("PATCH", FLAG, {"percentage": 5}),
        ("POST", f"{FLAG}/kill", None),
        ("PUT", f"{FLAG}/overrides/u", {"variant": "on"}),
        ("POST", "/api/v1/tokens", {"name": "n", "role": "viewer"}),
        ("GET", "/api/v1/audit", None),
        ("GET", "/api/v1/audit/verify", None),
    ):
        problem = assert_problem(await client.request(method, path, json=body, headers={"If-Match": "*"}), 503)
        assert "database" in problem["detail"]


async def _memory_serves(client: httpx.AsyncClient) -> None:
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/api/v1/snapshot")).json()["installation"] == INSTALLATION
    assert (await client.post("/api/v1/evaluate", json={"flag": MAIN_FLAG})).json()["cause"] == "percentage"
    assert (await client.get("/api/v1/feature-flags")).status_code == 200


async def test_a_database_that_was_moved_away_takes_no_changes_that_would_be_lost(world: World) -> None:
    head = world.head()
    aside = world.path.with_name("aside.db")
    browser, csrf = world.browser()
    async with world.client() as client, browser:
        world.plane.refresh()
        world.path.rename(aside)
        ready = await client.get("/readyz")
        health = (await client.get("/health")).json()
        await _changes_are_refused(client)
        await _memory_serves(client)
        assert_problem(await browser.post(f"{FLAG}/kill", headers={"X-CSRF-Token": csrf}), 503)
        aside.rename(world.path)
        await _until(client, "/readyz", lambda answer: answer.status_code == 200)
        assert (await client.post(f"{FLAG}/kill")).json()["killed"] is True
    assert ready.status_code == 503
    assert ready.json()["status"] == "unready"
    assert "rollout.db' is gone" in ready.json()["detail"]
    assert health["status"] == "degraded"
    assert any("is gone" in problem for problem in health["problems"])
    # the invitation, the sign-in, the kill: nothing of what was refused in between
    assert world.head().revision == head.revision + 3


async def test_another_file_in_the_databases_place_is_not_taken_for_it(world: World) -> None:
    copy = world.path.with_name("copy.db")
    with closing(sqlite3.connect(world.path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    async with world.client() as client:
        copy.replace(world.path)
        await _changes_are_refused(client)
        await _memory_serves(client)
        ready = await client.get("/readyz")
    assert ready.status_code == 503
    assert "another file lies in place" in ready.json()["detail"]


async def test_a_database_that_was_broken_is_a_clear_503(world: World) -> None:
    async with world.client() as client:
        world.plane.stop()  # the last connection takes the write-ahead log with it
        world.door.engine.dispose()
        with world.path.open("r+b") as file:
            file.write(os.urandom(4_096))
        for _ in range(2):
            problem = assert_problem(await client.post(f"{FLAG}/kill"), 503)
            assert "database" in problem["detail"]
        await _memory_serves(client)


async def test_threads_that_wait_for_the_database_keep_no_client_from_its_snapshot(world: World) -> None:
    async with world.client() as client, anyio.create_task_group() as waiting:
        with closing(sqlite3.connect(world.path, isolation_level=None)) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            for _ in range(45):  # more than there are threads for them
                waiting.start_soon(client.post, f"{FLAG}/kill")
            await anyio.sleep(0.2)
            with anyio.fail_after(10):
                await client.get("/api/v1/snapshot")
                await client.get("/health")
                await client.get("/readyz")
            somebody.execute("ROLLBACK")
    assert world.plane.holder.evaluate(MAIN_FLAG, "anyone").cause == "kill_switch"


async def test_a_backup_that_was_put_back_is_believed(world: World) -> None:
    """A restored database has gone back, and so must those who follow it."""
    backup = world.path.with_name("backup.db")
    with closing(sqlite3.connect(world.path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    async with world.client() as client:
        before = world.head().revision
        await client.post(f"{FLAG}/kill")
        with closing(sqlite3.connect(backup)) as source, closing(sqlite3.connect(world.path)) as target:
            source.backup(target)
        world.plane.refresh()
        snapshot = (await client.get("/api/v1/snapshot")).json()
    assert snapshot["revision"] == before
    assert world.plane.holder.evaluate(MAIN_FLAG, "anyone").cause == "percentage"


async def test_the_watch_and_the_routes_publish_in_the_order_of_the_database(world: World) -> None:
    """However many refresh at once, what is published last is what was committed last."""
    async with world.client(Role.OPERATOR) as client:
        for _ in range(15):
            async with anyio.create_task_group() as together:
                for _ in range(4):
                    together.start_soon(anyio.to_thread.run_sync, world.plane.refresh)
                together.start_soon(client.post, f"{FLAG}/kill")
            assert world.plane.published.revision == world.head().revision
            async with anyio.create_task_group() as together:
                together.start_soon(client.post, f"{FLAG}/restore")
                for _ in range(4):
                    together.start_soon(anyio.to_thread.run_sync, world.plane.refresh)
            assert world.plane.published.revision == world.head().revision
