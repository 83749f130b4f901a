"""What free models do, played by the simulator on the direct path, and what becomes of it in each way of calling."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from rollout.dispatch.decision import Exchange
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.dispatch.senders.async_aiohttp import AiohttpSender
from rollout.dispatch.senders.async_httpx import AsyncHttpxSender
from rollout.dispatch.senders.seam import AsyncSender
from rollout.domain.errors import DeadlineExceeded, RateLimited, SendingFailed, UpstreamUnavailable
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.resilience.gate import Gate
from rollout.resilience.quota import QuotaLimits
from rollout.simulator import Fault, Kind, World, running
from tests.dispatch import conftest as world

HEJ = [{"role": "user", "content": "Hej"}]
MODELS = ("northwind/gale-70b-instruct:free", "fjordlabs/skagen-24b:free", "lumen/aurora-3-flash:free")
FIRST, SECOND = MODELS[:2]
JSON = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "required": ["a"]}}}
NOON = 1_700_049_600.0  # the simulator's and our clock on the wall: it never gets midnight in a test
K = FailureKind


class Stage:
    """The simulator as the upstream of one gate, called in one of three ways or through the endpoint."""

    def __init__(self, way: str, url: str, upstream: World) -> None:
        self.way = way
        self.upstream = upstream
        self.client = world.FixedClient(world.upstreams_at("http://127.0.0.1:1", openrouter_url=url))
        self.client.cascade = MODELS
        self.gate = world.a_gate(wall=lambda: NOON)
        self.seen: list[Exchange] = []
        self.costs: list[Any] = []
        self.slept: list[float] = []

    def limits(self, **changes: Any) -> None:
        url = self.client.upstreams.openrouter_url
        self.client.upstreams = world.upstreams_at("http://127.0.0.1:1", openrouter_url=url, **changes)

    def play(self, *faults: Fault) -> None:
        self.upstream.script.play(faults)

    @property
    def calls(self) -> Any:
        return [each.model for each in self.upstream.record]

    def dispatcher(self) -> Dispatcher:
        sender: AsyncSender = AsyncHttpxSender() if self.way == "httpx" else AiohttpSender()

        async def asleep(seconds: float) -> None:
            self.slept.append(seconds)

        return Dispatcher(
            self.client,
            observe=self.seen.append,
            async_sender=sender,
            gate=self.gate,
            wall=lambda: NOON,
            sleep=self.slept.append,
            asleep=asleep,
            on_cost=lambda *told: self.costs.append(told),
        )

    def ask(self, **params: Any) -> Any:
        """Return the result of a plain call, or the chunks and the stream of a stream."""
        if self.way == "sync":
            result: Any = self.dispatcher().invoke(messages=HEJ, **params)
            return (list(result), result) if params.get("stream") else result
        return asyncio.run(self._ask(params))

    async def _ask(self, params: Any) -> Any:
        result: Any = await self.dispatcher().ainvoke(messages=HEJ, **params)
        return ([each async for each in result], result) if params.get("stream") else result


@pytest.fixture(scope="module")
def simulator() -> Iterator[tuple[str, World]]:
    played = World(clock=lambda: NOON)
    with running(played) as url:
        yield url, played


@pytest.fixture
def upstream(simulator: tuple[str, World]) -> tuple[str, World]:
    simulator[1].script.play(())
    simulator[1].record.clear()
    return simulator


@pytest.fixture(params=["sync", "aiohttp", "httpx"])
def stage(request: Any, upstream: Any) -> Stage:
    return Stage(request.param, *upstream)


@pytest.fixture
def one(upstream: Any) -> Stage:
    return Stage("sync", *upstream)


def kinds(decision_or_error: Any) -> Any:
    return [each.failure for each in decision_or_error.attempts]


@pytest.mark.parametrize(
    ("fault", "stream", "kind"),
    [
        (Kind.ERROR_500, False, K.SERVER_ERROR),
        (Kind.ERROR_502, True, K.SERVER_ERROR),
        (Kind.FINISH_REASON_ERROR, False, K.ERROR_FINISH),
        (Kind.FINISH_REASON_ERROR_AT_ONCE, True, K.ERROR_FINISH),
        (Kind.ERROR_IN_200_BODY, False, K.SERVER_ERROR),
        (Kind.ERROR_IN_200_BODY, True, K.SERVER_ERROR),
        (Kind.EMPTY_CONTENT, False, K.EMPTY),
        (Kind.EMPTY_CONTENT, True, K.EMPTY),
        (Kind.TRUNCATED_JSON, False, K.NO_ANSWER),
        (Kind.HTML_200, False, K.NO_ANSWER),
        (Kind.HTML_200, True, K.NO_ANSWER),
        (Kind.GARBAGE_LINES, False, K.NO_ANSWER),
        (Kind.CUT_CONNECTION, False, K.NO_ANSWER),
        (Kind.UPSTREAM_BUSY, False, K.UPSTREAM_BUSY),
        (Kind.UPSTREAM_BUSY, True, K.UPSTREAM_BUSY),
        (Kind.NOT_FOUND_FREE_VARIANT_ENDED, False, K.MODEL_GONE),
        (Kind.NOT_FOUND_DATA_POLICY, True, K.MODEL_GONE),
    ],
)
def test_what_fails_before_anything_was_delivered_is_asked_of_the_next_model(
    stage: Stage, fault: Kind, stream: bool, kind: FailureKind
) -> None:
    stage.play(Fault(fault, model=FIRST))
    result = stage.ask(stream=stream)
    decision = (result[1] if stream else result).decision
    assert kinds(decision) == [kind, None]
    assert stage.calls == [FIRST, SECOND]
    assert (decision.model, decision.served_by) == (SECOND, Path.OPENROUTER)
    assert [each.failure for each in stage.seen] == [None]


@pytest.mark.parametrize(
    ("fault", "kind", "error"),
    [
        (Kind.FINISH_REASON_ERROR, K.ERROR_FINISH, UpstreamUnavailable),
        (Kind.MID_STREAM_ERROR, K.INTERRUPTED, UpstreamUnavailable),
        (Kind.NO_DONE, K.TRUNCATED, UpstreamUnavailable),
        (Kind.TRUNCATED_JSON, K.INTERRUPTED, UpstreamUnavailable),
        (Kind.GARBAGE_LINES, K.INTERRUPTED, UpstreamUnavailable),
        (Kind.CUT_CONNECTION, K.INTERRUPTED, UpstreamUnavailable),
        (Kind.ONE_TOKEN_THEN_SILENCE, K.TIMEOUT, DeadlineExceeded),
    ],
)
def test_what_breaks_after_the_first_token_is_raised_and_counted_and_not_sent_again(
    stage: Stage, fault: Kind, kind: FailureKind, error: Any
) -> None:
    if kind is K.TIMEOUT:
        stage.limits(stall_timeout=0.2)
    stage.play(Fault(fault))
    with pytest.raises(error) as caught:
        stage.ask(stream=True)
    assert kinds(caught.value) == [kind]
    assert stage.calls == [FIRST]
    assert [each.failure for each in stage.seen] == [kind]
    (line,) = [each for each in stage.gate.status().breakers if each.model == FIRST]
    assert line.status.failures == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [Kind.HANG, Kind.HEADERS_THEN_SILENCE, Kind.COMMENTS_FOREVER])
def test_deadlines_hold_over_every_kind_of_silence_and_close_the_upstream(
    stage: Stage, fault: Kind, stream: bool
) -> None:
    stage.limits(attempt_timeout=0.5, first_token_timeout=0.5)
    seconds = 0.02 if fault is Kind.COMMENTS_FOREVER else None
    stage.play(Fault(fault, model=FIRST, seconds=seconds))
    result = stage.ask(stream=stream)
    decision = (result[1] if stream else result).decision
    assert kinds(decision) == [K.TIMEOUT, None]
    assert 450 < decision.attempts[0].milliseconds < 3000
    wait_until(lambda: next(iter(stage.upstream.record)).closed_early)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in the server's thread."""
    late = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < late
        time.sleep(0.01)


