"""What goes wrong on a path is said where people look first: in the band, below the path, in a loud notice."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rollout.control.flags import FlagChange, change_flag, kill, set_override
from rollout.domain.failure import FailureKind
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.domain.flag import Path as Where
from rollout.gateway.upstream import UpstreamPhase
from rollout.http.pages.health import PathView, Tone
from rollout.http.pages.words import kind_in_words
from rollout.resilience.gate import Gate
from tests.http.api_support import MODELS, World, a_gate, a_world, trip
from tests.http.pages_support import PAGE, a_browser, words

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DIRECT = "The direct path is failing: unreachable, 8 in a row; whoever it should answer gets an error"
GATEWAY = "The gateway's path is failing: unreachable, 4 in a row;"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path, clock=lambda: NOON, gate=a_gate(wall=NOON.timestamp)) as world:
        yield world


def gate_of(world: World) -> Gate:
    assert world.plane.gate is not None
    return world.plane.gate


def _share(world: World, share: int) -> None:
    change_flag(world.door, MAIN_FLAG, FlagChange(share=share), actor="ben")
    world.plane.refresh()


async def _html(world: World, path: str = PAGE) -> str:
    return (await a_browser(world).get(path)).text


def _loud(html: str) -> list[str]:
    return [words(one) for one in re.findall(r'<li class="loud".*?</li>', html, re.DOTALL)]


async def test_both_paths_say_how_they_are(world: World) -> None:
    said = words(await _html(world))
    assert "Direct answers · Gateway healthy" in said
    assert "✓ answers asked" in said
    assert "✓ healthy for" in said


async def test_a_direct_path_that_fails_is_said_in_the_band_below_it_and_loudly_on_every_page(world: World) -> None:
    _share(world, 15_000)
    trip(gate_of(world), FailureKind.UNREACHABLE, Where.OPENROUTER)
    for path in (PAGE, "/audit", "/gateway", "/connect"):
        html = await _html(world, path)
        assert "▲ The direct path is failing: requests on it end in an error." in words(html)
        assert [DIRECT in one for one in _loud(html)] == [True]
        assert "Gateway healthy" not in words(html), "nothing looks well"
    assert "▲ failing: unreachable, 8 in a row" in words(await _html(world))


async def test_a_stopped_flag_says_that_the_path_everybody_takes_fails(world: World) -> None:
    trip(gate_of(world), FailureKind.UNREACHABLE, Where.OPENROUTER)
    kill(world.door, MAIN_FLAG, actor="anna", reason="now")
    said = words(await _html(world))
    assert "Restoring brings back 0 %. ▲ The direct path is failing: requests on it end in an error." in said


async def test_with_both_paths_failing_nobody_is_said_to_be_answered(world: World) -> None:
    _share(world, 15_000)
    trip(gate_of(world), FailureKind.UNREACHABLE, Where.OPENROUTER)
    trip(gate_of(world), FailureKind.UNREACHABLE)
    html = await _html(world)
    assert "▲ The gateway is failing: requests on it find no other way." in words(html)
    assert "answered directly" not in words(html)
    assert len(_loud(html)) == 2


async def test_a_gateways_path_that_fails_is_a_notice_only_while_somebody_is_sent_there(world: World) -> None:
    trip(gate_of(world), FailureKind.UNREACHABLE)
    assert _loud(await _html(world)) == [], "with nobody on it nobody tries it, and it would be said for ever"
    set_override(world.door, MAIN_FLAG, "tester", Variant.ON, actor="a")
    world.plane.refresh()
    html = await _html(world)
    assert [GATEWAY in one for one in _loud(html)] == [True]
    assert "▲ The gateway is failing: requests sent to it are answered directly until it is back." in words(html)
    kill(world.door, MAIN_FLAG, actor="a")
    world.plane.refresh()
    assert _loud(await _html(world)) == []


async def test_nobody_is_said_to_be_answered_directly_while_the_upstream_cannot_be_used(world: World) -> None:
    trip(gate_of(world), FailureKind.UNREACHABLE)
    set_override(world.door, MAIN_FLAG, "tester", Variant.ON, actor="a")
    world.plane.refresh()
    world.upstream = replace(world.upstream, phase=UpstreamPhase.UNREACHABLE, detail="does not answer")
    html = await _html(world)
    assert "the direct path, which would help, fails too" in _loud(html)[0]
    assert "answered directly" not in words(html)


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("server_error", "server error"),
        ("the gateway at LITELLM_BASE_URL does not answer", "the gateway at LITELLM_BASE_URL does not answer"),
    ],
)
def test_a_kind_of_failure_is_written_in_words_and_a_variable_as_it_is_called(why: str, said: str) -> None:
    assert kind_in_words(why) == said


async def test_a_path_whose_every_model_rests_fails_too(world: World) -> None:
    trip(gate_of(world), FailureKind.EMPTY, Where.OPENROUTER, MODELS[0])
    assert _loud(await _html(world)) == []
    trip(gate_of(world), FailureKind.EMPTY, Where.OPENROUTER, MODELS[1])
    (loud,) = _loud(await _html(world))
    assert "The direct path is failing: all its 2 models rest; the first: empty, 4 in a row;" in loud


async def test_an_upstream_that_cannot_be_used_is_said_below_the_direct_path(world: World) -> None:
    world.upstream = replace(world.upstream, phase=UpstreamPhase.UNREACHABLE, detail="does not answer")
    said = words(await _html(world))
    assert "▲ not usable: does not answer" in said
    assert "▲ The direct path is not usable: requests on it end in an error." in said


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("healthy", "is healthy"),
        ("does not answer", "does not answer"),
        ("answers, but 1 of its 2 models rests", "answers, but 1 of its 2 models rests"),
    ],
)
def test_a_paths_word_makes_a_sentence_with_its_subject(word: str, said: str) -> None:
    assert PathView(word, Tone.GOOD).state == said


async def test_a_daily_cap_is_loud_and_neither_path_looks_well(world: World) -> None:
    _share(world, 15_000)
    trip(gate_of(world), FailureKind.DAY_CAP, Where.OPENROUTER)
    html = await _html(world)
    (loud,) = _loud(html)
    assert loud.startswith("▲ Daily cap: the account's free requests of today are used up")
    said = words(html)
    assert "▲ The account's free requests of today are used up: nothing is sent on either path." in said
    assert said.count("▲ capped: today's free requests are used up") == 2


async def test_a_minute_cap_is_told_from_a_daily_one(world: World) -> None:
    trip(gate_of(world), FailureKind.MINUTE_CAP, Where.OPENROUTER)
    html = await _html(world, "/gateway")
    (loud,) = _loud(html)
    assert loud.startswith("▲ Minute cap: the upstream takes no more free requests this minute;")
    said = words(html)
    assert "The upstream's minute cap: nothing is sent until 2026-11-22 12:01:00 UTC" in said
    assert "Used up for today" not in said


async def test_commands_in_a_message_are_code_and_no_backticks(world: World) -> None:
    _share(world, 15_000)
    trip(gate_of(world), FailureKind.UNREACHABLE)
    html = await _html(world)
    assert "<code>rollout gateway reset litellm</code>" in html
    assert "`" not in words(html)
