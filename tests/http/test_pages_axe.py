"""Every page before axe-core, in light and in dark: nothing serious is found. The checker is part of no page."""

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it has no types
from playwright.sync_api import Page

from rollout.control.flags import FlagChange, change_flag, kill, set_override
from rollout.domain.failure import FailureKind
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.domain.flag import Path as Where
from tests.http.api_support import trip
from tests.http.pages_support import PAGE
from tests.http.site import Site, settle

pytestmark = pytest.mark.browser


def _is_sound(page: Page, what: str) -> None:
    found = Axe().run(page).response["violations"]
    bad = [
        (one["id"], one["impact"], [node["html"][:160] for node in one["nodes"]])
        for one in found
        if one["impact"] in {"serious", "critical"}
    ]
    assert bad == [], what


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_is_found_on_any_page(site: Site, scheme: str) -> None:
    for number in range(12):
        set_override(site.world.door, MAIN_FLAG, f"user-{number}", Variant.ON, actor="ben", reason="tester")
    site.by_somebody_else(change_flag, FlagChange(share=12_500), reason="slowly")
    page = site.open(color_scheme=scheme)
    others = (f"{PAGE}/forced", f"{PAGE}/stop", f"{PAGE}/why?user=u", "/audit", "/audit/verify", "/gateway", "/connect")
    for path in (PAGE, *others, "/sign-in?lost=1", "/nothing"):
        page.goto(site.address + path)
        page.evaluate("document.querySelectorAll('main details').forEach(one => { one.open = true; })")
        _is_sound(page, path)
    page.goto(site.address + PAGE)
    page.get_by_role("button", name="50 %").click()
    page.locator("#ask[open]").wait_for()
    settle(page)
    _is_sound(page, "the question before a change")
    assert page.locator("#ask button.primary").get_attribute("aria-describedby") == "ask-said"
    page.get_by_role("link", name="Cancel").click()
    page.keyboard.press("k")
    _is_sound(page, "the stop's question")
    assert page.locator("#stop-now").get_attribute("aria-describedby") == "stop-said"
    assert site.world.plane.gate is not None
    trip(site.world.plane.gate, FailureKind.UNREACHABLE, Where.OPENROUTER)
    trip(site.world.plane.gate, FailureKind.UNREACHABLE)
    for path in (PAGE, "/gateway"):
        page.goto(site.address + path)
        _is_sound(page, f"{path} in an outage")
    page.goto(site.address + PAGE)
    page.keyboard.press("k")
    _is_sound(page, "the stop's question in an outage")
    site.by_somebody_else(kill, reason="now")
    page.goto(site.address + PAGE)
    page.locator("#stop summary").click()
    _is_sound(page, "stopped")
    assert page.locator("#restore-now").get_attribute("aria-describedby") == "restore-said"
