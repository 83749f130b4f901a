"""Sending and the gate: every leave given back once, the gateway's words understood, nothing sent that may not be."""

import asyncio
import contextlib
import gc
import json
import os
import weakref
from typing import Any

import pytest

from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.failures import FACES, http_status
from rollout.dispatch.gates import OwnGate, make_gate
from rollout.dispatch.wrapping import wrap
from rollout.domain.errors import RateLimited, SendingFailed, UpstreamUnavailable
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.resilience.gate import Gate
from rollout.resilience.permit import Permit
from rollout.resilience.policy import Attempt
from rollout.resilience.quota import QuotaLimits
from rollout.settings import Upstreams
from tests.dispatch import conftest as world

HEJ = [{"role": "user", "content": "Hej"}]
ALPHA, BETA = world.CASCADE
COOLDOWN = {"error": {"message": "Try again in 5 seconds", "type": "all_deployments_in_cooldown", "code": "429"}}


class Counting(Gate):
    """A gate that keeps what it granted and what came back."""

    def __init__(self, **more: Any) -> None:
        super().__init__(QuotaLimits(0, 0), clock=lambda: 0.0, wall=lambda: 0.0, chance=lambda: 0.0, **more)
        self.granted = 0
        self.settled: list[Any] = []
        self.released = 0

    def admit(self, path: Path, model: str, *more: Any) -> Any:
        admitted = super().admit(path, model, *more)
        self.granted += isinstance(admitted, Permit)
        return admitted

    def settle(
        self, permit: Any, failure: Any, retry_after: Any = None, *, sent: bool = True, fits: bool = True
    ) -> None:
        super().settle(permit, failure, retry_after, sent=sent, fits=fits)
        self.settled.append((str(permit.path), failure, sent))

    def release(self, permit: Any, *, sent: bool = True) -> None:
        super().release(permit, sent=sent)
        self.released += 1


class Caller:
    def __init__(self, client: world.FixedClient, gate: Gate, way: str = "sync") -> None:
        async def asleep(seconds: float) -> None:
            pass

        self.way = way
        self.seen: list[Any] = []
        self.dispatcher = Dispatcher(client, observe=self.seen.append, gate=gate, sleep=lambda _: None, asleep=asleep)

    def __call__(self, **params: Any) -> Any:
        if self.way == "sync":
            result: Any = self.dispatcher.invoke(messages=HEJ, **params)
            return (list(result), result) if params.get("stream") else result
        return asyncio.run(self._async(params))

    async def _async(self, params: Any) -> Any:
        result: Any = await self.dispatcher.ainvoke(messages=HEJ, **params)
        return ([each async for each in result], result) if params.get("stream") else result


@pytest.fixture
def gate() -> Counting:
    return Counting()


@pytest.fixture(params=["sync", "async"])
def call(request: Any, client: world.FixedClient, gate: Counting) -> Caller:
    return Caller(client, gate, request.param)


def kinds(decision_or_error: Any) -> Any:
    return [(each.path, each.failure) for each in decision_or_error.attempts]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("gateway", "direct"),
    [
        (world.normal, world.normal),
        (world.says(500, {}), world.normal),
        (world.says(404, {}), world.normal),
        (world.says(500, {}), world.says(429, {})),
        (world.streams(then="cut"), world.streams(world.chunk("m", {"content": "x"}), then="cut")),
        (world.says(400, {}), world.normal),
    ],
)
def test_every_leave_is_given_back_exactly_once(
    call: Caller, gate: Counting, upstream: world.Upstream, gateway: Any, direct: Any, stream: bool
) -> None:
    upstream.gateway, upstream.direct = gateway, direct
    with contextlib.suppress(SendingFailed):
        call(user="on", stream=stream)
    assert len(call.seen[0].decision.attempts) == gate.granted
    assert gate.granted == len(gate.settled) + gate.released == len(upstream.calls)
    assert gate.released == 0


async def test_a_caller_that_leaves_settles_nothing_and_gives_its_leave_back(
    client: world.FixedClient, gate: Counting, upstream: world.Upstream
) -> None:
    upstream.gateway = world.silence
    caller = Caller(client, gate)
    task = asyncio.ensure_future(caller.dispatcher.ainvoke(messages=HEJ, user="on"))
    await upstream.asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (gate.granted, gate.settled, gate.released) == (1, [], 1)


def test_what_cannot_be_sent_is_given_back_unsent(client: world.FixedClient, gate: Counting) -> None:
    client.upstreams = world.upstreams_at("http://127.0.0.1:1", openrouter_key=None)
    with pytest.raises(Exception, match="OPENROUTER_API_KEY"):
        Caller(client, gate)()
    assert (gate.granted, gate.settled, gate.released) == (1, [], 1)


