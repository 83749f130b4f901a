import functools
from typing import Any

import pytest

from rollout.dispatch.decision import Exchange, InvokeResult
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.wrapping import wrap
from rollout.domain.errors import InvalidRequest, RateLimited
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from tests.dispatch import conftest as world

HEJ = [{"role": "user", "content": "Hej"}]


class Answer(dict[str, Any]):
    """What the application's old function returns: its own type."""


class Old:
    """The application's old function: remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def keywords(self, **params: Any) -> Any:
        """Ask the model."""
        self.calls.append(params)
        return Answer(old=True)

    def mapping(self, params: Any) -> Any:
        self.calls.append(params)
        return Answer(old=True)

    def positional(self, messages: Any, model: Any = None, *, user: Any = None, **rest: Any) -> Any:
        self.calls.append((messages, model, user, rest))
        return Answer(old=True)

    async def asynchronous(self, **params: Any) -> Any:
        self.calls.append(params)
        return Answer(old=True)


@pytest.fixture
def old() -> Any:
    return Old()


@pytest.fixture
def dispatcher(client: world.FixedClient) -> Any:
    seen: list[Exchange] = []
    made: Any = Dispatcher(client, observe=seen.append)
    made.seen = seen
    return made


def test_decided_direct_the_old_function_gets_exactly_what_the_caller_gave(
    old: Old, dispatcher: Any, upstream: world.Upstream
) -> None:
    invoke = wrap(old.keywords, dispatcher=lambda: dispatcher)
    result = invoke(messages=HEJ, user="off", whatever=object)
    assert type(result) is Answer
    assert old.calls == [{"messages": HEJ, "user": "off", "whatever": object}]
    assert not upstream.calls
    (seen,) = dispatcher.seen
    assert (seen.wrapped, seen.decision.path, seen.decision.rescued_from) == (True, Path.OPENROUTER, None)


@pytest.mark.parametrize(
    "call",
    [
        lambda old: (old.keywords, (), {"messages": HEJ, "user": "on"}),
        lambda old: (old.mapping, ({"messages": HEJ, "user": "on"},), {}),
        lambda old: (old.positional, (HEJ, "gpt-4o"), {"user": "on", "seed": 1}),
    ],
)
def test_decided_for_the_gateway_we_send_however_the_old_function_is_called(
    old: Old, dispatcher: Any, upstream: world.Upstream, call: Any
) -> None:
    function, args, kwargs = call(old)
    result = wrap(function, dispatcher=lambda: dispatcher)(*args, **kwargs)
    assert isinstance(result, InvokeResult)
    assert result.decision.served_by is Path.LITELLM
    assert upstream.via_gateway[0].body["extra_body"]["messages"] == HEJ
    assert not old.calls


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_of_the_gateway_is_answered_by_the_old_function(
    old: Old, dispatcher: Any, upstream: world.Upstream, stream: bool
) -> None:
    upstream.gateway = world.says(500, {})
    result = wrap(old.keywords, dispatcher=lambda: dispatcher)(messages=HEJ, user="on", stream=stream)
    assert type(result) is Answer
    assert not upstream.directly
    (seen,) = dispatcher.seen
    assert (seen.decision.path, seen.decision.served_by) == (Path.LITELLM, Path.OPENROUTER)
    assert seen.decision.rescued_from is Path.LITELLM
    assert [each.failure for each in seen.decision.attempts] == [FailureKind.SERVER_ERROR]


def test_what_the_gateway_is_not_to_blame_for_is_raised(old: Old, dispatcher: Any, upstream: world.Upstream) -> None:
    upstream.gateway = world.says(429, {})
    with pytest.raises(RateLimited):
        wrap(old.keywords, dispatcher=lambda: dispatcher)(messages=HEJ, user="on")
    assert not old.calls


@pytest.mark.parametrize("cascade", [(), ("openai/gpt-5",)])
def test_a_gateway_side_that_is_not_set_up_leaves_the_old_function_working(
    old: Old, client: world.FixedClient, dispatcher: Any, cascade: Any
) -> None:
    client.cascade = cascade
    assert wrap(old.keywords, dispatcher=lambda: dispatcher)(messages=HEJ, user="on") == {"old": True}


def test_a_request_that_cannot_be_sent_is_refused_on_the_gateways_side(old: Old, dispatcher: Any) -> None:
    with pytest.raises(InvalidRequest):
        wrap(old.keywords, dispatcher=lambda: dispatcher)(prompt="Hej", user="on")


def test_what_the_old_function_raises_passes_and_is_on_record(dispatcher: Any) -> None:
    def failing(**params: Any) -> None:
        raise KeyError("old")

    with pytest.raises(KeyError):
        wrap(failing, dispatcher=lambda: dispatcher)(messages=HEJ)
    assert [(each.failure, each.decision.served_by) for each in dispatcher.seen] == [(FailureKind.NO_ANSWER, None)]


async def test_an_asynchronous_function_stays_asynchronous(old: Old, dispatcher: Any, upstream: world.Upstream) -> None:
    invoke = wrap(old.asynchronous, dispatcher=lambda: dispatcher)
    assert await invoke(messages=HEJ, user="off") == {"old": True}
    assert (await invoke(messages=HEJ, user="on")).decision.served_by is Path.LITELLM
    upstream.gateway = world.says(500, {})
    assert await invoke(messages=HEJ, user="on") == {"old": True}
    stream_of_ours = wrap(functools.partial(old.asynchronous), dispatcher=lambda: dispatcher)
    upstream.gateway = world.normal
    async with await stream_of_ours(messages=HEJ, user="on", stream=True) as stream:
        assert [each async for each in stream]


def test_a_wrapped_function_keeps_its_name(old: Old, dispatcher: Any) -> None:
    assert wrap(old.keywords, dispatcher=lambda: dispatcher).__doc__ == "Ask the model."


def test_a_generator_function_is_refused_at_once() -> None:
    def streaming(**params: Any) -> Any:
        yield params

    with pytest.raises(InvalidRequest, match="generator"):
        wrap(streaming)