def test_at_most_three_attempts_and_no_pause_after_the_last(one: Stage) -> None:
    one.gate = world.a_gate(chance=lambda: 0.5)
    one.play(Fault(Kind.ERROR_500))
    with pytest.raises(UpstreamUnavailable) as caught:
        one.ask()
    assert kinds(caught.value) == [K.SERVER_ERROR] * 3
    assert len(one.calls) == 3
    assert len(one.slept) == 2


def test_a_minute_that_is_full_is_waited_for_within_the_deadline(one: Stage) -> None:
    now = [1_000.0]
    one.gate = Gate(QuotaLimits(20, 0), clock=lambda: now[0], wall=lambda: now[0], chance=lambda: 0.0)
    one.limits(total_timeout=100.0)
    one.play(Fault(Kind.RATE_LIMIT_MINUTE, first=1))
    dispatcher = Dispatcher(
        one.client, gate=one.gate, clock=lambda: now[0], wall=lambda: now[0], sleep=lambda s: sleep(now, s)
    )
    result: Any = dispatcher.invoke(messages=HEJ)
    assert kinds(result.decision) == [K.MINUTE_CAP, None]
    assert now[0] >= 1_060.0
    assert one.calls == [FIRST, FIRST]


def sleep(now: list[float], seconds: float) -> None:
    now[0] += seconds


