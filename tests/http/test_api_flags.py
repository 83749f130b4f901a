"""Flags, overrides and the kill switch over the API."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import chain
from pathlib import Path

import anyio
import httpx
import pytest

from rollout.domain.flag import MAIN_FLAG
from rollout.domain.ledger import instant
from rollout.domain.roles import Role
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from tests.databases import START
from tests.http.api_support import FLAG, MODELS, World, a_world, assert_problem


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


async def _patch(client: httpx.AsyncClient, revision: int, **body: object) -> httpx.Response:
    return await client.patch(FLAG, json=body, headers={"If-Match": f'"{revision}"'})


async def test_a_flag_has_the_published_shape_and_its_revision_as_etag(world: World) -> None:
    async with world.client(Role.VIEWER) as client:
        answer = await client.get(FLAG)
        listed = (await client.get("/api/v1/flags")).json()
    assert answer.json() == {
        "key": "enableLiteLLM",
        "description": "Send LLM requests through the LiteLLM gateway instead of directly to OpenRouter.",
        "enabled": True,
        "killed": False,
        "percentage": 0,
        "salt": "llm-rollout/enableLiteLLM/1",
        "hash_version": 1,
        "overrides": {},
        "revision": 2,
    }
    assert answer.headers["etag"] == '"2"'
    assert listed == {"flags": [answer.json()]}


async def test_a_patch_changes_only_what_it_names_and_answers_the_new_flag(world: World) -> None:
    async with world.client(Role.OPERATOR) as client:
        first = await _patch(client, 2, percentage=12.345, reason="ramp")
        second = await _patch(client, first.json()["revision"], enabled=False, description="D", percentage=None)
        entry = (await client.get(f"/api/v1/audit/{first.json()['revision']}")).json()
    assert first.json()["percentage"] == 12.345
    assert first.headers["etag"] == f'"{first.json()["revision"]}"'
    assert second.json() | {"revision": 0} == first.json() | {"enabled": False, "description": "D", "revision": 0}
    assert (entry["reason"], entry["actor"]) == ("ramp", "token a operator")
    assert (entry["before"]["share"], entry["after"]["share"]) == (0, 12_345)


async def test_a_patch_that_changes_nothing_writes_nothing(world: World) -> None:
    before = world.head()
    async with world.client() as client:
        answer = await _patch(client, 2, percentage=0, enabled=True)
        empty = await _patch(client, 2)
    assert answer.status_code == empty.status_code == 200
    assert world.head() == before


@pytest.mark.parametrize(("path", "method"), [(FLAG, "PATCH"), ("/api/v1/cascade", "PUT")])
async def test_a_change_without_if_match_is_asked_to_name_what_it_saw(world: World, path: str, method: str) -> None:
    before = world.head()
    body = {"percentage": 1} if method == "PATCH" else {"models": list(MODELS[:1])}
    async with world.client() as client:
        problem = assert_problem(await client.request(method, path, json=body), 428)
        nonsense = await client.request(method, path, json=body, headers={"If-Match": '"seventeen"'})
        several = await client.request(method, path, json=body, headers={"If-Match": '"2", "3"'})
    assert "If-Match" in problem["detail"]
    assert_problem(nonsense, 400)
    assert_problem(several, 400)
    assert world.head() == before


async def test_a_stale_change_is_refused_with_the_state_now_and_what_happened(world: World) -> None:
    async with world.client() as client:
        won = await _patch(client, 2, percentage=10, reason="first")
        head = world.head()
        lost = await _patch(client, 2, percentage=50)
    problem = assert_problem(lost, 412)
    now = won.json()["revision"]
    assert lost.headers["etag"] == f'"{now}"'
    assert problem["current"] == won.json()
    assert (problem["seen"], problem["now"]) == (2, now)
    (change,) = problem["changes"]
    assert (change["revision"], change["actor"], change["reason"]) == (now, "token a admin", "first")
    assert "10 %" in change["sentence"]
    assert world.head() == head


async def test_an_if_match_star_changes_whatever_is_there(world: World) -> None:
    async with world.client() as client:
        await _patch(client, 2, percentage=10)
        answer = await client.patch(FLAG, json={"percentage": 5}, headers={"If-Match": "*"})
    assert answer.json()["percentage"] == 5


async def test_overrides_do_not_make_a_flag_stale(world: World) -> None:
    async with world.client() as client:
        await client.put(f"{FLAG}/overrides/user-42", json={"variant": "on"})
        answer = await _patch(client, 2, percentage=10)
    assert answer.status_code == 200
    assert list(answer.json()["overrides"]) == ["user-42"]


async def test_the_share_rises_only_past_the_preflight_or_on_purpose(world: World) -> None:
    world.down()
    before = world.head()
    async with world.client() as client:
        problem = assert_problem(await _patch(client, 2, percentage=10), 409)
        assert problem["problems"] == ["the gateway is not healthy (LiteLLM is starting)"]
        assert world.head() == before
        forced = await _patch(client, 2, percentage=10, skip_preflight=True)
        lowered = await _patch(client, forced.json()["revision"], percentage=5)
        disabled = await _patch(client, lowered.json()["revision"], enabled=False)
        raised_unseen = await _patch(client, disabled.json()["revision"], percentage=90)
        enabled = await _patch(client, raised_unseen.json()["revision"], enabled=True)
    assert [answer.status_code for answer in (forced, lowered, disabled, raised_unseen)] == [200] * 4
    assert_problem(enabled, 409)


async def test_the_preflight_names_everything_that_is_in_the_way(world: World) -> None:
    world.gateway = GatewayState(GatewayPhase.FAILED, "no Python for it", 0.0, answering=True)
    world.upstream = UpstreamState("http://x", simulated=False, phase=UpstreamPhase.KEY_REFUSED, detail="check the key")
    async with world.client() as client:
        problem = assert_problem(await _patch(client, 2, percentage=10), 409)
    assert problem["problems"] == [
        "the gateway is not healthy (no Python for it)",
        "the upstream is not usable (check the key)",
    ]


async def test_a_gateway_of_an_old_release_is_in_the_way_until_a_person_says_so(world: World) -> None:
    world.gateway = GatewayState(GatewayPhase.EXTERNAL, "not ours", 0.0, answering=True, release="1.84.0")
    async with world.client() as client:
        problem = assert_problem(await _patch(client, 2, percentage=10), 409)
        health = (await client.get("/health")).json()
        forced = await _patch(client, 2, percentage=10, skip_preflight=True)
    assert problem["problems"] == health["problems"]
    assert "streams do not say what they cost" in problem["problems"][0]
    assert forced.status_code == 200


async def test_kill_and_restore_are_idempotent_and_never_stale(world: World) -> None:
    async with world.client(Role.OPERATOR) as client:
        stale = {"If-Match": '"1"'}
        killed = await client.post(f"{FLAG}/kill", json={"reason": "fire"}, headers=stale)
        head = world.head()
        again = await client.post(f"{FLAG}/kill", headers=stale)
        assert world.head() == head
        restored = await client.post(f"{FLAG}/restore", json={}, headers=stale)
        head = world.head()
        twice = await client.post(f"{FLAG}/restore", headers=stale)
        assert world.head() == head
    assert killed.json()["killed"] is True
    assert again.json() == killed.json()
    assert killed.headers["etag"] == again.headers["etag"] == f'"{killed.json()["revision"]}"'
    assert restored.json()["killed"] is False
    assert twice.json() == restored.json()


async def test_a_kill_is_in_force_in_this_process_when_its_answer_is_there(world: World) -> None:
    async with world.client() as client:
        await client.put(f"{FLAG}/overrides/tester", json={"variant": "on"})
        assert world.plane.holder.evaluate(MAIN_FLAG, "tester").path == "litellm"
        for _ in range(20):
            await client.post(f"{FLAG}/kill")
            assert world.plane.holder.evaluate(MAIN_FLAG, "tester").cause == "kill_switch"
            await client.post(f"{FLAG}/restore")
            assert world.plane.holder.evaluate(MAIN_FLAG, "tester").cause == "override"


async def test_an_override_is_set_once_however_often_it_is_sent(world: World) -> None:
    async with world.client(Role.OPERATOR) as client:
        body = {"variant": "on", "reason": "tests it", "expires_at": "2090-01-01T01:00:00+01:00"}
        first = await client.put(f"{FLAG}/overrides/user-42", json=body)
        head = world.head()
        again = await client.put(f"{FLAG}/overrides/user-42", json=body)
        assert world.head() == head
        turned = await client.put(f"{FLAG}/overrides/user-42", json={"variant": "off"})
        gone = await client.delete(f"{FLAG}/overrides/user-42", params={"reason": "done"})
        missing = await client.delete(f"{FLAG}/overrides/user-42")
    stored = {"variant": "on", "reason": "tests it", "expires_at": "2090-01-01T00:00:00.000000Z"}
    assert first.json()["overrides"] == {"user-42": stored}
    assert again.json() == first.json()
    assert turned.json()["overrides"] == {"user-42": {"variant": "off", "reason": None, "expires_at": None}}
    assert gone.json()["overrides"] == {}
    assert {answer.headers["etag"] for answer in (first, again, turned, gone)} == {'"2"'}
    assert "user-42" in assert_problem(missing, 404)["detail"]


@pytest.mark.parametrize("user", ["a/b", "å", "🙂", "a b", "a%2Fb", "..", "a?b#c", "/", '"'])
async def test_any_printable_user_id_can_be_forced(world: World, user: str) -> None:
    quoted = "".join(f"%{byte:02X}" for byte in user.encode())
    async with world.client() as client:
        answer = await client.put(f"{FLAG}/overrides/{quoted}", json={"variant": "on"})
        assert list(answer.json()["overrides"]) == [user]
        assert (await client.delete(f"{FLAG}/overrides/{quoted}")).json()["overrides"] == {}


def test_of_many_writers_who_saw_the_same_revision_exactly_one_wins(world: World) -> None:
    writers = 20

    async def rounds(number: int) -> list[tuple[int, int]]:
        won = []
        async with world.client() as client:
            for turn in range(3):
                seen = (await client.get(FLAG)).json()["revision"]
                share = (number * 3 + turn + 1) / 1000
                answer = await _patch(client, seen, percentage=share, skip_preflight=True)
                assert answer.status_code in {200, 412}, answer.text
                if answer.status_code == 200:
                    won.append((seen, answer.json()["revision"]))
        return won

    def in_a_loop_of_its_own(number: int) -> list[tuple[int, int]]:
        return anyio.run(rounds, number)

    with ThreadPoolExecutor(writers) as threads:
        won = sorted(chain.from_iterable(threads.map(in_a_loop_of_its_own, range(writers))))
    # each winner saw the one before it, and nobody saw the same: one chain from the first revision
    assert [seen for seen, _ in won] == [2, *(made for _, made in won[:-1])]
    assert world.plane.published.revision == world.head().revision == won[-1][1]


_BESIDE = """
import sys
from sqlalchemy.engine import URL
from rollout.control.flags import kill
from rollout.store.door import Door
from rollout.store.engine import open_engine
kill(Door(open_engine(URL.create("sqlite", database=sys.argv[1]))), "enableLiteLLM", actor="another process")
"""


@pytest.mark.processes
async def test_a_kill_by_another_process_shows_within_two_seconds(world: World) -> None:
    async with world.client(Role.EVALUATE) as client:
        before = await client.get("/api/v1/snapshot")
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run([sys.executable, "-c", _BESIDE, str(world.path)], check=True, timeout=30)
        )
        assert done.returncode == 0
        unchanged = {"If-None-Match": before.headers["etag"]}
        until = time.monotonic() + 2
        while (now := await client.get("/api/v1/snapshot", headers=unchanged)).status_code == 304:
            assert time.monotonic() < until, "the other process's kill did not show"
            await anyio.sleep(0.02)
    assert now.json()["flags"]["enableLiteLLM"]["killed"] is True
    assert world.plane.holder.evaluate(MAIN_FLAG, "anyone").cause == "kill_switch"


async def test_many_overrides_are_set_and_removed_in_one_request(world: World) -> None:
    wanted = {"a/b %": {"variant": "on", "reason": "tester"}, "åsa": {"variant": "off"}}
    async with world.client(Role.OPERATOR) as client:
        answer = await client.post(f"{FLAG}/overrides", json={"overrides": wanted})
        assert {user: each["variant"] for user, each in answer.json()["overrides"].items()} == {
            "a/b %": "on",
            "åsa": "off",
        }
        before = world.head().revision
        again = await client.post(f"{FLAG}/overrides", json={"overrides": {**wanted, "nobody": None}})
        assert again.json() == answer.json()
        assert world.head().revision == before
        gone = await client.post(f"{FLAG}/overrides", json={"overrides": {"åsa": None}, "reason": "done"})
        assert list(gone.json()["overrides"]) == ["a/b %"]
        for bad in ({"bob": {"variant": "maybe"}}, {"b\0b": None}, {"": None}, {"bob": {"variant": "on", "until": 1}}):
            assert_problem(
                await client.post(f"{FLAG}/overrides", json={"overrides": {"ada": {"variant": "on"}, **bad}}), 422
            )
        past = {"ada": {"variant": "on"}, "bob": {"variant": "on", "expires_at": "2001-01-01T00:00:00Z"}}
        assert_problem(await client.post(f"{FLAG}/overrides", json={"overrides": past}), 422)
        assert world.head().revision == before + 1
    async with world.client(Role.VIEWER) as client:
        assert_problem(await client.post(f"{FLAG}/overrides", json={"overrides": {}}), 403)


async def test_an_override_that_ends_leaves_the_snapshot_without_a_change(tmp_path: Path) -> None:
    now = [START]
    with a_world(tmp_path, clock=lambda: now[0]) as world:
        async with world.client(Role.ADMIN) as client:
            ends = instant(START + timedelta(hours=1))
            await client.put(f"{FLAG}/overrides/guest", json={"variant": "on", "expires_at": ends})
            before = await client.get("/api/v1/snapshot")
            assert "guest" in before.text
            now[0] += timedelta(hours=2)
            condition = {"If-None-Match": before.headers["ETag"]}
            with anyio.fail_after(60):
                while (  # noqa: ASYNC110 - the watch's thread sets no event
                    after := await client.get("/api/v1/snapshot", headers=condition)
                ).status_code == 304:
                    await anyio.sleep(0.02)
            assert "guest" not in after.text
            assert after.json()["revision"] == before.json()["revision"]
            again = await client.get("/api/v1/snapshot", headers={"If-None-Match": after.headers["ETag"]})
            assert again.status_code == 304
