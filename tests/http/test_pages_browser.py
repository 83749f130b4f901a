"""The pages in a real browser: the keyboard, no scripts, the policy, a narrow screen."""

import pytest
from playwright.sync_api import expect

from rollout.control.flags import FlagChange, change_flag, kill, set_override
from rollout.control.models import quarantine, withdraw
from rollout.domain.cascade import OutReason
from rollout.domain.failure import FailureKind
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.domain.flag import Path as Where
from tests.http.api_support import MODELS, trip
from tests.http.pages_support import PAGE
from tests.http.site import Site, hear, settle

pytestmark = pytest.mark.browser

PAGES = (
    PAGE,
    f"{PAGE}/stop",
    f"{PAGE}/why?user=user-99",
    "/audit",
    "/audit/verify",
    "/gateway",
    "/connect",
    "/sign-in",
)


def test_the_link_signs_in_and_its_code_is_not_left_in_the_address(site: Site) -> None:
    page = site.open()
    assert "code" not in page.url
    page.go_back()
    assert "code" not in page.url


def test_a_second_click_while_signing_in_sends_no_second_request(site: Site) -> None:
    page = site.open()
    page.context.clear_cookies()
    page.goto(f"{site.address}/sign-in")
    page.get_by_label("Code").fill("a code")
    stopped = page.evaluate(
        """() => {
            const form = document.querySelector("#sign-in"), stopped = [];
            form.addEventListener("submit", (event) => {
                stopped.push(event.defaultPrevented);
                event.preventDefault();
            });
            for (const _ of [1, 2, 3]) form.querySelector("button").click();
            return stopped;
        }"""
    )
    assert stopped == [False, True, True]