def test_a_day_that_is_used_up_stops_everything_and_says_until_when(stage: Stage) -> None:
    stage.play(Fault(Kind.RATE_LIMIT_DAY, first=1))
    with pytest.raises(RateLimited, match="try again in 12 h 0 min, at 00:00 UTC") as caught:
        stage.ask()
    assert kinds(caught.value) == [K.DAY_CAP]
    assert caught.value.retry_after == 43_200
    for path in (None, "on"):
        with pytest.raises(RateLimited, match=r"nothing was sent: .*today are used up; try again in 12 h") as again:
            stage.ask(user=path)
        assert (again.value.attempts, again.value.status) == ((), None)
        assert again.value.retry_after == 43_200
        assert again.value.decision.served_by is None
    assert stage.calls == [FIRST]
    assert [each.failure for each in stage.seen] == [K.DAY_CAP] * 3


def test_our_own_count_of_the_minute_refuses_what_would_be_too_late(one: Stage) -> None:
    one.gate = world.a_gate(per_minute=2, wall=lambda: NOON)
    one.ask()
    one.ask()
    with pytest.raises(RateLimited, match=r"this minute are used up; try again in \d+ s") as caught:
        one.ask()
    assert caught.value.retry_after == 60
    assert len(one.calls) == 2


def test_models_that_all_rest_are_not_asked_and_the_error_says_until_when(one: Stage) -> None:
    one.client.cascade = (FIRST,)
    one.play(Fault(Kind.NOT_FOUND_FREE_VARIANT_ENDED))
    with pytest.raises(SendingFailed, match="never asked"):
        one.ask()
    with pytest.raises(UpstreamUnavailable, match=r"nothing was sent: .* is left alone for") as caught:
        one.ask()
    assert caught.value.retry_after
    assert len(one.calls) == 1


