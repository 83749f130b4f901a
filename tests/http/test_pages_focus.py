"""Where the keyboard stands after an act, and what stays true on a page that stays open."""

import pytest
from playwright.sync_api import Page, expect

from rollout.control.flags import FlagChange, change_flag, kill
from rollout.domain.flag import MAIN_FLAG
from tests.http.pages_support import PAGE
from tests.http.site import Site, hear, settle

pytestmark = pytest.mark.browser


def _confirm(page: Page) -> None:
    expect(page.locator("#ask")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#ask")).to_be_hidden()


def test_after_every_act_the_focus_is_on_what_came_of_it(site: Site) -> None:
    page = site.open()
    done = page.locator(".done")
    page.locator("#percentage").fill("12.5")
    page.locator("#save").focus()
    page.keyboard.press("Enter")
    _confirm(page)
    expect(done).to_be_focused()
    settle(page)
    page.locator("#stage-3").focus()
    page.keyboard.press("Enter")
    _confirm(page)
    expect(done).to_contain_text("to 50 %")
    expect(done).to_be_focused()
    settle(page)
    page.locator("#switch").focus()
    page.keyboard.press("Enter")
    _confirm(page)
    expect(done).to_contain_text("disabled")
    expect(done).to_be_focused()
    settle(page)
    page.locator("#overrides .add summary").click()
    page.locator("#o-user").fill("user-1")
    page.locator("#o-user").press("Enter")
    expect(done).to_contain_text("forced user-1")
    expect(done).to_be_focused()
    settle(page)
    page.locator("#remove-1").focus()
    page.keyboard.press("Enter")
    expect(done).to_contain_text("removed user-1")
    expect(done).to_be_focused()
    assert site.complaints == []


def test_a_refusal_takes_the_focus(site: Site) -> None:
    page = site.open()
    page.locator("#percentage").fill("abc")
    page.locator("#percentage").press("Enter")
    expect(page.locator("#share .refusal")).to_be_focused()
    page.locator("#overrides .add summary").click()
    page.locator("#o-user").fill("user-1")
    page.locator("#o-until").fill("2001-01-01T00:00")
    page.locator("#force").click()
    expect(page.locator("#overrides .refusal")).to_be_focused()


def test_older_entries_take_the_focus_with_the_first_of_them(site: Site) -> None:
    for share in range(1, 70):
        change_flag(site.world.door, MAIN_FLAG, FlagChange(share=share), actor="ben")
    page = site.open()
    page.goto(f"{site.address}/audit")
    last = page.locator("#entries li[id]").last.get_attribute("id")
    assert last is not None
    page.get_by_role("link", name="Older entries").press("Enter")
    expect(page.locator(f"#r{int(last.removeprefix('r')) - 1}")).to_be_focused()


def test_what_was_done_before_goes_with_the_next_act(site: Site) -> None:
    page = site.open()
    page.locator("#switch").click()
    _confirm(page)
    expect(page.locator("#share .done")).to_contain_text("disabled")
    page.keyboard.press("k")
    expect(page.locator("#stop-now")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#band-state")).to_contain_text("STOPPED")
    expect(page.locator(".done")).to_have_count(0)


def test_an_answer_about_a_user_follows_the_flag(site: Site) -> None:
    page = site.open()
    page.locator("#w-user").fill("user-99")
    page.locator("#w-user").press("Enter")
    expect(page.locator("#answer")).to_contain_text("openrouter because the share is 0 %")
    page.locator("#w-user").fill("half ty")
    site.by_somebody_else(change_flag, FlagChange(share=80_000))
    hear(page)
    expect(page.locator("#answer")).to_contain_text("litellm because bucket 75,091 of 100,000 is below 80,000")
    expect(page.locator("#w-user")).to_have_value("half ty")
    assert site.complaints == []


def test_an_open_question_shows_what_is_true_now_and_keeps_a_reason(site: Site) -> None:
    page = site.open()
    page.keyboard.press("K")  # with Caps Lock on
    expect(page.locator("#stop-now")).to_be_focused()
    expect(page.locator("#stop .panel")).not_to_contain_text("forced user on")
    site.by_somebody_else(change_flag, FlagChange(share=20_000))
    hear(page)
    expect(page.locator("#stop .panel")).to_contain_text("20 % of users leave the gateway")
    expect(page.locator("#stop-now")).to_be_visible()
    expect(page.locator("#stop-now")).to_be_focused()
    page.locator("#stop-reason").fill("half a rea")
    site.by_somebody_else(change_flag, FlagChange(share=30_000))
    hear(page)
    expect(page.locator("#band-state")).to_contain_text("30 %")
    expect(page.locator("#stop-reason")).to_have_value("half a rea")
    expect(page.locator("#stop-reason")).to_be_focused()


def test_somebody_elses_stop_closes_the_question_so_that_enter_restores_nothing(site: Site) -> None:
    page = site.open()
    page.keyboard.press("k")
    expect(page.locator("#stop-now")).to_be_focused()
    site.by_somebody_else(kill)
    hear(page)
    expect(page.locator("#stop")).to_contain_text("Restore")
    expect(page.locator("#restore-now")).to_be_hidden()
    expect(page.locator("#sentence")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Enter")
    expect(page.locator("#announce")).to_contain_text("STOPPED")
    assert site.flag().killed


def test_without_scripts_asking_and_searching_stay_where_they_are(site: Site) -> None:
    page = site.open(scripts=False)
    page.locator("#w-user").fill("user-99")
    page.get_by_role("button", name="Ask").click()
    assert page.url.endswith(f"{PAGE}/why?user=user-99#h-why")
    expect(page.get_by_role("heading", name="What would a user get?")).to_be_in_viewport()
    stages, exactly = page.locator(".stages").bounding_box(), page.locator("label[for=percentage]").bounding_box()
    assert stages is not None
    assert exactly is not None
    assert exactly["y"] - (stages["y"] + stages["height"]) >= 8