def test_the_keyboard_alone_kills_and_restores(site: Site) -> None:
    site.by_somebody_else(change_flag, FlagChange(share=10_000))
    page = site.open()
    page.goto(site.address + PAGE)
    for key in ("Tab", "Tab", "Enter"):  # the skip link, then the stop
        page.keyboard.press(key)
    expect(page.get_by_role("button", name="Stop now")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#band-state")).to_contain_text("Everybody goes direct to OpenRouter, forced users too")
    assert site.flag().killed
    expect(page.locator("#announce")).to_contain_text("STOPPED")
    expect(page.locator("#sentence")).to_be_focused()
    page.locator("#stop summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#restore-reason")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("button", name="Restore now")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#band-state")).to_contain_text("10 % of users go through LiteLLM")
    assert not site.flag().killed
    assert site.complaints == []


def test_k_opens_the_question_escape_closes_it_and_neither_stops(site: Site) -> None:
    page = site.open()
    page.keyboard.press("k")
    expect(page.get_by_role("button", name="Stop now")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Stop now")).to_be_hidden()
    page.get_by_label("Exactly").focus()
    page.keyboard.press("k")
    expect(page.get_by_role("button", name="Stop now")).to_be_hidden()
    page.get_by_label("Exactly").blur()
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    assert not site.flag().killed


def test_without_scripts_the_share_is_raised_to_ten_percent_and_everything_stopped(site: Site) -> None:
    page = site.open(scripts=False)
    expect(page.locator("#slider")).to_be_hidden()
    page.get_by_role("button", name="10 %").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Move enableLiteLLM from 0 % to 10 %?")
    assert site.flag().share == 0
    page.get_by_role("button", name="Move to 10 %").click()
    expect(page.get_by_role("status").filter(has_text="Done")).to_contain_text("from 0 % to 10 %")
    assert site.flag().share == 10_000
    page.locator("summary", has_text="STOP").click()
    page.get_by_role("button", name="Stop now").click()
    expect(page.locator("#band-state")).to_contain_text("STOPPED")
    assert site.flag().killed


def test_enter_in_the_exact_field_saves_what_is_typed_after_a_question(site: Site) -> None:
    page = site.open()
    page.get_by_label("Exactly").fill("12.5")
    expect(page.locator("#preview")).to_contain_text("About 1 in 8 users")
    assert page.locator("#slider").input_value() == "12.5"
    page.get_by_label("Exactly").press("Enter")
    expect(page.locator("#ask")).to_contain_text("Move enableLiteLLM from 0 % to 12.5 %?")
    expect(page.get_by_role("button", name="Move to 12.5 %")).to_be_focused()
    assert site.flag().share == 0
    page.keyboard.press("Enter")
    expect(page.locator("#share")).to_contain_text("Done: you set enableLiteLLM from 0 % to 12.5 %")
    expect(page.locator("#ask")).to_be_hidden()
    expect(page.locator("#band-state")).to_contain_text("12.5 % of users go through LiteLLM")
    expect(page.locator("#changes")).to_contain_text("from 0 % to 12.5 %")
    assert site.flag().share == 12_500
    assert site.complaints == []


def test_cancelling_the_question_changes_nothing(site: Site) -> None:
    page = site.open()
    page.locator("#slider").fill("40")
    expect(page.get_by_label("Exactly")).to_have_value("40")
    page.get_by_role("button", name="Save …").click()
    page.get_by_role("link", name="Cancel").click()
    expect(page.locator("#ask")).to_be_hidden()
    expect(page.get_by_label("Exactly")).to_have_value("40")
    assert site.flag().share == 0


def test_an_open_page_hears_of_a_change_and_of_a_stop_and_keeps_what_was_typed(site: Site) -> None:
    page = site.open()
    page.locator("#reason").fill("half written")
    site.by_somebody_else(change_flag, FlagChange(share=50_000))
    hear(page)
    expect(page.locator("#band-state")).to_contain_text("50 % of users go through LiteLLM")
    expect(page.locator("#meanwhile")).to_contain_text("it stands at 50 %")
    site.by_somebody_else(kill, reason="now")
    hear(page)
    expect(page.locator("#stop")).to_contain_text("Restore")
    expect(page.locator("#announce")).to_contain_text("STOPPED")
    expect(page.locator("#reason")).to_have_value("half written")


def test_a_stale_save_is_refused_in_place_and_saved_on_purpose_after(site: Site) -> None:
    page = site.open()
    page.get_by_label("Exactly").fill("50")
    site.by_somebody_else(change_flag, FlagChange(share=20_000), reason="slowly")
    page.get_by_role("button", name="Save …").click()
    expect(page.locator("#share")).to_contain_text("ben set enableLiteLLM from 0 % to 20 %")
    expect(page.get_by_label("Exactly")).to_have_value("50")
    settle(page)
    page.get_by_role("button", name="Save …").click()
    page.get_by_role("button", name="Move to 50 %").click()
    expect(page.locator("#band-state")).to_contain_text("50 % of users")
    assert site.flag().share == 50_000


def test_users_are_forced_found_asked_about_and_released(site: Site) -> None:
    page = site.open()
    for user in ("user-1", "user-2"):
        if not page.get_by_label("User id").first.is_visible():
            page.get_by_text("+ Force a user").click()
        page.locator("#o-user").fill(user)
        page.get_by_role("button", name="Force", exact=True).click()
        expect(page.locator("#forced-table")).to_contain_text(user)
        settle(page)
    page.keyboard.press("/")
    page.keyboard.type("user-2")
    expect(page.locator("#forced-table")).not_to_contain_text("user-1")
    expect(page.locator("#q")).to_be_focused()
    page.locator("#w-user").fill("user-2")
    page.locator("#w-user").press("Enter")
    expect(page.locator("#answer")).to_contain_text("this user is forced on")
    page.get_by_role("button", name="Remove user-2").click()
    expect(page.locator("#overrides")).to_contain_text("Done: you removed user-2")
    assert list(site.flag().overrides) == ["user-1"]
    assert site.complaints == []


def test_a_chosen_theme_stays_and_is_there_before_anything_is_drawn(site: Site) -> None:
    page = site.open(color_scheme="light")
    for wanted in ("light", "dark"):
        page.get_by_role("button", name="Theme").click()
        assert page.evaluate("document.documentElement.dataset.theme") == wanted
    page.goto(f"{site.address}/audit")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(19, 21, 24)"
    assert page.locator("head script").first.get_attribute("defer") is None


def _unwell(site: Site) -> None:
    """Take models out, open breakers, use the day up."""
    gate = site.world.plane.gate
    assert gate is not None
    longest = f"author/{'a-very-long-model-name-' * 7}:free"
    quarantine(site.world.door, MODELS[0], 0.1, Where.LITELLM)
    withdraw(site.world.door, longest, OutReason.WITHDRAWN, "x" * 480)
    trip(gate, FailureKind.EMPTY, model=longest)
    trip(gate, FailureKind.UNREACHABLE, model=MODELS[1])
    trip(gate, FailureKind.DAY_CAP, Where.OPENROUTER, MODELS[1])
    site.world.plane.refresh()


@pytest.mark.parametrize("scripts", [True, False])
def test_what_went_wrong_is_put_right_on_the_gateways_page(site: Site, *, scripts: bool) -> None:
    page = site.open(scripts=scripts)
    _unwell(site)
    page.goto(f"{site.address}/gateway")
    loud = page.locator(".loud").filter(has_text="NOT FREE")
    expect(loud).to_contain_text(f"{MODELS[0]}: an answer through litellm cost $0.1")
    page.get_by_label("Reason to lift").fill("refunded")
    page.get_by_role("button", name=f"Lift {MODELS[0]}").click()
    expect(page.locator(".done")).to_contain_text(f"you put {MODELS[0]} back into the live order")
    expect(loud).to_have_count(0)
    page.get_by_label("Reason to reset").fill("it is back")
    page.get_by_role("button", name="Reset litellm", exact=True).click()
    expect(page.locator(".done")).to_contain_text("you reset litellm. Entry")
    page.get_by_role("button", name="Forget the cap").click()
    expect(page.locator(".done")).to_contain_text("you reset quota. Entry")
    page.locator("summary", has_text="Edit the cascade").click()
    page.get_by_label("Models, best first").fill(f"{MODELS[1]}\nfresh/model:free")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".done")).to_contain_text(f"you set the cascade to {MODELS[1]}, fresh/model:free")
    assert site.complaints == []


