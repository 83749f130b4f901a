"""What the pages show."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rollout.client.holder import Holder
from rollout.client.killfile import KillFile
from rollout.control.flags import FlagChange, change_flag, kill, set_override
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.domain.local import LocalOverrides
from rollout.domain.roles import Role
from rollout.gateway.progress import InstallPhase, InstallProgress
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.http.app import assemble
from rollout.http.plane import Plane
from rollout.settings import Settings
from tests.http.api_support import World, a_world, completions
from tests.http.pages_support import PAGE, Browser, Tags, a_browser, is_whole, words

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _share(world: World, share: int, *, enabled: bool | None = None) -> None:
    change_flag(world.door, MAIN_FLAG, FlagChange(enabled, share), actor="ben", reason="because")
    world.plane.refresh()


async def _words(world: World, path: str = PAGE) -> str:
    answer = await a_browser(world).get(path)
    assert answer.status_code == 200, answer.text
    return words(answer.text)


async def test_the_start_page_is_the_flags_page(world: World) -> None:
    answer = await a_browser(world).get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)


@pytest.mark.parametrize(
    ("share", "more", "mode", "sentence"),
    [
        (0, {}, "nobody", "Users go direct to OpenRouter; nobody through LiteLLM"),
        (12_500, {}, "some", "12.5 % of users go through LiteLLM"),
        (100_000, {}, "all", "100 % of users go through LiteLLM"),
        (12_500, {"enabled": False}, "disabled", "Users go direct to OpenRouter"),
    ],
)
async def test_the_state_is_a_sentence_and_each_state_looks_its_own_way(
    world: World, share: int, more: dict[str, bool], mode: str, sentence: str
) -> None:
    _share(world, share, **more)
    for path in (PAGE, "/audit", "/gateway", "/connect"):
        answer = await a_browser(world).get(path)
        assert f'data-mode="{mode}"' in answer.text
        assert sentence in words(answer.text)


async def test_a_killed_flag_says_who_when_and_why_and_offers_its_way_back(world: World) -> None:
    _share(world, 12_500)
    kill(world.door, MAIN_FLAG, actor="anna", reason="garbled answers")
    answer = await a_browser(world).get(PAGE)
    said = words(answer.text)
    assert 'data-mode="stopped"' in answer.text
    assert "Stopped by anna just now : garbled answers . Restoring brings back 12.5 %." in said
    assert "Restore now" in said
    assert "Stop now" not in said
    assert "<title>STOPPED" in answer.text


async def test_a_gateway_that_does_not_serve_those_sent_to_it_is_said_in_the_band(world: World) -> None:
    world.gateway = GatewayState(GatewayPhase.UNWELL, "stopped answering", 0.0)
    assert "requests sent to it are answered directly" not in await _words(world)
    _share(world, 10_000)
    assert "The gateway is unwell: requests sent to it are answered directly" in await _words(world)


@pytest.mark.parametrize("phase", list(GatewayPhase))
async def test_every_phase_of_the_gateway_has_a_page(world: World, phase: GatewayPhase) -> None:
    world.gateway = GatewayState(phase, f"detail of {phase}", 0.0, install=None, last_error="it broke")
    said = await _words(world, "/gateway")
    assert f"detail of {phase}" in said
    assert "it broke" in said


async def test_an_installation_shows_how_far_it_is(world: World) -> None:
    progress = InstallProgress(InstallPhase.DOWNLOADING, 34, 120, "downloading a wheel")
    world.gateway = GatewayState(GatewayPhase.INSTALLING, "being installed", 0.0, install=progress)
    answer = await a_browser(world).get("/gateway")
    assert "34 of 120 packages" in words(answer.text)
    assert ("progress", {"id": "installing", "value": "34", "max": "120"}) in Tags(answer.text).tags


async def test_the_cascade_says_how_each_model_is_listed(world: World) -> None:
    said = await _words(world, "/gateway")
    assert "first/model:free ✓ free" in said
    assert "second/model:free ▲ not free" in said
    world.upstream = replace(world.upstream, models=world.upstream.models[:1])
    assert "second/model:free ▲ not listed by the upstream" in await _words(world, "/gateway")
    world.upstream = replace(world.upstream, models=(), checked_at=None)
    assert "listing not known yet" in await _words(world, "/gateway")


async def test_an_upstreams_address_is_shown_without_a_password_in_it(world: World) -> None:
    world.upstream = replace(world.upstream, base_url="https://user:hunter2@upstream.test/v1", simulated=False)
    answer = await a_browser(world).get("/gateway")
    assert "https://upstream.test/v1" in answer.text
    assert "hunter2" not in answer.text
    assert "Simulator:" not in words(answer.text)


async def test_what_everybody_should_know_stands_on_every_page(world: World) -> None:
    for path in (PAGE, "/audit", "/audit/verify", "/gateway", "/connect"):
        said = await _words(world, path)
        assert "Simulator: no real model answers" in said


async def test_without_its_database_a_page_says_how_to_stop_all_the_same(world: World) -> None:
    browser = a_browser(world)
    world.path.rename(world.path.with_suffix(".away"))
    answer = await browser.get(PAGE)
    assert answer.status_code == 503
    assert "touch data/kill" in words(answer.text)
    assert is_whole(answer)


def _with(world: World, holder: Holder) -> World:
    plane = Plane(world.door, Settings(), holder, gateway=lambda: world.gateway, upstream=lambda: world.upstream)
    plane.refresh()
    return replace(world, plane=plane, app=assemble(plane, completions))


async def test_a_process_overridden_by_its_environment_says_what_it_does_instead(world: World) -> None:
    local = LocalOverrides(share=50_000, enabled=False, force_users=frozenset({"a", "b"}), problems=("X is odd",))
    said = await _words(_with(world, Holder(local)))
    assert "share 50 % (LITELLM_ROLLOUT_PERCENTAGE)" in said
    assert "disabled (LITELLM_ENABLED)" in said
    assert "2 users forced on (LITELLM_FORCE_USERS)" in said
    assert "X is odd" in said
    asked = await _words(_with(world, Holder(local)), f"{PAGE}/why?user=a")
    assert "This process decides otherwise" in asked
    assert "forced on by LITELLM_FORCE_USERS" in asked


async def test_a_process_killed_by_its_environment_or_a_file_looks_stopped(world: World, tmp_path: Path) -> None:
    file = tmp_path / "kill"
    file.touch()
    for holder in (Holder(LocalOverrides(killed=True)), Holder(kill_file=KillFile(file))):
        answer = await a_browser(_with(world, holder)).get(PAGE)
        assert 'data-mode="stopped-here"' in answer.text
        assert "no page can lift that" in words(answer.text)
        assert "STOP: all direct" in words(answer.text)


async def test_what_would_a_user_get_names_path_bucket_and_reason(world: World) -> None:
    _share(world, 50_000)
    said = await _words(world, f"{PAGE}/why?user=user-99")
    assert "user-99 → ● openrouter because bucket 75,091 of 100,000 is not below 50,000 (share 50 %)" in said
    assert "goes through LiteLLM from 75.092 % on" in said
    nobody = await _words(world, f"{PAGE}/why?user=")
    assert "Nobody in particular" in nobody
    assert "never flips between paths" in nobody


@pytest.mark.parametrize(
    ("arrange", "expected"),
    [
        (lambda w: kill(w.door, MAIN_FLAG, actor="a"), "the kill switch is on"),
        (lambda w: _share(w, 0, enabled=False), "the flag is disabled"),
        (lambda w: _share(w, 0), "the share is 0 %, so everybody"),
        (lambda w: _share(w, 100_000), "the share is 100 %, so everybody"),
        (
            lambda w: set_override(w.door, MAIN_FLAG, "u", Variant.OFF, actor="a", reason="is special"),
            "this user is forced off: is special",
        ),
    ],
)
async def test_every_cause_is_said_in_words(world: World, arrange: object, expected: str) -> None:
    arrange(world)  # type: ignore[operator]  # a function of the world
    world.plane.refresh()
    assert expected in await _words(world, f"{PAGE}/why?user=u")


async def test_asking_about_an_endless_user_id_is_refused(world: World) -> None:
    answer = await a_browser(world).get(f"{PAGE}/why?user={'x' * 10_001}")
    assert answer.status_code == 422
    assert is_whole(answer)


async def test_an_override_that_ran_out_is_shown_as_expired_and_not_counted(world: World, tmp_path: Path) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=300)
    set_override(world.door, MAIN_FLAG, "late", Variant.ON, actor="a", expires_at=soon)
    set_override(world.door, MAIN_FLAG, "there", Variant.ON, actor="a")
    later = replace(world.door, clock=lambda: datetime.now(UTC) + timedelta(hours=1))
    plane = Plane(later, Settings(), world.plane.holder, gateway=lambda: world.gateway, upstream=lambda: world.upstream)
    said = await _words(replace(world, plane=plane, app=assemble(plane, completions), door=later))
    assert "late ◆ on expired 59 min ago" in said
    assert "only 1 forced user through LiteLLM" in said


async def test_overrides_are_found_by_id_or_reason_and_only_so_many_are_listed(world: World) -> None:
    for number in range(103):
        set_override(world.door, MAIN_FLAG, f"user-{number:03}", Variant.ON, actor="a", reason=f"reason {number}")
    said = await _words(world)
    assert "103 forced users ; the newest 10 are shown" in said.replace("users;", "users ;")
    found = await a_browser(world).get(f"{PAGE}/overrides?q=USER-042", hx=True)
    assert not is_whole(found)
    assert "1 forced user found for" in words(found.text)
    assert "user-041" not in found.text
    assert "user-042" in found.text
    assert "reason 7 " in words((await a_browser(world).get(f"{PAGE}/overrides?q=reason 7")).text)
    none = await a_browser(world).get(f"{PAGE}/overrides?q=nobody-like-this")
    assert "No forced user matches" in words(none.text)


async def test_what_people_typed_is_never_markup(world: World) -> None:
    evil = EVIL[:200]
    set_override(world.door, MAIN_FLAG, evil, Variant.ON, actor="anna", reason=evil)
    change_flag(world.door, MAIN_FLAG, FlagChange(share=1000, description=evil), actor="b", reason=evil)
    kill(world.door, MAIN_FLAG, actor="<i>eve</i>", reason=evil)
    world.plane.refresh()
    browser = a_browser(world)
    quoted = "%3Cscript%3Ealert(1)%3C/script%3E%22%27%3E"
    paths = (
        PAGE,
        f"{PAGE}/why?user={quoted}",
        f"{PAGE}/overrides?q={quoted}",
        f"{PAGE}/preview?percentage={quoted}",
        "/audit",
        f"/audit?actor={quoted}&user={quoted}&subject={quoted}&action={quoted}&since={quoted}",
        "/connect",
        f"/sign-in?next={quoted}",
        f"/flags/{quoted}",
        f"/{quoted}",
    )
    for path in paths:
        answer = await browser.get(path)
        for tag, attributes in Tags(answer.text).tags:
            assert tag not in {"img", "i"}, path
            assert tag != "script" or set(attributes) <= {"src", "integrity", "defer"}, path
            assert not any(name.startswith("on") for name in attributes), path


async def test_the_audit_log_reads_as_sentences_and_filters(world: World) -> None:
    _share(world, 10_000)
    set_override(world.door, MAIN_FLAG, "user-42", Variant.ON, actor="anna", reason="tester")
    everything = await _words(world, "/audit")
    assert "ben set enableLiteLLM from 0 % to 10 %" in everything
    assert "percentage 0 % 10 %" in everything  # field, before, after
    assert '"previous_digest"' in everything
    for query, there, absent in (
        ("actor=anna", "forced user-42 on", "from 0 % to 10 %"),
        ("action=flag:", "from 0 % to 10 %", "forced user-42"),
        ("user=user-42", "forced user-42 on", "from 0 % to 10 %"),
        ("subject=cascade", "set the cascade", "forced user-42"),
        ("since=2100-01-01T00:00", "No entry matches", "forced user-42"),
        ("until=2000-01-01T00:00", "No entry matches", "forced user-42"),
    ):
        said = await _words(world, f"/audit?{query}")
        assert there in said, query
        assert absent not in said, query


async def test_a_filter_that_cannot_be_read_is_said_and_lists_nothing(world: World) -> None:
    for query in ("since=yesterday", "before=x", "until=2026-13-01"):
        answer = await a_browser(world).get(f"/audit?{query}")
        assert answer.status_code == 422
        assert "Nothing was listed" in words(answer.text)


async def test_the_log_is_paged_and_a_page_more_is_a_fragment(world: World) -> None:
    for number in range(60):
        _share(world, 1 + number)
    browser = a_browser(world)
    first = await browser.get("/audit?action=flag:percentage:set")
    assert first.text.count('<li id="r') == 50
    older = next(a["href"] for tag, a in Tags(first.text).tags if tag == "a" and "before=" in (a.get("href") or ""))
    assert older is not None
    assert "action=flag" in older
    whole, piece = await browser.get(older), await browser.get(older, hx=True)
    assert is_whole(whole)
    assert not is_whole(piece)
    assert whole.text.count('<li id="r') == piece.text.count('<li id="r') == 10


async def test_verifying_says_unbroken_or_where_it_breaks(world: World) -> None:
    assert "Unbroken. All" in await _words(world, "/audit/verify")


async def test_a_page_that_is_not_there_says_so_in_html(world: World) -> None:
    for path in ("/flags/nothing", "/nothing", "/flags/nothing/band", "/connect/nothing"):
        answer = await a_browser(world).get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert "There is no such" in words(answer.text)


async def test_a_viewer_sees_everything_and_every_control_is_off_with_the_reason(world: World) -> None:
    browser = a_browser(world, Role.VIEWER)
    answer = await browser.get(PAGE)
    said = words(answer.text)
    assert "needs the role operator" in said
    assert "changes need the role operator" in said
    assert "Stop now" not in said
    assert answer.text.count("<fieldset disabled>") == 2
    connect = words((await browser.get("/connect")).text)
    assert "Making and revoking access tokens needs the role admin; yours is viewer" in connect


async def test_a_program_with_only_evaluate_sees_no_page(world: World) -> None:
    answer = await a_browser(world, Role.EVALUATE).get(PAGE)
    assert answer.status_code == 403
    assert "needs the role viewer" in words(answer.text)


async def test_connecting_shows_this_servers_own_address(world: World) -> None:
    said = await _words(world, "/connect")
    for line in (
        "export ROLLOUT_URL=http://127.0.0.1:8080",
        'base_url="http://127.0.0.1:8080/v1"',
        'baseURL: "http://127.0.0.1:8080/v1"',
        "curl -i http://127.0.0.1:8080/v1/chat/completions",
        "from rollout import invoke_llm",
        "invoke_llm = wrap(my_old_invoke_llm)",
        'model="first/model:free"',
    ):
        assert line in said


async def test_polling_answers_nothing_while_nothing_changed(world: World) -> None:
    browser = a_browser(world)
    for turn, template in enumerate(("band", "traffic", "preflight", "changes", "stop", "why?user=user-99")):
        first = await browser.get(f"{PAGE}/{template}", hx=True)
        again = _own_poll(first.text)
        assert again is not None
        assert (await browser.get(again, hx=True)).status_code == 204
        await _moves(world, browser, again, share=1000 + turn)


async def _moves(world: World, browser: Browser, again: str, *, share: int) -> None:
    _share(world, share)
    world.down()
    moved = await browser.get(again, hx=True)
    assert moved.status_code == 200
    world.gateway = GatewayState(GatewayPhase.HEALTHY, "healthy", 0.0, answering=True)


def _own_poll(html: str) -> str | None:
    polling = (attributes for _, attributes in Tags(html).tags if "every" in (attributes.get("hx-trigger") or ""))
    return next(attributes["hx-get"] for attributes in polling)


async def test_an_open_page_hears_that_it_is_stale_and_that_somebody_stopped(world: World) -> None:
    browser = a_browser(world)
    assert (await browser.get(f"{PAGE}/meanwhile?seen=2", hx=True)).status_code == 204
    _share(world, 10_000)
    kill(world.door, MAIN_FLAG, actor="anna")
    assert "▲ The flag was changed meanwhile: it stands at 10 %" in words(
        (await browser.get(f"{PAGE}/meanwhile?seen=2", hx=True)).text
    )
    stopped = await browser.get(f"{PAGE}/stop?was=running", hx=True)
    assert 'hx-swap-oob="innerHTML:#announce"' in stopped.text
    assert "STOPPED: Everybody goes direct" in words(stopped.text)


async def test_the_stops_question_follows_the_share_without_a_word_to_listeners(world: World) -> None:
    _share(world, 10_000)
    browser = a_browser(world)
    shown = _own_poll((await browser.get(f"{PAGE}/stop", hx=True)).text)
    assert shown is not None
    _share(world, 20_000)
    moved = await browser.get(shown, hx=True)
    assert "20 % of users leave the gateway." in words(moved.text)
    assert "announce" not in moved.text
    again = _own_poll(moved.text)
    assert again is not None
    kill(world.door, MAIN_FLAG, actor="anna")
    stopped = await browser.get(again, hx=True)
    assert "announce" in stopped.text
    shown = _own_poll(stopped.text)
    assert shown is not None
    assert (await browser.get(shown, hx=True)).status_code == 204, "said once"


async def test_the_questions_speak_of_forced_users_only_where_there_are_some(world: World) -> None:
    _share(world, 10_000)
    stop = words((await a_browser(world).get(f"{PAGE}/stop")).text)
    assert "10 % of users leave the gateway. Share, forced users and reasons are kept." in stop
    kill(world.door, MAIN_FLAG, actor="anna")
    assert "0 forced users" not in words((await a_browser(world).get(f"{PAGE}/stop")).text)
    set_override(world.door, MAIN_FLAG, "u", Variant.ON, actor="a")
    assert "1 forced user on the gateway again." in words((await a_browser(world).get(f"{PAGE}/stop")).text)


async def test_a_percentage_never_parts_from_its_sign(world: World) -> None:
    _share(world, 12_500)
    for path in (PAGE, f"{PAGE}/why?user=user-99", f"{PAGE}/stop", f"{PAGE}/preview?percentage=13"):
        assert not re.search(r"\d %", (await a_browser(world).get(path)).text), path


async def test_forms_that_ask_come_back_to_where_they_stand(world: World) -> None:
    set_override(world.door, MAIN_FLAG, "u", Variant.ON, actor="a")
    tags = Tags((await a_browser(world).get(PAGE)).text).tags
    asking = {a.get("action") for tag, a in tags if tag == "form" and a.get("method") == "get"}
    assert asking == {f"{PAGE}/why#h-why", f"{PAGE}/overrides#forced"}


async def test_a_refusal_ends_with_one_full_stop(world: World) -> None:
    browser = a_browser(world)
    for path, fields in (
        (f"{PAGE}/share", {"percentage": "abc", "seen": "2"}),
        (f"{PAGE}/overrides", {"user": ""}),
        ("/gateway/cascade", {"models": "", "seen": "3"}),
        ("/connect/tokens", {"name": ""}),
    ):
        said = words((await browser.post(path, hx=False, **fields)).text)
        refusal = said[said.index("▲") :]
        assert ".." not in refusal, path
        assert ". ." not in refusal, path
    said = words((await browser.post(f"{PAGE}/share", percentage="abc", seen="2")).text)
    assert "That value cannot be stored. The share must be a number from 0 to 100, not 'abc'." in said
