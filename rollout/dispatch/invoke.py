"""`invoke_llm` and its kin: the functions an application calls instead of its old one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, overload

from rollout.client.client import FeatureFlags
from rollout.client.default import default_client
from rollout.client.user import current_user
from rollout.dispatch.decision import InvokeResult
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.gates import limits_of
from rollout.dispatch.streams import AsyncInvokeStream, InvokeStream

_made: Final[dict[str, Dispatcher]] = {}


def default_dispatcher() -> Dispatcher:
    """Return this process's dispatcher, over the default client of the moment; both outlive a fork."""
    client = default_client()
    made = _made.get("default")
    if made is None:  # of many threads that come at once the first one's stays
        made = _made.setdefault("default", Dispatcher(client, current_user=current_user))
    if made.client is not client:
        made = _made["default"] = Dispatcher(
            client,
            current_user=current_user,
            sender=made.sender,
            async_sender=made.async_sender,
            gate=made.gate,
        )
        made.gate.limit(limits_of(client.upstreams))  # the account's counts stay; what it may do is read anew
    return made


@overload
def invoke_llm(
    params: Mapping[str, Any] | None = ..., /, *, stream: Literal[True], **keywords: Any
) -> InvokeStream: ...
@overload
def invoke_llm(
    params: Mapping[str, Any] | None = ..., /, *, stream: Literal[False] | None = ..., **keywords: Any
) -> InvokeResult: ...
def invoke_llm(params: Mapping[str, Any] | None = None, /, **keywords: Any) -> InvokeResult | InvokeStream:
    """Send a chat completion the way its user's decision says.

    Takes the old function's parameters, as one mapping or as keywords, in camelCase or snake_case: `messages`,
    `model`, `tools`, `tool_choice`, `max_tokens`, `response_format`, `output_schema`, `user`, `stream`, and any
    other field of OpenAI's. The user is the argument, else `with user(...)`, else nobody. A model that is in the
    cascade is tried first; any other is replaced. A gateway that does not answer is rescued by the direct path.

    Returns:
        The answer as the upstream sent it, a dict with `.decision`, whichever path it took; with `stream=True` an
        iterator of chunks.

    Raises:
        InvalidRequest: it cannot be sent; nothing was.
        SendingFailed: nobody answered, or nothing may be sent now; one of its subclasses, with `.attempts`,
            `.decision` and, where it is known when to come again, `.retry_after` in seconds.
    """
    return default_dispatcher().invoke(params, **keywords)


@overload
async def ainvoke_llm(
    params: Mapping[str, Any] | None = ..., /, *, stream: Literal[True], **keywords: Any
) -> AsyncInvokeStream: ...
@overload
async def ainvoke_llm(
    params: Mapping[str, Any] | None = ..., /, *, stream: Literal[False] | None = ..., **keywords: Any
) -> InvokeResult: ...
async def ainvoke_llm(params: Mapping[str, Any] | None = None, /, **keywords: Any) -> InvokeResult | AsyncInvokeStream:
    """Send as `invoke_llm` does, asynchronously; with `stream=True` returns an asynchronous iterator."""
    return await default_dispatcher().ainvoke(params, **keywords)


async def aclose() -> None:
    """Close the connections that the running event loop holds open.

    `asyncio.run` and `asyncio.Runner` do it by themselves. Await it before you close a loop by hand; the next call
    opens new connections.
    """
    made = _made.get("default")
    if made is not None:
        await made.aclose()


def feature_flags(user: object = None) -> FeatureFlags:
    """Return `enableLiteLLM` and `litellmRolloutPercentage` for a user, for the current one where None is named."""
    return default_client().feature_flags(current_user() if user is None else user)
