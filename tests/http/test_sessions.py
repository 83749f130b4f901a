"""Who is signed in, which links wait, and how either is ended; access tokens that end by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rollout.control.access import create_token, invite, redeem
from rollout.domain.ledger import Action
from rollout.domain.roles import Role
from rollout.http.auth import cookie_name
from rollout.store.ledger import AuditFilter, list_entries
from tests.databases import Clock
from tests.http.api_support import FLAG, OURS, World, a_world, assert_problem
from tests.http.pages_support import PAGE, Browser, a_browser, nothing_changes, words

SESSIONS = "/api/v1/sessions"


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 11, 25, 12, 0, tzinfo=UTC))


@pytest.fixture
def world(tmp_path: Path, clock: Clock) -> Iterator[World]:
    with a_world(tmp_path, clock=clock) as world:
        yield world


async def listed(browser: Browser) -> list[dict[str, Any]]:
    answer = await browser.client.get(SESSIONS)
    found: list[dict[str, Any]] = answer.json()["sessions"]
    return found


async def ended(browser: Browser, session: str) -> int:
    headers = {"Origin": OURS, "X-CSRF-Token": browser.csrf}
    return (await browser.client.delete(f"{SESSIONS}/{session}", headers=headers)).status_code


async def test_an_admin_sees_every_session_and_unused_link_and_no_secret(world: World, clock: Clock) -> None:
    admin, viewer = a_browser(world), a_browser(world, Role.VIEWER)
    code = invite(world.door, "ben", Role.OPERATOR, actor="test")
    found = await listed(admin)
    assert {(each["name"], each["role"], each["state"], each["own"]) for each in found} == {
        ("Asta", "admin", "open", True),
        ("Asta", "viewer", "open", False),
        ("ben", "operator", "unused", False),
    }
    for each in found:
        assert each["created_at"] == "2026-11-25T12:00:00.000000Z"
        assert each["expires_at"] == (
            "2026-11-25T12:15:00.000000Z" if each["state"] == "unused" else "2026-11-26T00:00:00.000000Z"
        )
    page = (await admin.get("/sessions")).text
    text = str(found) + page
    for secret in (
        code,
        admin.client.cookies[cookie_name(world.plane)],
        viewer.client.cookies[cookie_name(world.plane)],
    ):
        assert secret not in text
    assert "(you, here)" in words(page)
    assert "link not used yet" in words(page)
    clock.move(timedelta(minutes=15))
    assert {each["name"] for each in await listed(admin)} == {"Asta"}  # a link that ran out is no way in


@pytest.mark.parametrize("role", [Role.EVALUATE, Role.VIEWER, Role.OPERATOR])
async def test_without_the_role_admin_one_sees_and_ends_ones_own_session_alone(world: World, role: Role) -> None:
    other, own = a_browser(world), a_browser(world, role)
    (mine,) = await listed(own)
    (theirs,) = [each["id"] for each in await listed(other) if each["own"]]
    assert (mine["role"], mine["own"]) == (role, True)
    assert (await own.get("/sessions")).status_code == 200
    with nothing_changes(world):
        assert await ended(own, theirs) == 403
        assert (await own.post(f"/sessions/{theirs}/end")).status_code == 403
    assert (await other.get(PAGE)).status_code == 200
    assert await ended(own, mine["id"]) == 200
    assert (await own.client.get(SESSIONS)).status_code == 401
    assert (await other.get(PAGE)).status_code == 200


async def test_a_session_that_is_ended_is_refused_at_once_and_the_ledger_says_by_whom(world: World) -> None:
    admin, viewer = a_browser(world), a_browser(world, Role.VIEWER)
    (session,) = [each["id"] for each in await listed(admin) if each["role"] == "viewer"]
    assert (await viewer.get(PAGE)).status_code == 200
    answer = await admin.post(f"/sessions/{session}/end", reason="left her desk")
    assert answer.status_code == 303
    assert "Done: you ended the session of Asta (viewer)." in words((await admin.get(answer.headers["location"])).text)
    other = a_browser(world, Role.VIEWER)
    assert "Done:" not in words((await other.get(answer.headers["location"])).text), "the ledger is not for everybody"
    assert (await viewer.get(PAGE)).status_code == 303
    assert (await viewer.client.get(FLAG)).status_code == 401
    with nothing_changes(world):
        assert await ended(admin, session) == 200  # once is enough
    with world.door.reading() as connection:
        (entry,) = list_entries(connection, AuditFilter(action=Action.SESSION_END))
    assert (entry.actor, entry.actor_kind, entry.subject) == ("Asta", "person", f"session:{session}")
    assert entry.reason == "left her desk"
    assert "Asta ended the session of Asta (viewer)" in words((await admin.get("/audit")).text)


async def test_a_link_that_is_ended_signs_nobody_in(world: World) -> None:
    admin = a_browser(world)
    code = invite(world.door, "ben", Role.ADMIN, actor="test")
    (link,) = [each["id"] for each in await listed(admin) if each["state"] == "unused"]
    assert await ended(admin, link) == 200
    with nothing_changes(world):
        answer = await world.client(None, Origin=OURS).post("/sign-in", data={"code": code})
    assert answer.status_code == 401
    assert [each["state"] for each in await listed(admin)] == ["open"]


@pytest.mark.parametrize("session", ["nix", "0" * 16, "%00", "a%2Fb", "€", "x" * 5_000])
async def test_what_is_no_session_cannot_be_ended(world: World, session: str) -> None:
    with nothing_changes(world):
        async with world.client() as client:
            assert (await client.delete(f"{SESSIONS}/{session}")).status_code == 404


async def test_ending_ones_own_session_on_the_page_leads_to_the_sign_in(world: World) -> None:
    viewer = a_browser(world, Role.VIEWER)
    ((session),) = [each["id"] for each in await listed(viewer)]
    answer = await viewer.post(f"/sessions/{session}/end")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


async def test_an_access_token_that_ran_out_is_refused_at_once_everywhere(world: World, clock: Clock) -> None:
    ends = clock() + timedelta(days=30)
    made = create_token(world.door, "app", Role.VIEWER, actor="test", expires_at=ends)
    world.plane.refresh()
    async with world.client(None, Authorization=f"Bearer {made.secret}") as client:
        clock.move(timedelta(days=30) - timedelta(microseconds=1))
        assert (await client.get(FLAG)).status_code == 200
        assert world.plane.may_send(made.secret)
        clock.move(timedelta(microseconds=1))
        problem = assert_problem(await client.get(FLAG), 401)
        assert "ran out" in problem["detail"]
        assert not world.plane.may_send(made.secret)  # what the completions endpoint asks


async def test_the_api_and_the_page_make_access_tokens_that_end(world: World, clock: Clock) -> None:
    admin = a_browser(world)
    async with world.client() as client:
        body = {"name": "app", "role": "evaluate", "expires_at": "2026-12-25T12:00:00Z"}
        made = (await client.post("/api/v1/tokens", json=body)).json()
        assert made["expires_at"] == "2026-12-25T12:00:00.000000Z"
        past = await client.post("/api/v1/tokens", json=body | {"expires_at": "2026-11-25T12:00:00Z"})
        assert "past" in assert_problem(past, 422)["detail"]
    await admin.post("/connect/tokens", name="page", role="evaluate", days="7")
    refused = await admin.post("/connect/tokens", name="other", role="evaluate", days="8")
    assert refused.status_code == 422
    async with world.client() as client:
        tokens = {each["name"]: each for each in (await client.get("/api/v1/tokens")).json()["tokens"]}
    assert tokens["page"]["expires_at"] == "2026-12-02T12:00:00.000000Z"
    assert "other" not in tokens
    assert tokens["a viewer"]["expires_at"] is None
    clock.move(timedelta(days=8))
    again = a_browser(world)  # the session before is over as well
    assert "ran out" in words((await again.get("/connect")).text)


async def test_when_an_access_token_and_a_session_were_last_used_is_written_down_later(
    world: World, clock: Clock
) -> None:
    admin = a_browser(world)
    async with world.client(Role.VIEWER) as client:
        await client.get(FLAG)
    with nothing_changes(world):
        (session,) = await listed(admin)
        assert session["last_used_at"] is None  # no request waits for the database to write
        clock.move(timedelta(seconds=30))
        world.plane.uses.write()
        world.plane.uses.write()
    (session,) = await listed(admin)
    assert session["last_used_at"] == "2026-11-25T12:00:30.000000Z"
    async with world.client() as client:
        tokens = {each["name"]: each for each in (await client.get("/api/v1/tokens")).json()["tokens"]}
    assert tokens["a viewer"]["last_used_at"] == "2026-11-25T12:00:30.000000Z"
    assert tokens["a operator"]["last_used_at"] is None


async def test_two_servers_on_one_host_do_not_sign_each_other_out(tmp_path: Path, world: World) -> None:
    (tmp_path / "other").mkdir()
    with a_world(tmp_path / "other", installation="f" * 32) as other:
        assert cookie_name(other.plane) != cookie_name(world.plane)
        here = a_browser(world)
        session = redeem(other.door, invite(other.door, "ben", Role.VIEWER, actor="test"))
        # a browser keeps the cookies of a host together, whatever the port
        here.client.cookies.set(cookie_name(other.plane), session.secret)
        here.client.cookies.set("rollout_session", "of an earlier version")
        assert (await here.get(PAGE)).status_code == 200
        there = other.client(None)
        there.cookies = here.client.cookies
        assert (await there.get(PAGE)).status_code == 200
        await here.post("/sign-out")
        there.cookies = here.client.cookies
        assert (await here.get(PAGE)).status_code == 303
        assert (await there.get(PAGE)).status_code == 200


NAMES = ["rollout", "token a admin", "cli:root", "system"]


@pytest.mark.parametrize("name", NAMES)
async def test_whatever_a_person_is_called_the_ledger_says_that_it_was_a_person(world: World, name: str) -> None:
    session = redeem(world.door, invite(world.door, name, Role.ADMIN, actor="test"))
    browser = a_browser(world)
    browser.client.cookies.set(cookie_name(world.plane), session.secret)
    from rollout.http.auth import csrf_token

    browser.csrf = csrf_token(session.secret)
    await browser.post(f"{PAGE}/kill")
    async with world.client() as client:
        await client.post(f"{FLAG}/restore")
        entries = (await client.get("/api/v1/audit")).json()["entries"]
    assert [(each["actor"], each["actor_kind"]) for each in entries[:2]] == [
        ("token a admin", "token"),
        (name, "person"),
    ]
    assert (entries[-1]["actor"], entries[-1]["actor_kind"]) == ("rollout", "system")
    said = words((await browser.get("/audit")).text)
    assert f"{name} STOPPED enableLiteLLM: everybody direct · person" in said
    assert "· token" in said
    assert "· system" in said


@pytest.mark.parametrize(
    "name", ["\u202etoken", "a\u200bb", "a\x1b[2J", "", "  ", "\u3164", "x" * 81, "a\u2800b", "a\u00a0b"]
)
async def test_a_name_that_cannot_be_read_is_refused_for_people_and_programs(world: World, name: str) -> None:
    with nothing_changes(world):
        async with world.client() as client:
            for route in ("/api/v1/sign-in-links", "/api/v1/tokens"):
                assert_problem(await client.post(route, json={"name": name, "role": "viewer"}), 422)