def test_a_gateway_that_is_not_there_uses_up_no_quota(
    call: Caller, client: world.FixedClient, gate: Counting, upstream: world.Upstream
) -> None:
    client.upstreams = world.upstreams_at(upstream.url, litellm_url="http://127.0.0.1:1")
    call(user="on")
    assert gate.settled == [("litellm", FailureKind.UNREACHABLE, False), ("openrouter", None, True)]
    assert gate.status().quota.used_today == 1
    assert [each.quota_used for each in call.seen[0].decision.attempts] == [0, 1]


def test_an_attempt_that_failed_after_it_was_sent_used_quota_all_the_same(
    call: Caller, gate: Counting, upstream: world.Upstream
) -> None:
    upstream.gateway = world.says(500, {})
    call(user="on")
    assert [each.quota_used for each in call.seen[0].decision.attempts] == [1, 1]
    assert gate.status().quota.used_today == 2


def test_a_path_that_rests_is_left_alone_and_the_rescue_is_said(
    call: Caller, gate: Counting, upstream: world.Upstream
) -> None:
    upstream.gateway = world.says(401, {"error": {"message": "key"}})
    while len(upstream.via_gateway) == len(gate.settled) // 2:
        call(user="on")
    rescued = call(user="on").decision
    assert kinds(rescued) == [(Path.OPENROUTER, None)]
    assert (rescued.path, rescued.rescued_from, rescued.served_by) == (Path.LITELLM, Path.LITELLM, Path.OPENROUTER)


@pytest.mark.parametrize("stream", [False, True])
def test_the_gateways_own_breaker_is_a_fault_of_the_gateway(
    call: Caller, upstream: world.Upstream, stream: bool
) -> None:
    upstream.gateway = world.says(429, COOLDOWN)
    result = call(user="on", stream=stream)
    decision = (result[1] if stream else result).decision
    assert kinds(decision) == [(Path.LITELLM, FailureKind.GATEWAY_COOLDOWN), (Path.OPENROUTER, None)]


def test_an_end_that_the_gateway_rewrote_is_a_failure(call: Caller, upstream: world.Upstream) -> None:
    rewritten = world.completion("m", "")
    rewritten["choices"][0]["provider_specific_fields"] = {"native_finish_reason": "error"}
    seen: list[str] = []

    async def gateway(asked: Any, reader: Any, writer: Any) -> None:
        seen.append(asked.body["model"])
        await (world.says(200, rewritten) if len(seen) == 1 else world.normal)(asked, reader, writer)

    upstream.gateway = gateway
    assert kinds(call(user="on").decision) == [(Path.LITELLM, FailureKind.ERROR_FINISH), (Path.LITELLM, None)]
    assert seen == [f"openrouter/{ALPHA}", f"openrouter/{BETA}"]


def test_what_the_gateway_says_of_itself_is_on_record(call: Caller, upstream: world.Upstream) -> None:
    upstream.gateway = world.says(200, world.completion("m"), "x-litellm-overhead-duration-ms: 7.25")
    (record,) = call(user="on").decision.attempts
    assert (record.overhead_milliseconds, record.cost, record.prompt_tokens) == (7.25, 0.0, 1)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_looks_the_same_whichever_path_it_took(call: Caller, stream: bool) -> None:
    answers = []
    for user in ("on", "off"):
        result = call(user=user, stream=stream)
        answers.append(result[0][1] if stream else result)
    gateway, direct = answers
    assert gateway["model"] == direct["model"] == ALPHA
    assert gateway.keys() == direct.keys()


def test_the_gateway_is_asked_what_a_stream_used(call: Caller, upstream: world.Upstream) -> None:
    call(user="on", stream=True, stream_options={"x": 1})
    call(user="off", stream=True)
    call(user="on")
    assert upstream.via_gateway[0].body["stream_options"] == {"include_usage": True}
    assert upstream.via_gateway[0].body["extra_body"]["stream_options"] == {"x": 1}
    assert "stream_options" not in upstream.via_gateway[1].body
    assert "stream_options" not in upstream.directly[0].body


@pytest.mark.parametrize("already", [True, False], ids=["after a token", "before one"])
def test_a_gateway_whose_connections_are_cut_is_blamed_itself_and_not_the_model(
    call: Caller, gate: Counting, upstream: world.Upstream, already: bool
) -> None:
    upstream.gateway = world.streams(*([world.chunk("m", {"content": "He"})] * already), then="cut")
    with contextlib.suppress(SendingFailed):
        call(user="on", stream=True)
    kind = FailureKind.INTERRUPTED if already else FailureKind.NO_ANSWER
    assert kinds(call.seen[0].decision)[0] == (Path.LITELLM, kind)
    failures = {(each.path, each.model): each.status.failures for each in gate.status().breakers}
    assert failures == {(Path.LITELLM, None): 1, (Path.OPENROUTER, None): 0}