def test_an_open_page_hears_that_a_model_cost_money(site: Site) -> None:
    page = site.open()
    expect(page.locator(".loud")).to_have_count(0)
    _unwell(site)
    hear(page)
    expect(page.locator(".loud").filter(has_text="NOT FREE")).to_have_count(1)
    page.goto(f"{site.address}/gateway")
    page.get_by_label("Reason to lift").fill("half a rea")
    quarantine(site.world.door, MODELS[1], 0.2, Where.LITELLM)
    site.world.plane.refresh()
    hear(page)
    expect(page.locator("tr.cost")).to_have_count(2)
    assert page.get_by_label("Reason to lift").input_value() == "half a rea", "what is typed is never swapped away"


def _fill(site: Site) -> None:
    longest = "a-very-long-user-id-without-any-place-to-break-" * 5
    set_override(site.world.door, MAIN_FLAG, longest, Variant.ON, actor="ben" * 25, reason="x" * 480)
    site.by_somebody_else(change_flag, FlagChange(share=12_500), reason="because-" * 60)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_breaks_the_policy_or_says_an_error(site: Site, scheme: str) -> None:
    _fill(site)
    page = site.open(color_scheme=scheme)
    page.add_init_script("addEventListener('securitypolicyviolation', e => console.error('CSP', e.violatedDirective))")
    for path in PAGES:
        page.goto(site.address + path)
        hear(page)
        page.wait_for_load_state("networkidle")
    site.by_somebody_else(kill)
    page.goto(site.address + PAGE)
    page.wait_for_load_state("networkidle")
    assert site.complaints == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_page_scrolls_sideways(site: Site, width: int) -> None:
    _fill(site)
    page = site.open(viewport={"width": width, "height": 740})
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

    def check(what: str) -> None:
        page.evaluate("document.querySelectorAll('main details').forEach(one => { one.open = true; })")
        assert page.evaluate(sideways) == 0, (what, width)

    for path in PAGES:
        page.goto(site.address + path)
        check(path)
    page.goto(site.address + PAGE)
    page.locator("summary", has_text="STOP").click()
    check("the stop's question")
    site.by_somebody_else(kill, reason="because-" * 60)
    page.goto(site.address + PAGE)
    check("stopped")
    page.goto(f"{site.address}/nothing")
    check("not found")
    _unwell(site)
    page.goto(f"{site.address}/gateway")
    check("unwell")
