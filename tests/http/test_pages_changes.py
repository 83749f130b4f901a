"""What the pages change, with scripts and without, and what they refuse."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rollout.control.flags import FlagChange, change_flag, set_override
from rollout.domain.flag import MAIN_FLAG, Flag, Variant
from rollout.domain.roles import Role
from rollout.store.access import list_tokens
from rollout.store.flags import read_flag
from rollout.store.ledger import AuditFilter, list_entries
from tests.http.api_support import OURS, World, a_world
from tests.http.pages_support import PAGE, Tags, a_browser, is_whole, nothing_changes, seen, words


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


BOTH = pytest.mark.parametrize("hx", [False, True], ids=["plain", "htmx"])


def _flag(world: World) -> Flag:
    with world.door.reading() as connection:
        return read_flag(connection, MAIN_FLAG)


def _last(world: World, action: str) -> Any:
    with world.door.reading() as connection:
        return list_entries(connection, AuditFilter(action=action), limit=1)[0]


def _form(html: str, action: str) -> dict[str, str]:
    """Return the hidden fields of the form that posts to an address."""
    tags = Tags(html).tags
    start = next(i for i, (tag, a) in enumerate(tags) if tag == "form" and a.get("action") == action)
    fields = {}
    for tag, attributes in tags[start + 1 :]:
        if tag == "form":
            break
        if tag == "input" and attributes.get("type") == "hidden":
            fields[str(attributes["name"])] = attributes.get("value") or ""
    return fields


@BOTH
async def test_a_share_is_asked_in_numbers_and_then_set(world: World, hx: bool) -> None:
    set_override(world.door, MAIN_FLAG, "user-42", Variant.ON, actor="a")
    browser = a_browser(world)
    with nothing_changes(world):
        asked = await browser.post(f"{PAGE}/share", hx=hx, percentage="12,5", reason="early", seen=seen(world))
    assert asked.status_code == 200
    assert is_whole(asked) is not hx
    said = words(asked.text)
    assert "Move enableLiteLLM from 0 % to 12.5 %?" in said
    assert "About 1 in 8 users go through LiteLLM instead of no user but the forced ones." in said
    assert "1 forced user (1 on, 0 off) unaffected." in said
    fields = _form(asked.text, f"{PAGE}/share")
    done = await browser.post(f"{PAGE}/share", hx=hx, **{k: v for k, v in fields.items() if k != "csrf"})
    assert _flag(world).share == 12_500
    entry = _last(world, "flag:percentage:set")
    assert (entry.actor, entry.reason) == ("Asta", "early")
    if hx:
        assert done.status_code == 200
        assert done.headers["hx-trigger-after-settle"] == "changed"
        assert not is_whole(done)
        after = done
    else:
        assert (done.status_code, done.headers["location"]) == (303, f"{PAGE}?done={entry.revision}")
        after = await browser.get(done.headers["location"])
    assert "Done: you set enableLiteLLM from 0 % to 12.5 %" in words(after.text)
    assert after.text.count('class="done"') == 1


@BOTH
async def test_a_stage_is_one_press_and_one_confirmation(world: World, hx: bool) -> None:
    browser = a_browser(world)
    asked = await browser.post(f"{PAGE}/share", hx=hx, percentage="3", stage="10", seen=seen(world))
    assert _form(asked.text, f"{PAGE}/share")["percentage"] == "10"
    if hx:
        assert asked.headers["hx-retarget"] == "#ask"
    await browser.post(f"{PAGE}/share", hx=hx, percentage="10", seen=seen(world), confirm="yes")
    assert _flag(world).share == 10_000


@BOTH
async def test_disabling_and_enabling_are_asked_and_done(world: World, hx: bool) -> None:
    browser = a_browser(world)
    change_flag(world.door, MAIN_FLAG, FlagChange(share=50_000), actor="a")
    world.plane.refresh()
    with nothing_changes(world):
        asked = await browser.post(f"{PAGE}/enabled", hx=hx, enabled="no", seen=seen(world))
    assert "Users go direct, instead of about 1 in 2 users through LiteLLM." in words(asked.text)
    await browser.post(f"{PAGE}/enabled", hx=hx, enabled="no", seen=seen(world), confirm="yes")
    assert not _flag(world).enabled
    asked = await browser.post(f"{PAGE}/enabled", hx=hx, enabled="yes", seen=seen(world))
    assert "About 1 in 2 users go through LiteLLM (50 %)." in words(asked.text)
    await browser.post(f"{PAGE}/enabled", hx=hx, enabled="yes", seen=seen(world), confirm="yes")
    assert (_flag(world).enabled, _flag(world).share) == (True, 50_000)


@BOTH
async def test_a_kill_needs_no_revision_and_a_restore_brings_back_what_was(world: World, hx: bool) -> None:
    browser = a_browser(world)
    change_flag(world.door, MAIN_FLAG, FlagChange(share=10_000), actor="a")
    stopped = await browser.post(f"{PAGE}/kill", hx=hx, reason="bad answers")
    assert _flag(world).killed
    assert world.plane.holder.evaluate(MAIN_FLAG, "anybody").cause == "kill_switch"
    if hx:
        assert 'hx-swap-oob="innerHTML:#announce"' in stopped.text
        assert stopped.headers["hx-trigger-after-settle"] == "changed"
        assert "Restore now" in words(stopped.text)
    else:
        assert stopped.status_code == 303
        after = await browser.get(stopped.headers["location"])
        assert "Done: you STOPPED enableLiteLLM" in words(after.text)
    await browser.post(f"{PAGE}/restore", hx=hx, reason="fixed")
    assert (_flag(world).killed, _flag(world).share) == (False, 10_000)


async def test_without_scripts_the_stop_has_a_page_of_its_own(world: World) -> None:
    browser = a_browser(world)
    question = await browser.get(f"{PAGE}/stop")
    assert "Stop enableLiteLLM?" in words(question.text)
    assert _form(question.text, f"{PAGE}/kill")
    await browser.post(f"{PAGE}/kill")
    back = await browser.get(f"{PAGE}/stop")
    assert "Restore enableLiteLLM?" in words(back.text)


async def test_killing_twice_is_not_refused_and_writes_one_entry(world: World) -> None:
    browser = a_browser(world)
    await browser.post(f"{PAGE}/kill")
    with nothing_changes(world):
        again = await browser.post(f"{PAGE}/kill")
    assert again.headers["location"] == f"{PAGE}?done=0"
    assert "It was so already" in words((await browser.get(again.headers["location"])).text)


@BOTH
@pytest.mark.parametrize("confirm", ["", "yes"])
async def test_a_stale_change_shows_what_changed_meanwhile_and_keeps_what_was_wanted(
    world: World, hx: bool, confirm: str
) -> None:
    browser = a_browser(world)
    old = seen(world)
    change_flag(world.door, MAIN_FLAG, FlagChange(share=20_000), actor="ben", reason="slowly")
    world.plane.refresh()
    with nothing_changes(world):
        answer = await browser.post(f"{PAGE}/share", hx=hx, percentage="50", reason="mine", seen=old, confirm=confirm)
    assert answer.status_code == 412
    assert is_whole(answer) is not hx
    said = words(answer.text)
    assert "It changed meanwhile." in said
    assert "ben set enableLiteLLM from 0 % to 20 %" in said
    values = {a.get("id"): a.get("value") for tag, a in Tags(answer.text).tags if tag == "input"}
    assert (values["percentage"], values["reason"]) == ("50", "mine")
    assert _form(answer.text, f"{PAGE}/share")["seen"] == seen(world)  # pressing again is on purpose


@BOTH
async def test_raising_past_a_failing_preflight_needs_a_tick(world: World, hx: bool) -> None:
    world.down()
    browser = a_browser(world)
    assert "skip_preflight" not in (await browser.get(PAGE)).text
    for confirm in ("", "yes"):
        with nothing_changes(world):
            answer = await browser.post(f"{PAGE}/share", hx=hx, percentage="10", seen=seen(world), confirm=confirm)
        assert answer.status_code == 409
        assert "the gateway is not healthy (LiteLLM is starting)" in words(answer.text)
        assert 'name="skip_preflight"' in answer.text
    asked = await browser.post(f"{PAGE}/share", hx=hx, percentage="10", seen=seen(world), skip_preflight="yes")
    assert "The preflight is skipped." in words(asked.text)
    fields = {k: v for k, v in _form(asked.text, f"{PAGE}/share").items() if k != "csrf"}
    await browser.post(f"{PAGE}/share", hx=hx, **fields)
    assert _flag(world).share == 10_000


async def test_enabling_past_a_failing_preflight_needs_a_tick_too(world: World) -> None:
    change_flag(world.door, MAIN_FLAG, FlagChange(share=50_000, enabled=False), actor="a")
    world.plane.refresh()
    world.down()
    browser = a_browser(world)
    refused = await browser.post(f"{PAGE}/enabled", enabled="yes", seen=seen(world))
    assert refused.status_code == 409
    assert "enable although it speaks against it" in words(refused.text)
    asked = await browser.post(f"{PAGE}/enabled", enabled="yes", seen=seen(world), skip_preflight="yes")
    assert _form(asked.text, f"{PAGE}/enabled")["skip_preflight"] == "yes"


async def test_lowering_is_never_stopped_by_a_preflight(world: World) -> None:
    change_flag(world.door, MAIN_FLAG, FlagChange(share=50_000), actor="a")
    world.plane.refresh()
    world.down()
    answer = await a_browser(world).post(f"{PAGE}/share", percentage="10", seen=seen(world))
    assert "Exactly those who were added last go back to direct." in words(answer.text)


@pytest.mark.parametrize("percentage", ["", "-1", "100.1", "NaN", "ten", "1e999", "0.0001", "<b>"])
async def test_a_percentage_that_cannot_be_stored_is_refused_and_still_there(world: World, percentage: str) -> None:
    browser = a_browser(world)
    with nothing_changes(world):
        answer = await browser.post(f"{PAGE}/share", percentage=percentage, seen=seen(world), confirm="yes")
    assert answer.status_code == 422
    said = words(answer.text)
    assert said.count("The share must be a number") + said.count("The share goes in steps of 0.001") == 1
    values = {a.get("id"): a.get("value") for tag, a in Tags(answer.text).tags if tag == "input"}
    assert values["percentage"] == percentage


@pytest.mark.parametrize("path", [f"{PAGE}/share", f"{PAGE}/enabled"])
async def test_a_form_without_its_revision_is_refused(world: World, path: str) -> None:
    for nonsense in ("", "x", "-1", "9" * 20):
        browser = a_browser(world)
        with nothing_changes(world):
            answer = await browser.post(path, percentage="10", enabled="no", seen=nonsense, confirm="yes")
        assert answer.status_code == 422


@pytest.mark.parametrize("reason", ["x" * 501, "two\nlines"])
async def test_a_reason_that_cannot_be_stored_is_refused_before_it_is_asked(world: World, reason: str) -> None:
    browser = a_browser(world)
    with nothing_changes(world):
        answer = await browser.post(f"{PAGE}/share", percentage="10", seen=seen(world), reason=reason)
        stopped = await browser.post(f"{PAGE}/kill", reason=reason)
    assert answer.status_code == stopped.status_code == 422
    assert "reason" in words(answer.text)


@BOTH
async def test_a_user_is_forced_and_released(world: World, hx: bool) -> None:
    browser = a_browser(world)
    fields = {"user": " spaced id ", "variant": "off", "expires_at": "2100-01-01T09:00", "reason": "odd"}
    done = await browser.post(f"{PAGE}/overrides", hx=hx, **fields)
    override = _flag(world).overrides["spaced id"]
    assert (override.variant, override.reason) == (Variant.OFF, "odd")
    assert override.expires_at is not None
    assert override.expires_at.isoformat() == "2100-01-01T09:00:00+00:00"
    assert done.status_code == (200 if hx else 303)
    page = done if hx else await browser.get(done.headers["location"])
    assert "Done: you forced" in words(page.text)
    removed = await browser.post(f"{PAGE}/overrides/remove", hx=hx, user=" spaced id ")
    assert removed.status_code == (200 if hx else 303)
    assert not _flag(world).overrides


@BOTH
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"user": "", "variant": "on"}, "user is empty"),
        ({"user": "x" * 257, "variant": "on"}, "256 is the most"),
        ({"user": "a\x07b", "variant": "on"}, "control character"),
        ({"user": "a", "variant": "maybe"}, "forced on or off"),
        ({"user": "a", "variant": "on", "expires_at": "soon"}, "needs a date and time"),
        ({"user": "a", "variant": "on", "expires_at": "2001-01-01T00:00"}, "lies in the past"),
        ({"user": "a", "variant": "on", "reason": "r" * 501}, "500 is the most"),
    ],
)
async def test_an_override_that_cannot_be_stored_is_refused_with_the_form_open(
    world: World, hx: bool, fields: dict[str, str], says: str
) -> None:
    browser = a_browser(world)
    with nothing_changes(world):
        answer = await browser.post(f"{PAGE}/overrides", hx=hx, **fields)
    assert answer.status_code == 422
    assert says in words(answer.text)
    assert ("details", {"class": "add", "open": None}) in Tags(answer.text).tags
    assert is_whole(answer) is not hx


@BOTH
async def test_releasing_somebody_who_is_not_forced_says_so(world: World, hx: bool) -> None:
    browser = a_browser(world)
    with nothing_changes(world):
        answer = await browser.post(f"{PAGE}/overrides/remove", hx=hx, user="nobody")
    assert answer.status_code == 404
    assert answer.headers.get("hx-retarget") == ("#notice" if hx else None)
    assert "is not forced" in words(answer.text)


@BOTH
async def test_an_access_token_is_shown_once_and_works_until_it_is_revoked(world: World, hx: bool) -> None:
    browser = a_browser(world)
    made = await browser.post("/connect/tokens", hx=hx, name="my <app>", role="evaluate")
    assert made.status_code == 200
    (secret,) = set(re.findall(r"rollout_[\w-]{30,}", made.text))
    assert world.plane.may_send(secret)
    listed = await browser.get("/connect")
    assert "my &lt;app&gt;" in listed.text
    assert secret not in listed.text
    with world.door.reading() as connection:
        token = next(token for token in list_tokens(connection) if token.name == "my <app>")
    revoked = await browser.post(f"/connect/tokens/{token.id}/revoke", hx=hx)
    assert revoked.status_code == (200 if hx else 303)
    assert not world.plane.may_send(secret)


@BOTH
async def test_an_access_token_with_a_bad_name_or_role_is_refused(world: World, hx: bool) -> None:
    for fields in ({"name": "", "role": "viewer"}, {"name": "x", "role": "king"}):
        browser = a_browser(world)
        with nothing_changes(world):
            answer = await browser.post("/connect/tokens", hx=hx, **fields)
        assert answer.status_code == 422
        assert "No access token was made" in words(answer.text)


CHANGES: dict[str, tuple[Role, dict[str, str]]] = {
    f"{PAGE}/share": (Role.OPERATOR, {"percentage": "10", "seen": "2", "confirm": "yes"}),
    f"{PAGE}/enabled": (Role.OPERATOR, {"enabled": "no", "seen": "2", "confirm": "yes"}),
    f"{PAGE}/kill": (Role.OPERATOR, {}),
    f"{PAGE}/restore": (Role.OPERATOR, {}),
    f"{PAGE}/overrides": (Role.OPERATOR, {"user": "u", "variant": "on"}),
    f"{PAGE}/overrides/remove": (Role.OPERATOR, {"user": "u"}),
    "/connect/tokens": (Role.ADMIN, {"name": "n", "role": "evaluate"}),
    "/connect/tokens/x/revoke": (Role.ADMIN, {}),
}


@BOTH
@pytest.mark.parametrize("path", list(CHANGES))
async def test_a_role_that_does_not_reach_changes_nothing_and_is_told(world: World, hx: bool, path: str) -> None:
    needed, fields = CHANGES[path]
    below = {Role.OPERATOR: Role.VIEWER, Role.ADMIN: Role.OPERATOR}[needed]
    browser = a_browser(world, below)
    with nothing_changes(world):
        answer = await browser.post(path, hx=hx, **fields)
    assert answer.status_code == 403
    assert f"This needs the role {needed}; you have {below}" in words(answer.text)


@BOTH
@pytest.mark.parametrize("path", [*CHANGES, "/sign-out"])
async def test_a_form_without_the_sessions_own_token_or_from_elsewhere_changes_nothing(
    world: World, hx: bool, path: str
) -> None:
    browser, other = a_browser(world), a_browser(world)
    fields = CHANGES.get(path, (None, {}))[1]
    elsewhere = {"Origin": "https://evil.test", "Accept": "text/html"}
    with nothing_changes(world):
        for token in ("", other.csrf, "é"):
            answer = await browser.client.post(path, data={**fields, "csrf": token}, headers={"Origin": OURS})
            assert answer.status_code == 403
        foreign = await browser.client.post(path, data={**fields, "csrf": browser.csrf}, headers=elsewhere)
        sent = await browser.client.post(
            path, data={**fields, "csrf": browser.csrf}, headers={"Sec-Fetch-Site": "cross-site"}
        )
        opaque = await browser.client.post(path, data={**fields, "csrf": browser.csrf}, headers={"Origin": "null"})
    assert foreign.status_code == sent.status_code == opaque.status_code == 403
    assert "came from another site" in words(foreign.text)
    assert hx in {True, False}


async def test_a_flag_nobody_made_is_not_found_by_any_form(world: World) -> None:
    browser = a_browser(world)
    for path, (_, fields) in CHANGES.items():
        if path.startswith(PAGE):
            with nothing_changes(world):
                answer = await browser.post(path.replace(MAIN_FLAG, "nothing"), hx=False, **fields)
            assert answer.status_code == 404, path
