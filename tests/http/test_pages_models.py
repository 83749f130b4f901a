"""The gateway's page: models that are out, breakers, quota, and the forms that put them right."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from rollout.control.installation import set_cascade
from rollout.control.models import lift, quarantine, withdraw
from rollout.domain.cascade import Cascade, ListedModel, OutReason
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path as Where
from rollout.domain.roles import Role
from rollout.resilience.gate import Gate
from rollout.resilience.permit import Permit, Refusal
from rollout.store.flags import read_cascade
from tests.http.api_support import MODELS, World, a_gate, a_world, trip
from tests.http.pages_support import HX, PAGE, a_browser, nothing_changes, words

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FIRST, SECOND = MODELS
FRESH = "fresh/model:free"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path, clock=lambda: NOON, gate=a_gate(wall=NOON.timestamp)) as world:
        listed = (FIRST, SECOND, FRESH)
        world.upstream = replace(world.upstream, models=tuple(ListedModel(model, free=True) for model in listed))
        yield world


def gate_of(world: World) -> Gate:
    assert world.plane.gate is not None
    return world.plane.gate


def stored(world: World) -> Cascade:
    with world.door.reading() as connection:
        return read_cascade(connection)


async def said(world: World, path: str = "/gateway") -> str:
    world.plane.refresh()
    return words((await a_browser(world).get(path)).text)


async def test_a_model_that_cost_money_is_a_loud_band_on_every_page_until_it_is_lifted(world: World) -> None:
    quarantine(world.door, SECOND, 0.25, Where.LITELLM)
    for path in (PAGE, "/audit", "/gateway", "/connect"):
        world.plane.refresh()
        html = (await a_browser(world).get(path)).text
        assert 'class="loud"' in html
        assert f"NOT FREE: {SECOND}: an answer through litellm cost $0.25, 2026-11-22 12:00:00 UTC" in words(html)
    set_cascade(world.door, [FIRST], actor="eva")
    assert "NOT FREE" in await said(world), "taking it out of the cascade is no answer to what it cost"
    lift(world.door, SECOND, actor="eva")
    assert "NOT FREE" not in await said(world)


async def test_a_cost_that_is_not_on_record_yet_is_a_loud_band_too(world: World) -> None:
    gate_of(world).charged(SECOND)
    assert f"NOT FREE: {SECOND}: an answer cost money" in await said(world, PAGE)


async def test_models_that_are_out_are_a_band_with_how_many_are_left(world: World) -> None:
    withdraw(world.door, FIRST, OutReason.WITHDRAWN, "no longer listed by the upstream")
    page = await said(world, PAGE)
    assert f"Cascade: 1 model taken out, 1 model left: {FIRST} is no longer listed by the upstream" in page
    withdraw(world.door, SECOND, OutReason.NOT_FREE, "no longer free")
    assert "every model is out, so no request can be answered" in await said(world, PAGE)


async def test_a_daily_cap_is_a_band_that_says_when_it_ends(world: World) -> None:
    trip(gate_of(world), FailureKind.DAY_CAP, Where.OPENROUTER)
    page = await said(world, PAGE)
    assert "Daily cap: the account's free requests of today are used up" in page
    assert "(the upstream says so; 1 of 50 used by our own count)" in page
    assert "until 2026-11-23 00:00:00 UTC, in 12 h" in page
    shown = await said(world)
    assert "Used up for today: nothing is sent until 2026-11-23 00:00:00 UTC, in 12 h" in shown


async def test_our_own_count_of_the_day_is_a_band_as_well(world: World) -> None:
    gate_of(world).told_of_use(used=50, per_day=50)
    assert "(50 of 50 used)" in await said(world, PAGE)


async def test_bands_follow_what_happens_on_an_open_page(world: World) -> None:
    browser = a_browser(world)
    before = await browser.get("/gateway/notices", hx=True)
    shown = re.search(r"shown=([0-9a-f]{16})", before.text)
    assert shown is not None
    assert (await browser.get(f"/gateway/notices?shown={shown[1]}", hx=True)).status_code == 204
    quarantine(world.door, SECOND, 0.25, Where.LITELLM)
    world.plane.refresh()
    after = await browser.get(f"/gateway/notices?shown={shown[1]}", hx=True)
    assert after.status_code == 200
    assert "NOT FREE" in after.text


async def test_the_cascade_shows_what_is_out_why_and_what_could_take_its_place(world: World) -> None:
    calm = await said(world)
    assert "Free today, and not in the cascade" not in calm
    withdraw(world.door, FIRST, OutReason.WITHDRAWN, "no longer listed by the upstream")
    quarantine(world.door, "old/model:free", 0.25, Where.OPENROUTER)
    world.upstream = replace(world.upstream, models=world.upstream.models[1:])
    page = await said(world)
    assert f"out {FIRST} ▲ withdrawn: no longer listed by the upstream, just now . The upstream still says so" in page
    assert f"1 {SECOND} ✓ free" in page
    assert "Out, and not in the cascade: old/model:free ▲ cost money: an answer through openrouter cost $0.25" in page
    assert f"Free today, and not in the cascade: {FRESH}" in page


async def test_a_model_that_ends_soon_says_its_last_day_and_is_asked_on(world: World) -> None:
    ending = ListedModel(FIRST, free=True, expires=date(2026, 11, 25))
    world.upstream = replace(world.upstream, models=(ending, *world.upstream.models[1:]))
    page = await said(world)
    assert f"1 {FIRST} ✓ free ▲ until 2026-11-25" in page
    assert FRESH in page


async def test_breakers_are_a_table_in_words_and_closed_ones_a_sentence(world: World) -> None:
    assert "All closed: every path and every model is asked" in await said(world)
    trip(gate_of(world), FailureKind.EMPTY)
    trip(gate_of(world), FailureKind.UNREACHABLE, model=SECOND)
    page = await said(world)
    assert re.search(r"litellm every model ▲ open , tries again in 7 s unreachable, \d failures in a row", page)
    assert re.search(rf"litellm {FIRST} ▲ open , tries again in \d\d s empty, \d failures in a row", page)
    assert "All closed" not in page


async def test_the_quota_says_used_left_and_when_it_begins_anew(world: World) -> None:
    world.upstream = replace(world.upstream, daily_used=8, daily_limit=50)
    permit = gate_of(world).admit(Where.LITELLM, FIRST)
    assert isinstance(permit, Permit)
    page = await said(world)
    assert "49 of 50 left today" in page
    assert "Used today 1 of 50" in page
    assert "This minute 1 of 20" in page
    assert "Resets in 12 h , 2026-11-23 00:00:00 UTC" in page
    assert "Upstream says 8 used of 50" in page


async def test_a_quota_without_limits_says_so(tmp_path: Path) -> None:
    with a_world(tmp_path, gate=a_gate(per_minute=0, per_day=0)) as world:
        page = await said(world)
        assert "0 requests today , no daily limit here" in page
        assert "This minute no limit" in page
        world.upstream = replace(world.upstream, simulated=False)
        assert "no daily limit known" in await said(world)


async def test_a_process_that_sends_nothing_says_so(tmp_path: Path) -> None:
    with a_world(tmp_path) as world:
        page = await said(world)
    assert "This process sends nothing itself" in page
    assert "Reset every breaker" not in page


async def test_a_breaker_is_reset_on_the_page_and_the_entry_is_shown(world: World) -> None:
    trip(gate_of(world), FailureKind.UNREACHABLE)
    browser = a_browser(world)
    answer = await browser.post("/gateway/breakers/reset", which="litellm", reason="it is back")
    assert answer.status_code == 303
    page = words((await browser.get(answer.headers["location"])).text)
    assert "Done: you reset litellm. Entry" in page
    assert "All closed" in page
    assert isinstance(gate_of(world).admit(Where.LITELLM, FIRST), Permit)


async def test_everything_is_reset_at_once_a_daily_cap_too(world: World) -> None:
    trip(gate_of(world), FailureKind.DAY_CAP, Where.OPENROUTER)
    await a_browser(world).post("/gateway/breakers/reset")
    assert isinstance(gate_of(world).admit(Where.OPENROUTER, FIRST), Permit)


async def test_a_model_is_lifted_on_the_page(world: World) -> None:
    quarantine(world.door, SECOND, 0.25, Where.LITELLM)
    world.plane.refresh()
    assert isinstance(gate_of(world).admit(Where.LITELLM, SECOND), Refusal)
    browser = a_browser(world)
    answer = await browser.post("/gateway/cascade/lift", model=SECOND, reason="refunded")
    page = words((await browser.get(answer.headers["location"])).text)
    assert f"Done: you put {SECOND} back into the live order" in page
    assert stored(world).live == MODELS
    assert isinstance(gate_of(world).admit(Where.LITELLM, SECOND), Permit)
    with nothing_changes(world):
        again = await browser.post("/gateway/cascade/lift", model=SECOND)
        assert "It was so already" in words((await browser.get(again.headers["location"])).text)
        assert (await browser.post("/gateway/cascade/lift", model="no/model:free")).status_code == 404


async def test_the_cascade_is_edited_one_model_a_line(world: World) -> None:
    browser = a_browser(world)
    wanted = f"  {FRESH}\r\n\r\n{SECOND} \r\n"
    answer = await browser.post("/gateway/cascade", models=wanted, reason="faster", seen=str(stored(world).revision))
    assert answer.status_code == 303
    assert stored(world).models == (FRESH, SECOND)
    assert f"Done: you set the cascade to {FRESH}, {SECOND}" in words(
        (await browser.get(answer.headers["location"])).text
    )


async def test_a_proposed_model_is_added_at_the_end(world: World) -> None:
    seen = str(stored(world).revision)
    assert (await a_browser(world).post("/gateway/cascade", add=FRESH, seen=seen)).status_code == 303
    assert stored(world).models == (*MODELS, FRESH)


async def test_an_edit_from_a_stale_page_is_refused_with_what_changed_and_what_was_typed(world: World) -> None:
    seen = str(stored(world).revision)
    set_cascade(world.door, [SECOND], actor="ben", reason="the first is slow")
    browser = a_browser(world)
    with nothing_changes(world):
        answer = await browser.post("/gateway/cascade", models=f"{FRESH}\n{FIRST}", reason="mine", seen=seen)
    assert answer.status_code == 412
    page = words(answer.text)
    assert f"ben set the cascade to {SECOND} the first is slow" in page
    assert "Nothing was changed" in page
    assert f"{FRESH} {FIRST}" in page, "what was typed is still there"
    assert 'value="mine"' in answer.text
    again = await browser.post(
        "/gateway/cascade", models=f"{FRESH}\n{FIRST}", reason="mine", seen=str(stored(world).revision)
    )
    assert again.status_code == 303


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ("", "An empty cascade could answer nobody"),
        ("a/paid", "is not free"),
        ("nonsense", "is no model id"),
        ("a/b:free a/b:free", "more than once"),
        ("<script>alert(1)</script>", "is no model id"),
        ("\n".join(f"a/b{number}:free" for number in range(21)), "at most 20"),
    ],
)
async def test_a_cascade_that_cannot_be_is_refused_in_place(world: World, models: str, says: str) -> None:
    browser = a_browser(world)
    with nothing_changes(world):
        answer = await browser.post("/gateway/cascade", models=models, seen=str(stored(world).revision))
    assert answer.status_code == 422
    assert says in words(answer.text)
    assert "<script>alert" not in answer.text
    assert '<details class="add" open>' in answer.text


async def test_a_form_that_lost_its_revision_changes_nothing(world: World) -> None:
    browser = a_browser(world)
    with nothing_changes(world):
        answer = await browser.post("/gateway/cascade", models=FRESH)
    assert answer.status_code == 422
    assert "load the page again" in words(answer.text)


async def test_a_viewer_sees_it_all_and_changes_nothing(world: World) -> None:
    quarantine(world.door, SECOND, 0.25, Where.LITELLM)
    trip(gate_of(world), FailureKind.UNREACHABLE)
    world.plane.refresh()
    browser = a_browser(world, Role.VIEWER)
    html = (await browser.get("/gateway")).text
    assert "cost money" in words(html)
    assert "<form id=" not in html
    with nothing_changes(world):
        for path in ("/gateway/cascade", "/gateway/cascade/lift", "/gateway/breakers/reset"):
            assert (await browser.post(path, model=SECOND)).status_code == 403


async def test_what_an_upstream_said_is_never_markup(world: World) -> None:
    withdraw(world.door, FIRST, OutReason.WITHDRAWN, "<img src=x onerror=alert(1)>")
    for path in ("/gateway", PAGE, "/audit"):
        world.plane.refresh()
        assert "<img src=x" not in (await a_browser(world).get(path)).text


async def test_a_reset_is_only_for_those_who_are_signed_in(world: World) -> None:
    with nothing_changes(world):
        async with world.client(None) as client:
            for headers in ({}, HX):
                answer = await client.post("/gateway/breakers/reset", headers=headers)
                assert answer.status_code == (401 if headers else 303)
                assert "/sign-in" in answer.headers.get("location", answer.text)