@pytest.mark.parametrize(
    ("user", "behaviour"),
    [
        ("off", world.streams(world.chunk("m", {"content": "He"}), then="cut")),
        ("on", world.streams(world.chunk("m", {"content": "He"}), b'data: {"error": {"message": "gone"}}\n\n')),
    ],
    ids=["cut by the upstream", "told by the gateway"],
)
def test_a_stream_that_broke_behind_a_gateway_that_works_is_the_models_fault(
    call: Caller, gate: Counting, upstream: world.Upstream, user: str, behaviour: Any
) -> None:
    upstream.gateway = upstream.direct = behaviour
    with pytest.raises(SendingFailed):
        call(user=user, stream=True)
    path = Path.LITELLM if user == "on" else Path.OPENROUTER
    failures = {(each.path, each.model): each.status.failures for each in gate.status().breakers}
    assert failures == {(Path.LITELLM, None): 0, (Path.OPENROUTER, None): 0, (path, ALPHA): 1}


def test_where_no_retry_is_left_the_error_says_so_and_is_otherwise_the_failures_own(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    upstream.direct = world.says(500, {})
    client.cascade = (ALPHA,)
    with pytest.raises(UpstreamUnavailable) as caught:
        Caller(client, world.a_gate(retries=False))(user="off")
    assert caught.value.message.endswith("; nothing else was tried: too many requests are being retried just now")
    assert (caught.value.status, caught.value.retry_after, len(caught.value.attempts)) == (500, None, 1)


def test_a_day_that_the_gateway_reports_as_used_up_stops_both_paths(call: Caller, upstream: world.Upstream) -> None:
    said = json.dumps({"error": {"message": "Rate limit exceeded: free-models-per-day. ", "code": 429}})
    message = f"litellm.RateLimitError: OpenrouterException - {said}"
    upstream.gateway = world.says(429, {"error": {"message": message, "type": "throttling_error", "code": "429"}})
    for user in ("on", "on", "off"):
        with pytest.raises(RateLimited):
            call(user=user)
    assert len(upstream.calls) == 1


def test_a_tool_that_one_model_lacks_speaks_against_nobody(
    call: Caller, gate: Counting, upstream: world.Upstream
) -> None:
    upstream.direct = world.says(404, {"error": {"message": "No endpoints found that support tool use."}})
    with pytest.raises(SendingFailed):
        call(user="off")
    assert [each.body["model"] for each in upstream.directly] == [ALPHA, BETA]
    assert not [each for each in gate.status().breakers if each.model is not None]


@pytest.mark.parametrize(
    ("preferences", "said"),
    [
        ({"data_collection": "deny"}, "No endpoints found matching your data policy (Free model publication)."),
        ({"zdr": True}, "No endpoints found matching your data policy (Zero data retention)."),
        ({"ignore": ["venice"]}, "All providers have been ignored."),
        ({"quantizations": ["fp4"], "sort": "price"}, f"No endpoints found for {ALPHA}."),
        ({"only": ["venice"]}, f"No endpoints found for {ALPHA} that satisfy the requested max_price."),
    ],
    ids=repr,
)
def test_a_caller_who_lets_no_provider_answer_takes_no_model_from_others(
    call: Caller, gate: Counting, upstream: world.Upstream, preferences: Any, said: str
) -> None:
    upstream.direct = world.says(404, {"error": {"message": said, "code": 404}})
    for _ in range(5):
        with pytest.raises(SendingFailed):
            call(user="off", provider=preferences)
    assert not [each for each in gate.status().breakers if each.model is not None]
    upstream.direct = world.normal
    assert call(user="off").decision.model == ALPHA


@pytest.mark.parametrize("preferences", [None, {}, {"sort": "price", "only": None}])
def test_a_model_that_nobody_can_be_asked_for_is_left_alone(
    call: Caller, gate: Counting, upstream: world.Upstream, preferences: Any
) -> None:
    upstream.direct = world.says(404, {"error": {"message": f"No endpoints found for {ALPHA}.", "code": 404}})
    with pytest.raises(SendingFailed):
        call(user="off", provider=preferences)
    assert [each.model for each in gate.status().breakers if each.model is not None] == [ALPHA, BETA]


@pytest.mark.parametrize("said", ["", " "])
def test_an_empty_chunk_now_and_then_is_no_progress(
    call: Caller, client: world.FixedClient, upstream: world.Upstream, said: str
) -> None:
    client.upstreams = world.upstreams_at(upstream.url, stall_timeout=0.2)
    empty = world.chunk("m", {"role": "assistant", "content": said})
    upstream.direct = world.streams(world.chunk("m", {"content": "He"}), *[empty] * 60, then="silence", every=0.02)
    with pytest.raises(SendingFailed, match="stood still"):
        call(user="off", stream=True)


def test_a_stream_that_begins_with_white_space_alone_is_answered_by_another_model(
    call: Caller, upstream: world.Upstream
) -> None:
    blank = world.streams(world.chunk("m", {"content": " "}), b"data: [DONE]\n\n")

    async def direct(asked: Any, reader: Any, writer: Any) -> None:
        await (blank if asked.body["model"] == ALPHA else world.normal)(asked, reader, writer)

    upstream.direct = direct
    _, result = call(user="off", stream=True)
    assert kinds(result.decision) == [(Path.OPENROUTER, FailureKind.EMPTY), (Path.OPENROUTER, None)]


def test_a_reader_that_takes_its_time_is_not_the_upstreams_fault(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    client.upstreams = world.upstreams_at(upstream.url, stall_timeout=0.3)
    dispatcher = Dispatcher(client, gate=world.a_gate())

    async def slowly() -> int:
        stream: Any = await dispatcher.ainvoke(messages=HEJ, user="off", stream=True)
        count = 0
        async for _ in stream:
            count += 1
            await asyncio.sleep(0.1)
        return count

    assert asyncio.run(slowly()) == 6


def test_a_wrapped_function_takes_over_while_the_gateway_rests(
    client: world.FixedClient, upstream: world.Upstream
) -> None:
    gate = world.a_gate()
    dispatcher = Dispatcher(client, gate=gate)
    wrapped = wrap(lambda **_: {"old": True}, dispatcher=lambda: dispatcher)
    for model in world.CASCADE:
        gate.settle(Permit(Path.LITELLM, model), FailureKind.MODEL_GONE)
    assert wrapped(messages=HEJ, user="on") == {"old": True}
    assert not upstream.calls


def test_a_dispatcher_has_one_gate_with_its_clients_limits(client: world.FixedClient) -> None:
    client.upstreams = Upstreams(free_requests_per_minute=7, free_requests_per_day=9)
    dispatcher = Dispatcher(client)
    assert dispatcher.gate is dispatcher.gate
    quota = dispatcher.gate.status().quota
    assert (quota.per_minute, quota.per_day) == (7, 9)


def test_a_forked_child_makes_its_own_gate() -> None:
    upstreams = Upstreams()
    given = make_gate(upstreams, clock=lambda: 0.0, wall=lambda: 0.0)
    own = OwnGate(lambda: make_gate(upstreams, clock=lambda: 0.0, wall=lambda: 0.0), given)
    assert own.get() is given
    child = os.fork()
    if child == 0:
        os._exit(int(own.get() is given))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert own.get() is given


def test_every_kind_of_failure_has_a_face_and_none_looks_like_the_callers_key_being_wrong() -> None:
    assert set(FACES) == set(FailureKind)
    for kind in FailureKind:
        for upstream_status in (None, 401, 402, 403, 500):
            assert http_status(kind, upstream_status) not in (401, 402, 403)
        assert http_status(kind, None, sent=False) in (429, 503)


def test_what_was_not_sent_is_an_error_of_the_tree(call: Caller, gate: Counting, upstream: world.Upstream) -> None:
    for path in Path:
        for model in world.CASCADE:
            gate.settle(Permit(path, model), FailureKind.MODEL_GONE)
    with pytest.raises(UpstreamUnavailable, match=r"nothing was sent: .* try again in \d+ (s|min)") as caught:
        call(user="on")
    assert caught.value.decision.path is Path.LITELLM
    assert not upstream.calls


def test_a_request_is_the_same_for_the_gate_whoever_sends_it_and_however(client: world.FixedClient) -> None:
    dispatcher = Dispatcher(client, gate=world.a_gate())

    def mark(**params: Any) -> Any:
        return dispatcher.prepare({"messages": HEJ, **params}, {}).source.mark()

    same = [mark(user="on"), mark(user="on", stream=True, model=BETA), mark(user="on", metadata={"request": "2"})]
    assert len(set(same)) == 1
    assert (mark(user="off").caller, mark(user="off").body) == (mark(user="off").caller, same[0].body)
    assert mark(user="off").caller != same[0].caller
    assert mark(user="on", temperature=1).body != same[0].body
    assert mark().caller == mark().body, "nobody knows who asks"


def test_a_request_that_is_over_leaves_nothing_to_the_garbage_collector(client: world.FixedClient) -> None:
    dispatcher = Dispatcher(client, gate=world.a_gate())
    sending = dispatcher.prepare({"messages": HEJ}, {})
    attempt = next(sending.policy())
    assert isinstance(attempt, Attempt)
    sending.call(attempt)
    sending.note(attempt, None, status=200)
    over = weakref.ref(sending)
    gc.disable()  # what is in no circle goes without it
    try:
        del sending
        assert over() is None
    finally:
        gc.enable()
