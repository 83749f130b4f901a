"""What clients follow, and what a user would get."""

import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from rollout.client.holder import Holder
from rollout.domain.local import LocalOverrides
from rollout.domain.roles import Role
from rollout.wire.snapshot import decode
from tests.http.api_support import FLAG, INSTALLATION, MODELS, World, a_world, assert_problem


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


async def test_the_snapshot_is_what_clients_read_and_stays_silent_while_nothing_changes(world: World) -> None:
    async with world.client(Role.EVALUATE) as client:
        first = await client.get("/api/v1/snapshot")
        tag = first.headers["etag"]
        same = await client.get("/api/v1/snapshot", headers={"If-None-Match": tag})
        listed = await client.get("/api/v1/snapshot", headers={"If-None-Match": f'"other", W/{tag}'})
        other = await client.get("/api/v1/snapshot", headers={"If-None-Match": '"other"'})
    snapshot = decode(first.content)
    assert (snapshot.installation, snapshot.revision, snapshot.cascade) == (INSTALLATION, world.head().revision, MODELS)
    assert snapshot.digest == world.head().digest
    assert snapshot.etag == tag
    assert INSTALLATION in tag
    assert first.headers["cache-control"] == "private, no-cache"
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert listed.status_code == 304
    assert other.content == first.content


async def test_the_snapshot_changes_with_every_change_and_tells_no_reason(world: World) -> None:
    async with world.client() as client:
        tag = (await client.get("/api/v1/snapshot")).headers["etag"]
        body = {"variant": "on", "reason": "is my sister"}
        await client.put(f"{FLAG}/overrides/user-42", json=body)
        now = await client.get("/api/v1/snapshot", headers={"If-None-Match": tag})
    assert now.status_code == 200
    assert now.json()["flags"]["enableLiteLLM"]["overrides"] == {"user-42": {"variant": "on", "expires_at": None}}
    assert "sister" not in now.text


async def test_an_evaluation_carries_all_its_evidence(world: World) -> None:
    async with world.client(Role.OPERATOR) as client:
        changed = await client.patch(FLAG, json={"percentage": 50}, headers={"If-Match": "*"})
        answer = await client.post(
            "/api/v1/evaluate", json={"flag": "enableLiteLLM", "context": {"targetingKey": "user-42", "plan": "pro"}}
        )
    said = answer.json()
    age = said.pop("snapshot_age")
    bucket = said.pop("bucket")
    on = bucket < 50_000
    assert 0 <= age < 5
    assert said == {
        "flag": "enableLiteLLM",
        "path": "litellm" if on else "openrouter",
        "variant": "on" if on else "off",
        "value": on,
        "reason": "SPLIT",
        "cause": "percentage",
        "share": 50_000,
        "percentage": 50,
        "revision": changed.json()["revision"],
        "hash_version": 1,
    }


async def test_the_answer_is_that_of_the_process_its_environment_included(world: World, tmp_path: Path) -> None:
    world.plane.holder = Holder(LocalOverrides(share=100_000))
    world.plane.refresh()
    async with world.client(Role.EVALUATE) as client:
        evaluated = await client.post("/api/v1/evaluate", json={"flag": "enableLiteLLM"})
        named = await client.get("/api/v1/feature-flags", params={"user": "user-42"})
    assert (evaluated.json()["cause"], evaluated.json()["path"]) == ("percentage", "litellm")
    assert named.json() == {"enableLiteLLM": True, "litellmRolloutPercentage": 100}


async def test_feature_flags_answer_in_the_plans_names(world: World) -> None:
    async with world.client(Role.OPERATOR) as client:
        await client.put(f"{FLAG}/overrides/user-42", json={"variant": "on"})
        await client.patch(FLAG, json={"percentage": 12.5}, headers={"If-Match": "*"})
        await client.patch(FLAG, json={"percentage": 0}, headers={"If-Match": "*"})
        forced = await client.get("/api/v1/feature-flags", params={"user": "user-42"})
        other = await client.get("/api/v1/feature-flags", params={"user": "another"})
        nobody = await client.get("/api/v1/feature-flags")
        two = await client.get("/api/v1/feature-flags?user=a&user=b")
    assert forced.json() == {"enableLiteLLM": True, "litellmRolloutPercentage": 0}
    assert other.json() == nobody.json() == {"enableLiteLLM": False, "litellmRolloutPercentage": 0}
    assert_problem(two, 400)


async def test_a_user_nobody_named_is_told_so(world: World) -> None:
    async with world.client(Role.OPERATOR) as client:
        await client.patch(FLAG, json={"percentage": 50}, headers={"If-Match": "*"})
        for context in ({}, {"targetingKey": ""}, {"targetingKey": None}):
            answer = await client.post("/api/v1/evaluate", json={"flag": "enableLiteLLM", "context": context})
            assert answer.json()["cause"] == "no_targeting_key"


async def test_an_unknown_flag_is_said_to_be_unknown(world: World) -> None:
    async with world.client(Role.EVALUATE) as client:
        problem = assert_problem(await client.post("/api/v1/evaluate", json={"flag": "nix"}), 404)
    assert "'nix'" in problem["detail"]


async def test_a_quiet_server_does_not_call_its_own_snapshot_old(world: World) -> None:
    world.plane.holder.confirm(0.0)  # as if the last change were long past
    async with world.client(Role.EVALUATE) as client:
        until = time.monotonic() + 10  # its watch looks several times a second
        while (await client.post("/api/v1/evaluate", json={"flag": "enableLiteLLM"})).json()["snapshot_age"] > 5:
            assert time.monotonic() < until
            await anyio.sleep(0.02)
