"""The ledger over the API."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.domain.roles import Role
from tests.http.api_support import FLAG, World, a_world, assert_problem

AUDIT = "/api/v1/audit"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


async def test_an_entry_has_the_published_shape(world: World) -> None:
    async with world.client() as client:
        flag = (await client.patch(FLAG, json={"percentage": 10, "reason": "ramp"}, headers={"If-Match": "*"})).json()
        entry = (await client.get(f"{AUDIT}/{flag['revision']}")).json()
        before = (await client.get(f"{AUDIT}/{flag['revision'] - 1}")).json()
        listed = (await client.get(AUDIT, params={"limit": 1})).json()
    assert list(entry) == [
        *(
            "revision",
            "at",
            "actor",
            "actor_kind",
            "action",
            "subject",
            "before",
            "after",
            "reason",
            "previous_digest",
            "digest",
        ),
        "sentence",
    ]
    assert (entry["action"], entry["subject"]) == ("flag:percentage:set", "flag:enableLiteLLM")
    assert entry["at"].endswith("Z")
    assert entry["previous_digest"] == before["digest"]
    assert listed["entries"] == [entry]


async def test_the_list_is_paged_newest_first_until_nothing_is_left(world: World) -> None:
    seen, before = [], None
    async with world.client(Role.VIEWER) as client:
        while True:
            page = (await client.get(AUDIT, params={"limit": 3} | ({"before": before} if before else {}))).json()
            seen += [entry["revision"] for entry in page["entries"]]
            if (before := page["next"]) is None:
                break
    assert seen == list(range(world.head().revision, 0, -1))


async def test_the_list_can_be_narrowed(world: World) -> None:
    async with world.client() as client:
        await client.put(f"{FLAG}/overrides/user-42", json={"variant": "on"})
        await client.put(f"{FLAG}/overrides/user-43", json={"variant": "on"})
        await client.post(f"{FLAG}/kill")

        async def found(**wanted: str) -> list[str]:
            return [entry["action"] for entry in (await client.get(AUDIT, params=wanted)).json()["entries"]]

        assert await found(user="user-42") == ["override:set"]
        assert await found(action="flag:") == ["flag:kill", "flag:create"]
        assert await found(subject="cascade") == ["cascade:set"]
        assert await found(actor="token a admin") == ["flag:kill", "override:set", "override:set"]
        assert await found(since="2100-01-01T00:00:00Z") == []
        assert await found(until="2000-01-01T00:00:00+02:00") == []
        assert await found(actor="' OR 1=1 --") == []


async def test_verify_walks_the_chain_and_names_the_first_break(world: World) -> None:
    async with world.client(Role.VIEWER) as client:
        whole = (await client.get(f"{AUDIT}/verify")).json()
        head = (await client.get(f"{AUDIT}/head")).json()
        with world.door.engine.connect() as connection:
            names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all()
            for name in names:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
            connection.exec_driver_sql(
                "UPDATE ledger SET text = replace(text, 'cascade', 'cascada') WHERE revision = 3"
            )
            connection.commit()
        broken = (await client.get(f"{AUDIT}/verify")).json()
    assert whole == {"ok": True, "entries": world.head().revision, "head": world.head().digest, "first_break": None}
    assert head == {"revision": world.head().revision, "digest": world.head().digest}
    assert broken["ok"] is False
    assert broken["first_break"]["revision"] == 3
    assert broken["first_break"]["why"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("before=0", "before"),
        ("before=99999999999999999999", "before"),
        ("since=yesterday", "since"),
        ("since=2026-01-01T00:00:00", "since"),
        ("since=0001-01-01T00:00:00%2B14:00", "since"),
        ("until=9999-12-31T23:59:59-14:00", "until"),
        ("actor=a%00b", "actor"),
        ("user=" + "x" * 401, "user"),
    ],
)
async def test_a_question_that_cannot_be_read_says_which_part(world: World, query: str, field: str) -> None:
    async with world.client(Role.VIEWER) as client:
        problem = assert_problem(await client.get(f"{AUDIT}?{query}"), 422)
    assert field in problem["detail"]


@pytest.mark.parametrize(("revision", "status"), [("99", 404), ("0", 422), ("-1", 422), ("x", 422), ("9" * 30, 422)])
async def test_an_entry_that_is_not_there_is_a_clear_answer(world: World, revision: str, status: int) -> None:
    async with world.client(Role.VIEWER) as client:
        assert_problem(await client.get(f"{AUDIT}/{revision}"), status)