@pytest.mark.parametrize("kind", [Kind.COSTS_MONEY, Kind.BILLS_OWN_KEY])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_cost_money_is_given_and_its_model_is_not_asked_again(
    stage: Stage, stream: bool, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    stage.play(Fault(kind, model=FIRST, cost=0.25))
    result = stage.ask(stream=stream)
    decision = (result[1] if stream else result).decision
    assert decision.attempts[0].cost == 0.25
    assert stage.costs == [(FIRST, 0.25, Path.OPENROUTER)]
    assert stage.gate.status().quarantined == (FIRST,)
    assert f"an answer of '{FIRST}' on openrouter cost $0.25" in caplog.text
    stage.ask(stream=stream)
    assert stage.calls == [FIRST, SECOND]
    assert len(stage.costs) == 1


def test_where_paid_models_are_allowed_a_cost_is_only_recorded(one: Stage) -> None:
    one.limits(allow_paid=True)
    one.play(Fault(Kind.COSTS_MONEY))
    assert one.ask().decision.attempts[0].cost == 0.0001
    assert (one.costs, one.gate.status().quarantined) == ([], ())


def test_when_every_model_has_cost_money_nothing_is_sent(one: Stage) -> None:
    for model in MODELS:
        one.gate.charged(model)
    with pytest.raises(SendingFailed, match=r"nothing was sent: .* has cost money") as caught:
        one.ask()
    assert caught.value.retry_after is None
    assert not one.calls


def test_json_that_does_not_come_is_asked_for_again(stage: Stage) -> None:
    stage.play(Fault(Kind.TRUNCATED_CONTENT, first=1))
    result = stage.ask(response_format=JSON)
    assert kinds(result.decision) == [K.INVALID_JSON, None]
    assert "a" in json.loads(result["choices"][0]["message"]["content"])


@pytest.mark.parametrize("stream", [False, True])
def test_an_attempts_record_says_what_was_used(stage: Stage, stream: bool) -> None:
    result = stage.ask(stream=stream)
    (record,) = (result[1] if stream else result).decision.attempts
    assert record.prompt_tokens > 0
    assert record.completion_tokens > 0
    assert record.cost == 0
    assert (record.first_token_milliseconds is not None) is stream
    assert record.served_model == FIRST
    assert record.overhead_milliseconds is None


def test_a_request_is_one_line_in_the_log_without_its_text_or_its_user(
    one: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rollout.requests")
    one.play(Fault(Kind.EMPTY_CONTENT, first=1))
    one.ask(user="anna@example.org")
    (line,) = [each for each in caplog.records if each.name == "rollout.requests"]
    fields: Any = vars(line)
    assert (fields["path"], fields["failure"], fields["served_by"]) == ("openrouter", None, "openrouter")
    assert [each["failure"] for each in fields["attempts"]] == ["empty", None]
    assert fields["attempts"][1]["cost"] == 0
    assert json.dumps(fields["attempts"])
    assert "anna" not in repr(fields)
    assert "Hej" not in repr(fields)


def test_a_model_that_is_not_free_is_passed_over(one: Stage) -> None:
    one.client.cascade = ("openai/gpt-5", SECOND)
    assert one.ask().decision.model == SECOND
    assert one.calls == [SECOND]


def test_a_caller_that_leaves_gives_its_leave_back(one: Stage) -> None:
    class Left(BaseException):
        pass

    class Leaving:
        def open(self, call: Any, deadline: float) -> Any:
            raise Left

    dispatcher = Dispatcher(one.client, gate=one.gate, sender=Leaving(), observe=one.seen.append)
    with pytest.raises(Left):
        dispatcher.invoke(messages=HEJ)
    assert [each.failure for each in one.seen] == [K.CANCELLED]
    assert kinds(one.seen[0].decision) == [K.CANCELLED]
    assert one.ask().decision.served_by is Path.OPENROUTER


class Front:
    """The endpoint before the simulator, behind a real server."""

    def __init__(self, stage: Stage, serve: Callable[..., str]) -> None:
        self.stage = stage
        dispatcher = Dispatcher(
            stage.client,
            observe=stage.seen.append,
            wall=lambda: NOON,
            gate=stage.gate,
            on_cost=lambda *told: stage.costs.append(told),
        )
        self.url = serve(CompletionsApp(dispatcher, lambda _: True))

    def post(self, **body: Any) -> Any:
        return httpx.post(f"{self.url}/v1/chat/completions", json={"messages": HEJ, **body}, timeout=10)


@pytest.fixture
def front(one: Stage, serve: Callable[..., str]) -> Front:
    return Front(one, serve)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Kind.FINISH_REASON_ERROR, "error_finish"),
        (Kind.NO_DONE, "truncated"),
        (Kind.TRUNCATED_JSON, "interrupted"),
        (Kind.GARBAGE_LINES, "interrupted"),
        (Kind.CUT_CONNECTION, "interrupted"),
        (Kind.ONE_TOKEN_THEN_SILENCE, "timeout"),
    ],
)
def test_the_endpoint_tells_of_a_broken_stream_as_one_event_after_whole_events(
    front: Front, fault: Kind, code: str
) -> None:
    if code == "timeout":
        front.stage.limits(stall_timeout=0.2)
    front.stage.play(Fault(fault))
    response = front.post(stream=True)
    assert response.status_code == 200
    events = [each for each in response.text.split("\n\n") if each.strip() and not each.startswith(":")]
    *sound, last = [json.loads(each.strip().removeprefix("data: ")) for each in events]
    assert sound
    assert last["error"]["code"] == code
    assert "data: [DONE]" not in response.text
    assert [each.failure for each in front.stage.seen] == [FailureKind(code)]


