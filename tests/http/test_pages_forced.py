"""Forced users: ten on the flag's page, all on one of their own, undone, turned round only after a question."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from rollout.control.flags import kill, set_override
from rollout.domain.flag import MAIN_FLAG, Override, Variant
from tests.http.api_support import World, a_world
from tests.http.pages_support import PAGE, a_browser, is_whole, nothing_changes, words
from tests.http.site import Site, settle


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _force(world: World, count: int) -> None:
    for number in range(count):
        set_override(world.door, MAIN_FLAG, f"user-{number:03}", Variant.ON, actor="a", reason=f"reason {number}")
    world.plane.refresh()


def _overrides(world: World) -> dict[str, Override]:
    snapshot = world.plane.holder.snapshot
    assert snapshot is not None
    flag = snapshot.flags[MAIN_FLAG]
    return dict(flag.overrides)  # type: ignore[union-attr]  # it is no broken one


async def test_the_flags_page_lists_the_ten_newest_below_the_question_about_a_user(world: World) -> None:
    _force(world, 61)
    html = (await a_browser(world).get(PAGE)).text
    assert html.index("What would a user get?") < html.index('id="forced"')
    assert html.count('class="id">user-') == 10
    assert "user-060" in html
    assert "user-050" not in html.split('id="h-changes"')[0]
    assert "All 61 forced users" in words(html)


async def test_all_forced_users_are_paged_and_searched_on_a_page_of_their_own(world: World) -> None:
    _force(world, 61)
    browser = a_browser(world)
    first, second = (await browser.get(f"{PAGE}/forced")).text, (await browser.get(f"{PAGE}/forced?page=2")).text
    assert (first.count('class="id">user-'), second.count('class="id">user-')) == (50, 11)
    assert "Page 2 of 2" in words(second)
    found = (await browser.get(f"{PAGE}/forced?q=USER-00")).text
    assert found.count('class="id">user-') == 10
    assert "10 forced users found for USER-00 , of 61" in words(found)
    for odd in (
        "page=9999999",
        "page=0",
        "page=-1",
        "page=x",
        "page=%C2%B2",
        "q=%00",
        "q=%25",
        "q=_",
        "q=%F0%9F%98%80",
    ):
        assert (await browser.get(f"{PAGE}/forced?{odd}")).status_code == 200, odd
    assert (await browser.get(f"{PAGE}/forced?q=%25")).text.count('class="id">user-') == 0, "no pattern is meant"


@pytest.mark.parametrize(
    ("user", "query"),
    [("a\u200bb", "a\u200bb"), ("a\u202eb", "a\u202e"), ("a\u00a0b", "a\u00a0b"), ("anna", "\u200b anna\u3164")],
)
async def test_a_user_is_found_by_the_id_that_was_given(world: World, user: str, query: str) -> None:
    set_override(world.door, MAIN_FLAG, user, Variant.ON, actor="a")
    set_override(world.door, MAIN_FLAG, "somebody", Variant.ON, actor="a")
    found = (await a_browser(world).get(f"{PAGE}/forced?q={quote(query)}")).text
    assert "1 forced user found" in words(found)


@pytest.mark.parametrize("hx", [True, False], ids=["with scripts", "without"])
async def test_a_removal_keeps_place_and_search_and_is_undone_with_all_it_had(world: World, *, hx: bool) -> None:
    _force(world, 70)
    ends = world.plane.now().replace(microsecond=123_000) + timedelta(days=2)
    set_override(world.door, MAIN_FLAG, "user-003", Variant.OFF, actor="a", reason="a <reason>", expires_at=ends)
    world.plane.refresh()
    before = _overrides(world)
    browser = a_browser(world)
    place = {"whole": "yes", "q": "user", "page": "2"}
    answer = await browser.post(f"{PAGE}/overrides/remove", hx=hx, user="user-003", **place)
    if not hx:
        assert answer.status_code == 303
        assert "/forced?q=user&page=2&done=" in answer.headers["location"]
        answer = await browser.get(answer.headers["location"])
    assert is_whole(answer) is not hx
    assert "Page 2 of 2" in words(answer.text)
    assert "user-003" not in _overrides(world)
    undo = answer.text.split('class="undo"')[1].split("</form>")[0]
    fields = {
        name: undo.split(f'name="{name}" value="')[1].split('"')[0].replace("&lt;", "<").replace("&gt;", ">")
        for name in ("user", "variant", "expires_at", "reason", "confirm", "whole", "q", "page")
    }
    await browser.post(f"{PAGE}/overrides", hx=hx, **fields)
    assert _overrides(world) == before


async def test_forcing_the_other_way_asks_and_the_same_way_does_not(world: World) -> None:
    set_override(world.door, MAIN_FLAG, "tester", Variant.ON, actor="a", reason="looks at it")
    browser = a_browser(world)
    with nothing_changes(world):
        for hx in (True, False):
            asked = await browser.post(f"{PAGE}/overrides", hx=hx, user="tester", variant="off", reason="no more")
            assert "Force tester off instead of on?" in words(asked.text)
            assert "tester is forced on now, because: looks at it." in words(asked.text)
    kill(world.door, MAIN_FLAG, actor="a")
    asked = await browser.post(f"{PAGE}/overrides", user="tester", variant="off")
    assert "tester takes the direct path until the flag is restored" in words(asked.text)
    await browser.post(f"{PAGE}/overrides", user="tester", variant="on", reason="again")
    await browser.post(f"{PAGE}/overrides", user="tester", variant="off", reason="no more", confirm="yes")
    assert _overrides(world)["tester"] == Override(Variant.OFF, "no more")


async def test_a_reason_too_long_is_refused_with_all_of_it_still_there(world: World) -> None:
    reason = "x" * 501
    browser = a_browser(world)
    with nothing_changes(world):
        answer = await browser.post(f"{PAGE}/overrides", hx=True, user="u", variant="on", reason=reason)
    assert answer.status_code == 422
    assert reason in answer.text
    assert "maxlength" not in answer.text.split('id="o-reason"')[1].split(">")[0]


@pytest.mark.browser
def test_a_removed_user_is_forced_again_by_the_undo_in_the_same_place(site: Site) -> None:
    _force(site.world, 60)
    page = site.open()
    page.goto(f"{site.address}{PAGE}/forced?q=user-0")
    page.get_by_role("button", name="Remove user-042").click()
    expect(page.locator(".done")).to_be_focused()
    expect(page.locator("#q")).to_have_value("user-0")
    settle(page)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".done")).to_contain_text("forced user-042")
    assert site.flag().overrides["user-042"].reason == "reason 42"
    settle(page)
    page.locator("#overrides .add summary").click()
    page.locator("#o-user").fill("user-042")
    page.locator("#o-variant").select_option("off")
    page.locator("#force").click()
    expect(page.locator("#ask")).to_contain_text("Force user-042 off instead of on?")
    expect(page.get_by_role("button", name="Force off")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".done")).to_contain_text("forced user-042 off")
    assert site.complaints == []
