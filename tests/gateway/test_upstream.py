"""What is known of the upstream, asked of an upstream that behaves and one that does not."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import pytest

from rollout.domain.cascade import ListedModel
from rollout.gateway.upstream import (
    REFRESH_SECONDS,
    RETRY_SECONDS,
    UpstreamPhase,
    UpstreamState,
    UpstreamWatch,
)

URL = "https://upstream.example/api/v1"
KEY = "sk-or-v1-secret"
MODEL = {"id": "a/b:free", "pricing": {"prompt": "0"}, "context_length": 8}
LISTED = (ListedModel("a/b:free", free=True, context_length=8),)

Answer = Callable[[httpx.Request], httpx.Response]


FREE_REQUESTS = {"data": {"free_model_daily_requests": {"used": 7, "limit": 50, "remaining": 43}}}


def _json(document: Any, status: int = 200) -> Answer:
    return lambda request: httpx.Response(status, json=document, request=request)


def _raise(kind: type[httpx.TransportError]) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        raise kind(f"cannot reach {request.url} with {KEY}")

    return answer


@dataclass
class Upstream(httpx.AsyncBaseTransport):
    """An upstream by its two routes; `asked` records what came in."""

    models: Answer = field(default_factory=lambda: _json({"data": [MODEL]}))
    key: Answer = field(default_factory=lambda: _json({"data": {"limit": None}}))
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((str(request.url), request.headers.get("authorization")))
        return self.models(request) if request.url.path.endswith("/models") else self.key(request)


class _Enough(Exception):
    """Ends a watch that would go on for ever."""


async def _checked(upstream: Upstream, key: str | None = KEY, url: str = URL) -> UpstreamState:
    heard: list[tuple[ListedModel, ...]] = []
    watch = UpstreamWatch(url, key, simulated=False, clock=lambda: 17.0, on_models=heard.append)
    async with httpx.AsyncClient(transport=upstream) as http:
        state = await watch.check(http)
    assert watch.state == state
    assert heard == ([state.models] if state.models else [])
    return state


def test_before_it_was_asked_nothing_is_claimed() -> None:
    state = UpstreamWatch(URL, KEY, simulated=True).state
    assert (state.phase, state.models, state.checked_at, state.simulated) == (UpstreamPhase.UNKNOWN, (), None, True)


async def test_an_upstream_that_answers_and_takes_our_key_is_ok() -> None:
    upstream = Upstream()
    state = await _checked(upstream)
    assert state == UpstreamState(
        URL, simulated=False, phase=UpstreamPhase.OK, detail="answers and takes our key", models=LISTED, checked_at=17.0
    )
    assert upstream.asked == [(f"{URL}/models", None), (f"{URL}/key", f"Bearer {KEY}")]


async def test_without_a_key_the_models_are_known_and_the_key_is_asked_for() -> None:
    upstream = Upstream()
    state = await _checked(upstream, key=None)
    assert (state.phase, state.models) == (UpstreamPhase.KEY_MISSING, LISTED)
    assert "OPENROUTER_API_KEY" in state.detail
    assert upstream.asked == [(f"{URL}/models", None)]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_refused_is_said_to_be_and_never_shown(status: int) -> None:
    state = await _checked(Upstream(key=_json({"error": {"message": f"{KEY} is bad"}}, status)))
    assert (state.phase, state.models) == (UpstreamPhase.KEY_REFUSED, LISTED)
    assert "OPENROUTER_API_KEY" in state.detail
    assert KEY not in repr(state)


@pytest.mark.parametrize("status", [404, 405, 429, 500])
async def test_a_key_nobody_judged_is_not_said_to_be_taken(status: int) -> None:
    state = await _checked(Upstream(key=_json({}, status)))
    assert state.phase is UpstreamPhase.OK
    assert "takes our key it did not say" in state.detail
    assert str(status) in state.detail


@pytest.mark.parametrize("key", ["sk-\u00e5", "sk or", "sk\r\nX-Evil: 1", "\u201csk\u201d"])
async def test_a_key_that_no_header_carries_is_refused_before_it_is_sent(key: str) -> None:
    upstream = Upstream()
    state = await _checked(upstream, key=key)
    assert state.phase is UpstreamPhase.KEY_REFUSED
    assert "OPENROUTER_API_KEY" in state.detail
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(
    "kind", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadTimeout, httpx.RemoteProtocolError]
)
@pytest.mark.parametrize("route", ["models", "key"])
async def test_an_upstream_that_cannot_be_reached_is_said_to_be(kind: type[httpx.TransportError], route: str) -> None:
    upstream = Upstream(**{route: _raise(kind)})  # type: ignore[arg-type]  # a route by its name
    state = await _checked(upstream)
    assert (state.phase, state.checked_at) == (UpstreamPhase.UNREACHABLE, 17.0)
    assert state.detail == f"the upstream does not answer ({kind.__name__})"


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
async def test_a_model_list_that_is_refused_is_said_with_its_status(status: int) -> None:
    state = await _checked(Upstream(models=_json({"error": "no"}, status)))
    assert state.phase is UpstreamPhase.UNREACHABLE
    assert state.detail == f"the upstream's model list answered {status}"


@pytest.mark.parametrize("body", [b"<!doctype html><title>Log in to the Wi-Fi</title>", b"", b'{"data": 5}', b"\xff"])
async def test_an_answer_that_is_no_model_list_is_said_to_be_none(body: bytes) -> None:
    state = await _checked(Upstream(models=lambda request: httpx.Response(200, content=body, request=request)))
    assert (state.phase, state.detail) == (UpstreamPhase.UNREACHABLE, "the upstream's answer is no model list")


@pytest.mark.parametrize("url", ["http://\x7f.example", "http://\u2603.example", "https://xn--zz.example/api/v1"])
async def test_an_address_that_is_none_is_said_to_be_none(url: str) -> None:
    state = await _checked(Upstream(), url=url)
    assert (state.phase, state.checked_at) == (UpstreamPhase.UNREACHABLE, 17.0)
    assert "OPENROUTER_BASE_URL" in state.detail


async def test_a_password_in_the_address_is_used_and_never_shown() -> None:
    upstream = Upstream()
    state = await _checked(upstream, url="https://me:hunter2@upstream.example/api/v1")
    assert state.base_url == URL
    assert "hunter2" not in repr(state)
    assert upstream.asked[0][1] is not None


async def test_what_was_last_listed_is_kept_while_the_upstream_is_away() -> None:
    upstream = Upstream()
    watch = UpstreamWatch(URL, KEY, simulated=False)
    async with httpx.AsyncClient(transport=upstream) as http:
        await watch.check(http)
        upstream.models = _raise(httpx.ConnectError)
        away = await watch.check(http)
        upstream.models = _json({"data": []})
        back = await watch.check(http)
    assert (away.phase, away.models) == (UpstreamPhase.UNREACHABLE, LISTED)
    assert (back.phase, back.models) == (UpstreamPhase.OK, ())


async def _paused(upstream: Upstream, times: int, between: Callable[[int], None] = lambda _: None) -> list[float]:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        between(len(pauses))
        if len(pauses) == times:
            raise _Enough

    watch = UpstreamWatch(URL, KEY, simulated=False, sleep=sleep, transport=upstream)
    with pytest.raises(_Enough):
        await watch.run()
    return pauses


async def test_it_is_asked_soon_again_while_it_is_away_and_rarely_while_it_is_well() -> None:
    upstream = Upstream(models=_raise(httpx.ConnectError))

    def between(pause: int) -> None:
        if pause == 2:
            upstream.models = _json({"data": [MODEL]})

    assert await _paused(upstream, 4, between) == [RETRY_SECONDS, RETRY_SECONDS, REFRESH_SECONDS, REFRESH_SECONDS]


async def test_who_hears_the_lists_cannot_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    def on_models(_: tuple[ListedModel, ...]) -> None:
        raise ValueError("the cascade cannot be stored")

    watch = UpstreamWatch(URL, KEY, simulated=False, on_models=on_models)
    async with httpx.AsyncClient(transport=Upstream()) as http:
        state = await watch.check(http)
    assert state.phase is UpstreamPhase.OK
    assert "asked again all the same" in caplog.text


async def test_what_is_left_of_the_day_is_heard_and_kept_while_the_upstream_is_away() -> None:
    heard: list[tuple[int | None, int | None]] = []
    upstream = Upstream(key=_json(FREE_REQUESTS))
    watch = UpstreamWatch(URL, KEY, simulated=False, on_key=lambda used, limit: heard.append((used, limit)))
    async with httpx.AsyncClient(transport=upstream) as http:
        state = await watch.check(http)
        upstream.models = _raise(httpx.ConnectError)
        away = await watch.check(http)
        upstream.models, upstream.key = _json({"data": [MODEL]}), _json({}, 500)
        unsaid = await watch.check(http)
    assert (state.daily_used, state.daily_limit) == (away.daily_used, away.daily_limit) == (7, 50)
    assert (unsaid.daily_used, unsaid.daily_limit) == (None, None)
    assert heard == [(7, 50)], "what was not said is not told"


async def test_who_hears_what_is_left_cannot_end_the_watch(caplog: pytest.LogCaptureFixture) -> None:
    def on_key(_used: int | None, _limit: int | None) -> None:
        raise ValueError("the quota cannot be kept")

    watch = UpstreamWatch(URL, KEY, simulated=False, on_key=on_key)
    async with httpx.AsyncClient(transport=Upstream(key=_json(FREE_REQUESTS))) as http:
        state = await watch.check(http)
    assert state.phase is UpstreamPhase.OK
    assert "asked again all the same" in caplog.text


async def test_only_changes_are_logged_and_never_the_key(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    upstream = Upstream()
    steps = {1: _raise(httpx.ReadError), 3: _json({"data": [MODEL]})}

    def between(pause: int) -> None:
        upstream.models = steps.get(pause, upstream.models)

    await _paused(upstream, 5, between)
    ours = [record.getMessage() for record in caplog.records if record.name == "rollout.gateway.upstream"]
    assert [line.split(":")[0] for line in ours] == ["upstream ok", "upstream unreachable", "upstream ok"]
    assert KEY not in caplog.text


async def test_a_watch_ends_when_it_is_cancelled() -> None:
    heard = anyio.Event()
    watch = UpstreamWatch(URL, KEY, simulated=False, transport=Upstream(), on_models=lambda _: heard.set())
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            await heard.wait()
            tasks.cancel_scope.cancel()
    assert watch.state.models == LISTED
