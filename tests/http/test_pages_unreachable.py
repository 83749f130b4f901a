"""A stop while the server is frozen, gone or started again, and an act whose session is over, in a real browser."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from rollout.control.access import sign_out
from rollout.control.flags import FlagChange, change_flag, kill, restore, set_override
from rollout.domain.flag import MAIN_FLAG, Variant
from tests.http.pages_support import PAGE
from tests.http.process import ServedProcess
from tests.http.site import Site, hear

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedProcess]:
    process = ServedProcess(tmp_path_factory.mktemp("served"))
    process.start()
    yield process
    process.end()


@pytest.fixture
def page(process: ServedProcess, chromium: Browser) -> Iterator[Page]:
    with process.beside() as door:
        restore(door, MAIN_FLAG, actor="test")
    context = chromium.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"{process.address}/sign-in#code={process.code()}")
    page.wait_for_url(f"**{PAGE}")
    yield page
    context.close()


def _press_stop(page: Page) -> None:
    page.keyboard.press("k")
    expect(page.locator("#stop-now")).to_be_focused()
    page.keyboard.press("Enter")


def _says_that_nothing_is_confirmed(page: Page) -> None:
    outcome = page.locator("#stop-outcome")
    expect(outcome).to_contain_text("Not confirmed: no answer yet")
    expect(page.locator("#announce")).to_contain_text("Not confirmed: no answer yet")
    expect(page.locator("#stop-said")).to_be_hidden()
    ways = page.locator("#stop .ways")
    expect(ways).to_be_visible()
    for way in ("data/kill", "FORCE_DIRECT_OPENROUTER=true", "rollout flags kill enableLiteLLM"):
        expect(ways).to_contain_text(way)
    expect(page.locator("#band-state")).not_to_contain_text("STOPPED")


def _is_confirmed(page: Page) -> None:
    expect(page.locator("#band-state")).to_contain_text("STOPPED")
    expect(page.locator("#announce")).to_contain_text("STOPPED")
    expect(page.locator("#stop")).to_contain_text("Restore")
    expect(page).to_have_title(re.compile("^STOPPED · "))
    expect(page.locator("#sentence")).to_be_focused()


def test_a_stop_at_a_frozen_server_is_not_confirmed_and_arrives_by_itself(page: Page, process: ServedProcess) -> None:
    process.freeze()
    try:
        _press_stop(page)
        _says_that_nothing_is_confirmed(page)
    finally:
        process.thaw()
    _is_confirmed(page)
    expect(page.locator("#offline")).to_be_hidden()
    assert process.flag().killed


def test_a_stop_at_a_server_that_is_gone_arrives_once_it_is_started_again(page: Page, process: ServedProcess) -> None:
    process.end()
    try:
        _press_stop(page)
        _says_that_nothing_is_confirmed(page)
        expect(page.locator("#stop-outcome")).to_contain_text("tried again by itself")
        expect(page.locator("#offline")).to_be_visible()
        expect(page.locator("#offline")).to_contain_text("What you sent last is not confirmed.")
    finally:
        process.start()
    _is_confirmed(page)
    assert process.flag().killed


def test_a_restore_without_an_answer_is_not_repeated_by_itself(page: Page, process: ServedProcess) -> None:
    with process.beside() as door:
        kill(door, MAIN_FLAG, actor="ben")
    page.reload()
    process.end()
    try:
        page.locator("#stop summary").click()
        page.get_by_role("button", name="Restore now").click()
        expect(page.locator("#restore-outcome")).to_contain_text("Not confirmed: no answer yet")
        expect(page.locator("#restore-outcome")).not_to_contain_text("tried again")
    finally:
        process.start()
    hear(page)
    expect(page.locator("#offline")).to_be_hidden()
    assert process.flag().killed


def test_a_save_without_an_answer_says_that_it_is_not_confirmed(page: Page, process: ServedProcess) -> None:
    page.locator("#percentage").fill("0")
    page.locator("#reason").fill("half a reason")
    process.end()
    try:
        page.get_by_role("button", name="Save …").click()
        expect(page.locator("#offline")).to_contain_text("What you sent last is not confirmed.")
        expect(page.locator("#announce")).to_contain_text("Not confirmed")
        expect(page.locator("#reason")).to_have_value("half a reason")
    finally:
        process.start()


def _end_the_session(site: Site, page: Page) -> None:
    secret = next(cookie["value"] for cookie in page.context.cookies() if "session" in cookie["name"])
    sign_out(site.world.door, secret)


def test_a_stop_whose_session_is_over_says_that_nothing_was_stopped(site: Site) -> None:
    page = site.open()
    page.keyboard.press("k")
    expect(page.locator("#stop-now")).to_be_focused()
    _end_the_session(site, page)
    page.keyboard.press("Enter")
    expect(page.locator("#stop-outcome")).to_contain_text("Your session is over: nothing was stopped.")
    expect(page.locator("#stop .ways")).to_be_visible()
    expect(page.locator("#stop-said")).to_be_hidden()
    assert page.url.endswith(PAGE)
    assert not site.flag().killed


def test_a_session_that_ends_says_so_and_what_was_typed_is_saved_after_signing_in_elsewhere(site: Site) -> None:
    page = site.open()
    page.locator("#percentage").fill("10")
    page.locator("#reason").fill("typed before it ended")
    _end_the_session(site, page)
    hear(page)
    expect(page.locator("#session")).to_contain_text("Your session is over.")
    expect(page.locator("#reason")).to_have_value("typed before it ended")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Sign in, in another tab").click()
    other = opened.value
    other.get_by_label("Code").fill(site.code())
    other.get_by_role("button", name="Sign in").click()
    other.wait_for_url(f"**{PAGE}")
    other.close()
    page.evaluate("window.dispatchEvent(new Event('focus'))")  # a browser without a screen never loses it
    expect(page.locator("#session .refusal")).to_have_count(0)
    page.get_by_role("button", name="Save …").click()
    page.get_by_role("button", name="Move to 10 %").click()
    expect(page.locator("#share .done")).to_contain_text("from 0 % to 10 %")
    assert site.flag().share == 10_000


def test_without_scripts_a_stop_whose_session_is_over_says_that_nothing_was_stopped(site: Site) -> None:
    page = site.open(scripts=False)
    page.locator("summary", has_text="STOP").click()
    expect(page.locator("#stop .ways")).to_be_visible()
    _end_the_session(site, page)
    page.get_by_role("button", name="Stop now").click()
    expect(page.get_by_role("alert")).to_contain_text("nothing was stopped")
    expect(page.locator(".ways")).to_contain_text("FORCE_DIRECT_OPENROUTER=true")
    assert not site.flag().killed


def test_a_stop_while_the_database_is_gone_says_that_nothing_was_stopped(site: Site) -> None:
    page = site.open()
    page.keyboard.press("k")
    expect(page.locator("#stop-now")).to_be_focused()
    moved = site.world.path.with_suffix(".away")
    site.world.path.rename(moved)
    try:
        page.keyboard.press("Enter")
        expect(page.locator("#stop-outcome")).to_contain_text("Nothing was stopped")
        expect(page.locator("#stop .ways")).to_be_visible()
    finally:
        moved.rename(site.world.path)
    expect(page.locator("#band-state")).to_contain_text("STOPPED")
    assert site.flag().killed


@pytest.mark.parametrize("held", [False, True], ids=["pressed again and again", "held"])
def test_enter_after_a_stop_never_restores(site: Site, *, held: bool) -> None:
    site.by_somebody_else(change_flag, FlagChange(share=10_000))
    page = site.open()
    page.keyboard.press("k")
    expect(page.locator("#stop-now")).to_be_focused()
    for _ in range(40):
        page.keyboard.down("Enter")
        if not held:
            page.keyboard.up("Enter")
    page.keyboard.up("Enter")
    expect(page.locator("#sentence")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Enter")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator("#band-state")).to_contain_text("STOPPED")
    assert site.flag().killed
    assert [entry.action for entry in site.entries("flag:") if entry.action in {"flag:kill", "flag:restore"}] == [
        "flag:kill"
    ]


def test_a_held_enter_asks_and_does_not_confirm(site: Site) -> None:
    page = site.open()
    page.locator("#percentage").fill("10")
    page.locator("#percentage").focus()
    for _ in range(20):
        page.keyboard.down("Enter")
    expect(page.locator("#ask")).to_be_visible()
    for _ in range(20):
        page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    expect(page.get_by_role("button", name="Move to 10 %")).to_be_focused()
    assert site.flag().share == 0


def test_after_ones_own_stop_and_restore_the_next_save_is_taken(site: Site) -> None:
    page = site.open()
    page.locator("#percentage").fill("10")
    page.locator("#reason").fill("typed before the stop")
    page.keyboard.press("Tab")
    page.locator("summary", has_text="STOP").click()
    page.get_by_role("button", name="Stop now").click()
    expect(page.locator("#band-state")).to_contain_text("STOPPED")
    page.locator("#stop summary").click()
    page.get_by_role("button", name="Restore now").click()
    expect(page.locator("#band-state")).not_to_contain_text("STOPPED")
    hear(page)
    page.get_by_role("button", name="Save …").click()
    page.get_by_role("button", name="Move to 10 %").click()
    expect(page.locator("#share .done")).to_contain_text("from 0 % to 10 %")
    expect(page.locator("#changes")).to_contain_text("typed before the stop")
    assert site.flag().share == 10_000


def test_loading_again_after_somebody_elses_change_keeps_what_was_typed(site: Site) -> None:
    page = site.open()
    page.locator("#percentage").fill("50")
    page.locator("#reason").fill("half written")
    site.by_somebody_else(change_flag, FlagChange(share=20_000))
    hear(page)
    page.get_by_role("link", name="Load again").click()
    expect(page.locator("#meanwhile")).to_be_hidden()
    expect(page.locator("#percentage")).to_have_value("50")
    expect(page.locator("#reason")).to_have_value("half written")
    page.get_by_role("button", name="Save …").click()
    page.get_by_role("button", name="Move to 50 %").click()
    expect(page.locator("#share .done")).to_contain_text("from 20 % to 50 %")


def test_an_open_question_says_that_somebody_else_has_stopped_the_flag(site: Site) -> None:
    page = site.open()
    page.locator("#percentage").fill("10")
    page.get_by_role("button", name="Save …").click()
    expect(page.locator("#ask")).to_be_visible()
    site.by_somebody_else(kill)
    hear(page)
    expect(page.locator("#ask .meanwhile")).to_contain_text("The flag was stopped meanwhile")
    page.get_by_role("link", name="Cancel").click()
    expect(page.locator("#percentage")).to_have_value("10")


def test_a_reason_somebody_is_writing_does_not_hide_that_somebody_else_has_stopped(site: Site) -> None:
    page = site.open()
    page.locator("summary", has_text="STOP").click()
    page.locator("#stop-reason").fill("half a rea")
    site.by_somebody_else(kill)
    hear(page)
    expect(page.locator("#stop")).to_contain_text("Restore")
    expect(page.locator("#sentence")).to_be_focused()
    expect(page.locator("#announce")).to_contain_text("STOPPED")


def test_a_reason_that_is_too_long_is_refused_and_not_cut(site: Site) -> None:
    page = site.open()
    page.locator("summary", has_text="STOP").click()
    page.locator("#stop-reason").fill("x" * 501)
    page.get_by_role("button", name="Stop now").click()
    assert page.locator("#stop-reason").evaluate("field => field.validationMessage") == (
        "This is 1 characters too long; 500 are the most."
    )
    assert not site.flag().killed
    page.locator("#stop-reason").fill("x" * 500)
    page.get_by_role("button", name="Stop now").click()
    expect(page.locator("#band-state")).to_contain_text("STOPPED")
    assert site.entries("flag:kill")[0].reason == "x" * 500


def test_the_audits_filter_and_its_list_agree_after_going_back(site: Site) -> None:
    site.by_somebody_else(kill)
    page = site.open()
    page.goto(f"{site.address}/audit")
    page.locator("#f-action").select_option("flag:kill")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**action=flag**")
    page.locator("#f-actor").fill("nobody like this")
    page.go_back()
    expect(page.locator("#f-action")).to_have_value("")
    expect(page.locator("#f-actor")).to_have_value("")
    expect(page.locator("#entries")).to_contain_text("signed in as")
    page.go_forward()
    expect(page.locator("#f-action")).to_have_value("flag:kill")
    expect(page.locator("#entries")).not_to_contain_text("signed in as")


@pytest.mark.parametrize("size", [(320, 256), (667, 320), (320, 568), (360, 640), (600, 650), (1280, 720)], ids=str)
def test_the_buttons_that_stop_and_restore_are_in_view_in_every_window(
    page: Page, process: ServedProcess, size: tuple[int, int]
) -> None:
    """Both paths of this server fail, so the band and the question say as much as they ever do."""
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.keyboard.press("k")
    expect(page.locator("#stop-said")).to_contain_text("The direct path is not usable")
    stop = page.get_by_role("button", name="Stop now")
    expect(stop).to_be_in_viewport(ratio=1)
    process.freeze()
    try:
        page.keyboard.press("Enter")
        _says_that_nothing_is_confirmed(page)
        expect(stop).to_be_in_viewport(ratio=1)
        expect(page.locator("#stop-outcome")).to_be_in_viewport()
    finally:
        process.thaw()
    _is_confirmed(page)
    expect(page.locator("#sentence")).to_be_in_viewport()
    page.locator("#stop summary").press("Enter")
    expect(page.get_by_role("button", name="Restore now")).to_be_in_viewport(ratio=1)


def test_the_key_that_opens_the_stop_puts_the_very_next_key_on_its_button(site: Site) -> None:
    page = site.open()
    press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'k', bubbles: true}))"
    assert page.evaluate(f"{press}, document.activeElement.id") == "stop-now"
    page.locator("#stop-reason").focus()
    page.locator("#main").focus()
    assert page.evaluate(f"{press}, document.activeElement.id") == "stop-now"


def test_a_question_about_a_user_says_that_somebody_else_has_stopped_the_flag(site: Site) -> None:
    site.by_somebody_else(set_override, "user-1", Variant.ON)
    page = site.open()
    page.get_by_text("+ Force a user").click()
    page.get_by_label("User id").last.fill("user-1")
    page.locator("#o-variant").select_option("off")
    page.locator("#force").click()
    expect(page.locator("#ask")).to_contain_text("Force user-1 off instead of on?")
    site.by_somebody_else(kill)
    hear(page)
    expect(page.locator("#ask .meanwhile")).to_contain_text("The flag was stopped meanwhile")
    expect(page.locator("#ask .meanwhile")).not_to_contain_text("would be refused")


def test_a_new_link_that_is_opened_where_an_old_one_was_refused_signs_in(site: Site) -> None:
    page = site.open()
    page.context.clear_cookies()
    page.goto(f"{site.address}/sign-in#code=used-already")
    expect(page.get_by_role("alert")).to_contain_text("You are not signed in")
    page.evaluate("code => { location.hash = `code=${code}`; }", site.code())
    page.wait_for_url(f"**{PAGE}")
