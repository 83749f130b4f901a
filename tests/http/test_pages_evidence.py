"""What the pages and the preflight say of recent traffic, of ages, and first of an outage."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rollout.cli.serving import Deciding
from rollout.control.flags import FlagChange, change_flag, kill, set_override
from rollout.control.installation import set_cascade
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.dispatch.recent import Recent
from rollout.domain.cascade import ListedModel
from rollout.domain.failure import FailureKind
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.domain.flag import Path as Where
from rollout.domain.roles import Role
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.resilience.gate import Gate
from rollout.settings import Upstreams
from rollout.simulator import World as Simulated
from rollout.simulator import running
from rollout.simulator.models import DEFAULT_MODELS, WITHDRAWN_TODAY
from tests.dispatch.test_recent import an_exchange
from tests.http.api_support import FLAG, MODELS, World, a_gate, a_world, trip
from tests.http.pages_support import PAGE, a_browser, words

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
WELL = "✓ Preflight: nothing speaks against raising the share"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path, gate=a_gate(per_minute=10_000, per_day=None)) as world:
        yield world


def gate_of(world: World) -> Gate:
    assert world.plane.gate is not None
    return world.plane.gate


def _share(world: World, share: int) -> None:
    change_flag(world.door, MAIN_FLAG, FlagChange(share=share), actor="ben")
    world.plane.refresh()


async def _words(world: World, path: str = PAGE) -> str:
    return words((await a_browser(world).get(path)).text)


def _requests(world: World, count: int, path: Where, *, served_by: Where | None, seconds: float = 0.05) -> None:
    failure = None if served_by else FailureKind.SERVER_ERROR
    for _ in range(count):
        world.plane.observe(an_exchange(path, served_by=served_by, failure=failure, seconds=seconds))


async def test_a_tick_needs_requests_that_went_well(world: World) -> None:
    assert "? Preflight: not enough is known" in await _words(world)
    _requests(world, 12, Where.LITELLM, served_by=Where.LITELLM)
    said = await _words(world)
    assert "? Preflight: not enough is known" in said
    assert "nothing is there to compare that with" in said
    _requests(world, 20, Where.OPENROUTER, served_by=Where.OPENROUTER)
    said = await _words(world)
    assert f"{WELL}: of 12 requests through the gateway in the last 5 min 0 were rescued and 0 failed" in said
    assert "✓ Nothing speaks against raising the share" in await _words(world, "/gateway")


async def test_every_third_request_that_is_rescued_speaks_against_raising(world: World) -> None:
    _requests(world, 20, Where.OPENROUTER, served_by=Where.OPENROUTER)
    for _ in range(10):
        _requests(world, 2, Where.LITELLM, served_by=Where.LITELLM)
        _requests(world, 1, Where.LITELLM, served_by=Where.OPENROUTER)
    said = await _words(world)
    assert "10 of 30 requests of the last 5 min were rescued on the gateway's path; the limit is 10 %" in said
    assert WELL not in said
    async with world.client() as client:
        etag = (await client.get(FLAG)).headers["etag"]
        refused = await client.patch(FLAG, json={"percentage": 50}, headers={"If-Match": etag})
        assert refused.status_code == 409
        assert "were rescued" in refused.text
        assert (await client.get("/health")).json()["status"] == "degraded"


@pytest.mark.parametrize("compared", ["with the direct path", "with what they were before"])
async def test_answers_that_take_seconds_longer_speak_against_raising(world: World, compared: str) -> None:
    if compared == "with the direct path":
        _requests(world, 10, Where.OPENROUTER, served_by=Where.OPENROUTER, seconds=0.04)
    else:
        _requests(world, 10, Where.LITELLM, served_by=Where.LITELLM, seconds=0.04)
    _requests(world, 10, Where.LITELLM, served_by=Where.LITELLM, seconds=3.0)
    said = await _words(world)
    assert "answers through the gateway take 3 s" in said
    assert "the limit is 0.5 s more" in said
    assert WELL not in said


async def test_a_cascade_of_models_that_nobody_lists_speaks_against_raising(world: World) -> None:
    set_cascade(world.door, ("nobody/lists-this:free",), actor="ben", seen=None)
    world.plane.refresh()
    assert "the upstream lists no model of the cascade as free (nobody/lists-this:free)" in await _words(world)
    world.upstream = replace(world.upstream, models=(ListedModel("nobody/lists-this:free", free=True),))
    assert "the upstream lists no model" not in await _words(world)


async def test_a_stopped_flag_gets_no_tick(world: World) -> None:
    for path in (Where.LITELLM, Where.OPENROUTER):
        _requests(world, 20, path, served_by=path)
    assert WELL in await _words(world)
    kill(world.door, MAIN_FLAG, actor="ben")
    world.plane.refresh()
    said = await _words(world)
    assert WELL not in said
    assert "? Preflight: the flag is stopped: a higher share moves nobody until it is restored." in said


async def test_an_outage_stands_before_the_share(world: World) -> None:
    _share(world, 10_000)
    assert "10 % of users go through LiteLLM" in await _words(world)
    trip(gate_of(world), FailureKind.UNREACHABLE)
    trip(gate_of(world), FailureKind.UNREACHABLE, Where.OPENROUTER)
    band = words((await a_browser(world).get(f"{PAGE}/band", hx=True)).text)
    assert band.index("Requests end in an error: both paths fail") < band.index("10 % of users go through LiteLLM")


async def test_a_few_errors_in_a_row_are_an_outage_too(world: World) -> None:
    _share(world, 10_000)
    _requests(world, 3, Where.OPENROUTER, served_by=None)
    band = words((await a_browser(world).get(f"{PAGE}/band", hx=True)).text)
    assert "Direct requests end in an error: the direct path is failing" in band
    _requests(world, 10, Where.OPENROUTER, served_by=Where.OPENROUTER)
    assert "end in an error" not in words((await a_browser(world).get(f"{PAGE}/band", hx=True)).text)


async def test_a_days_cap_stands_before_the_share(tmp_path: Path) -> None:
    with a_world(tmp_path, gate=a_gate()) as world:
        _share(world, 10_000)
        trip(gate_of(world), FailureKind.DAY_CAP, Where.OPENROUTER)
        band = words((await a_browser(world).get(f"{PAGE}/band", hx=True)).text)
    assert "▲ No request is answered: today's free requests are used up" in band


@pytest.mark.parametrize("direct_fails", [False, True])
async def test_the_stop_warns_if_the_direct_path_is_the_one_that_fails(world: World, *, direct_fails: bool) -> None:
    _share(world, 10_000)
    if direct_fails:
        trip(gate_of(world), FailureKind.UNREACHABLE, Where.OPENROUTER)
    for path, hx in ((f"{PAGE}/stop", True), (f"{PAGE}/stop", False)):
        said = words((await a_browser(world).get(path, hx=hx)).text)
        warned = "The direct path is failing: unreachable, 8 in a row . Everybody would be sent there"
        assert (warned in said.replace("row.", "row .")) is direct_fails


async def test_an_alarm_says_when_its_cause_was_last_seen(tmp_path: Path) -> None:
    recent = Recent(lambda: NOON.timestamp() - 240)
    with a_world(tmp_path, clock=lambda: NOON, gate=a_gate(wall=NOON.timestamp), recent=recent) as world:
        trip(gate_of(world), FailureKind.UNREACHABLE, Where.OPENROUTER)
        _requests(world, 1, Where.OPENROUTER, served_by=None)
        said = await _words(world)
    assert "It is tried again every few seconds, last seen 4 min ago" in said
    assert "▲ failing: unreachable, 8 in a row, last seen 4 min ago" in said


async def test_a_gateway_that_was_killed_reads_crashed_and_its_last_error_has_a_time(tmp_path: Path) -> None:
    with a_world(tmp_path, clock=lambda: NOON, gate=a_gate()) as world:
        at = NOON.timestamp() - 20
        world.gateway = GatewayState(
            GatewayPhase.STARTING, "LiteLLM is starting", at + 1, restarts=1, last_error="ended (SIGKILL)",
            last_error_at=at,
        )  # fmt: skip
        said = await _words(world, "/gateway")
        assert "▲ crashed, starting again : ended (SIGKILL)" in said.replace("again:", "again :")
        assert "Last error ended (SIGKILL), 20 s ago" in said
        world.gateway = replace(world.gateway, phase=GatewayPhase.RESTARTING)
        assert "▲ crashed" in await _words(world, "/gateway")
        world.gateway = GatewayState(GatewayPhase.STARTING, "LiteLLM is starting", at)
        assert "… starting" in await _words(world, "/gateway"), "a first start is none"


async def test_a_gateway_that_does_not_answer_is_not_healthy_and_nothing_is_above_open_breakers(world: World) -> None:
    world.gateway = replace(world.gateway, answering=False, detail="LiteLLM left 1 question for its health unanswered")
    for path in (PAGE, "/gateway"):
        said = await _words(world, path)
        assert "▲ does not answer" in said
        assert "✓ healthy" not in said
        assert "Gateway healthy" not in said
    world.gateway = GatewayState(GatewayPhase.HEALTHY, "LiteLLM answers", 0.0, answering=True)
    trip(gate_of(world), FailureKind.EMPTY, model=MODELS[0])
    assert "◐ healthy, but 1 of its 2 models rests" in await _words(world, "/gateway")
    trip(gate_of(world), FailureKind.UNREACHABLE)
    assert "✓ healthy" not in await _words(world, "/gateway")


async def test_real_requests_are_noted_and_the_connect_page_says_when_a_tokens_first_answer_came(world: World) -> None:
    with running(Simulated()) as url:
        models = [
            model.id for model in DEFAULT_MODELS if model.id.endswith(":free") and model.id not in WITHDRAWN_TODAY
        ]
        set_cascade(world.door, models[:2], actor="ben", seen=None)
        set_override(world.door, MAIN_FLAG, "tester", Variant.ON, actor="ben")
        world.plane.refresh()
        gone = Upstreams(litellm_url="http://127.0.0.1:9", litellm_key="k", openrouter_url=url, openrouter_key="k")
        dispatcher = Dispatcher(Deciding(world.plane.holder, gone), observe=world.plane.observe, gate=world.plane.gate)
        app = CompletionsApp(dispatcher, world.plane.may_send)
        token = world.plane.token_of(world.secrets[Role.EVALUATE])
        assert token is not None
        first = f"/connect/tokens/{token.id}/first"
        browser = a_browser(world)
        assert "First request just now" in words((await browser.get(first, hx=True)).text)
        async with world.client(Role.EVALUATE, app=app) as client:
            for _ in range(12):
                body = {"model": models[0], "messages": [{"role": "user", "content": "Hej"}], "user": "tester"}
                answer = await client.post("/v1/chat/completions", json=body)
                assert answer.headers["x-rollout-served-by"] == "openrouter"
        await dispatcher.aclose()
    assert world.plane.recent.summary(Where.LITELLM).rescued == 12
    assert "12 of 12 requests of the last 5 min were rescued" in await _words(world)
    assert "First answer just now , path openrouter." in words((await browser.get(first, hx=True)).text)


async def test_a_new_access_token_stands_in_every_block_with_scripts_too(world: World) -> None:
    made = await a_browser(world).post("/connect/tokens", hx=True, name="app", role="evaluate")
    secret = made.text.split('id="c-secret"')[1].split("<code>")[1].split("</code>")[0]
    for block in ("c-env", "c-openai", "c-ts", "c-curl"):
        assert secret in made.text.split(f'id="{block}"')[1].split("</code>")[0], block
    assert "&lt;your access token&gt;" not in made.text
    assert "No request with this access token has come to this server yet." in words(made.text)
    page = (await a_browser(world).get("/connect")).text
    assert secret not in page
    assert "print(answer.choices[0].message.content)" in words(page)
    assert "console.log(answer.choices[0].message.content)" in words(page)