def test_an_error_that_the_upstream_put_in_the_stream_is_told_in_our_shape(front: Front) -> None:
    front.stage.play(Fault(Kind.MID_STREAM_ERROR))
    response = front.post(stream=True)
    *_, last = response.text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"] == {
        "message": "Provider disconnected",
        "type": "upstream_error",
        "code": "interrupted",
        "param": None,
    }
    assert response.text.count('"error":') == 1
    assert [each.failure for each in front.stage.seen] == [K.INTERRUPTED]


def test_a_gigantic_line_ends_in_an_error_and_not_in_memory(front: Front) -> None:
    front.stage.play(Fault(Kind.GIANT_LINE, size_bytes=17 * 1024 * 1024))
    assert front.post(stream=True).json()["error"]["code"] == "no_answer"


@pytest.mark.parametrize("stream", [False, True])
def test_the_endpoint_says_429_and_when_once_the_day_is_used_up(front: Front, stream: bool) -> None:
    front.stage.play(Fault(Kind.RATE_LIMIT_DAY, first=1))
    for attempts in ("1", "0"):
        response = front.post(stream=stream)
        assert response.status_code == 429
        assert response.json()["error"]["code"] == "day_cap"
        assert response.headers["retry-after"] == "43200"
        assert response.headers["x-should-retry"] == "false"
        assert response.headers["x-rollout-attempts"] == attempts
    assert len(front.stage.calls) == 1


def test_the_endpoint_says_503_and_when_while_everything_rests(front: Front) -> None:
    front.stage.client.cascade = (FIRST,)
    front.stage.play(Fault(Kind.NOT_FOUND_FREE_VARIANT_ENDED))
    assert front.post().status_code == 502
    response = front.post()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "resting")
    assert int(response.headers["retry-after"]) > 0


def test_the_endpoint_tells_every_attempt_in_a_header(front: Front) -> None:
    front.stage.play(Fault(Kind.UPSTREAM_BUSY, model=FIRST))
    log = front.post().headers["x-rollout-attempt-log"]
    first, second = log.split("; ")
    assert first.startswith(f"openrouter {FIRST} upstream_busy ")
    assert second.startswith(f"openrouter {SECOND} ok ")
    assert second.endswith("ms")


@pytest.mark.parametrize("kind", [Kind.COSTS_MONEY, Kind.BILLS_OWN_KEY])
def test_the_endpoint_counts_what_a_stream_cost(front: Front, kind: Kind) -> None:
    front.stage.play(Fault(kind, model=FIRST))
    assert front.post(stream=True).text.endswith("data: [DONE]\n\n")
    wait_until(lambda: bool(front.stage.seen))
    assert front.stage.costs == [(FIRST, 0.0001, Path.OPENROUTER)]
    assert front.stage.seen[0].decision.attempts[0].completion_tokens
    assert front.stage.seen[0].request_id
