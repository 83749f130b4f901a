"""An attempt as an HTTP call: where it goes, with which key, and what guards the price. Pure.

Both paths carry `provider.max_price` of 0, so that OpenRouter itself refuses whatever costs something. The
gateway is told to retry nothing and to fall back to nothing: retries and the cascade are ours, on both paths. It
is asked for the usage of a stream, which OpenRouter always sends.

What a caller says reaches OpenRouter alike on both paths. LiteLLM takes many fields for settings of its own (a base
URL, a key, fields to leave out), so only those that it hands on stand at the top of its requests; the rest rides in
`extra_body`, which it looks at no further and writes over everything else. A caller has no `extra_body` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from rollout.dispatch.extras import CASCADES, check_extras
from rollout.domain.errors import InvalidRequest
from rollout.domain.flag import Path
from rollout.domain.identity import FREE_SUFFIX
from rollout.settings import Upstreams
from rollout.wire.chat import dump_json

NO_PRICE: Final[Mapping[str, int]] = MappingProxyType({"prompt": 0, "completion": 0, "request": 0, "image": 0})
_HANDED_ON: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "response_format",
        "seed",
        "stop",
        "stream",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
    }
)
"""Fields that LiteLLM hands on to OpenRouter as they are."""

_KNOWN: Final = frozenset(
    {
        "audio",
        "include_reasoning",
        "metadata",
        "min_p",
        "modalities",
        "models",
        "plugins",
        "prediction",
        "prompt_cache_key",
        "provider",
        "reasoning",
        "reasoning_effort",
        "repetition_penalty",
        "route",
        "safety_identifier",
        "service_tier",
        "session_id",
        "store",
        "stream_options",
        "top_a",
        "top_k",
        "transforms",
        "usage",
        "verbosity",
    }
)
"""Fields that OpenRouter's and OpenAI's documentation names beside those."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
NOT_THE_CALLERS: Final = frozenset({"OPENROUTER_API_KEY", "LITELLM_MASTER_KEY", "cascade"})
"""Fields of an InvalidRequest that whoever runs this has to put right, not whoever sent the request."""


class Attribution(NamedTuple):
    """Who OpenRouter is told is asking: the headers `HTTP-Referer` and `X-Title`."""

    referer: str = "http://localhost"
    title: str = "llm-rollout"


ATTRIBUTION: Final = Attribution()


class Call(NamedTuple):
    """One HTTP POST, complete."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Written(NamedTuple):
    """A request's body in JSON, written once for all of its attempts, but for what an attempt says in its own way.

    `rest` ends before its closing brace; `more` are the caller's fields that stand elsewhere on either path, `strange`
    says whether there are any among them that nobody here knows.
    """

    rest: bytes
    more: Mapping[str, Any]
    stream: bool
    strange: bool = False


def write(body: Mapping[str, Any], *, free: bool = True) -> Written:
    """Write a request's body; fields nobody here knows are kept.

    What stands under `model` is left out, and where it has to be `free`, other models to fall back to.

    Raises:
        InvalidRequest: it cannot be said in JSON, or asks for something that costs.
    """
    if free:
        check_extras(body)
    if body.keys() <= _HANDED_ON:
        return Written(_json(body)[:-1], _NOTHING, body.get("stream") is True)
    left_out = {"model", *CASCADES} if free else {"model"}
    rest = {name: value for name, value in body.items() if name in _HANDED_ON}
    more = {name: value for name, value in body.items() if name not in _HANDED_ON and name not in left_out}
    return Written(_json(rest)[:-1], more, body.get("stream") is True, not more.keys() <= _KNOWN)


def call_for(
    path: Path, model: str, body: Written, upstreams: Upstreams, attribution: Attribution = ATTRIBUTION
) -> Call:
    """Return the call for a request on a path with a model.

    Raises:
        InvalidRequest: the key is missing, the model is not free, or the caller's `provider` cannot be read.
    """
    if not upstreams.allow_paid and not model.endswith(FREE_SUFFIX):
        raise InvalidRequest(
            f"{model!r} is not a free model (its id does not end in {FREE_SUFFIX!r}); take it out of the cascade, "
            "or set ROLLOUT_ALLOW_PAID=1",
            field="cascade",
        )
    url, headers = _route(path, upstreams, attribution)
    if body.more:
        own = _json(_own(path, model, body.more, stream=body.stream, free=not upstreams.allow_paid))
    else:
        own = _usual(path, model, body.stream, not upstreams.allow_paid)
    return Call(url, headers, b"%b%b%b" % (body.rest, b"," if len(body.rest) > 1 else b"", own[1:]))


def _own(path: Path, model: str, more: Mapping[str, Any], *, stream: bool, free: bool) -> dict[str, Any]:
    """Return the fields of an attempt beside those that both paths take as they are."""
    said = {**more, "provider": {**_provider(more), "max_price": dict(NO_PRICE)}} if free else dict(more)
    if path is Path.OPENROUTER:
        return {**said, "model": model}
    own = {"model": f"openrouter/{model}", "disable_fallbacks": True}
    options = said.pop("stream_options", None)
    if stream:
        # otherwise the gateway drops the chunk that says what was used, and so the proof that it cost nothing
        own["stream_options"] = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
    return {**own, "extra_body": said} if said else own


@lru_cache(maxsize=256)
def _usual(path: Path, model: str, stream: bool, free: bool) -> bytes:  # noqa: FBT001 - a key of the cache
    return _json(_own(path, model, _NOTHING, stream=stream, free=free))


def _json(document: Mapping[str, Any]) -> bytes:
    try:
        return dump_json(document)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be said in JSON: {error}; use plain values") from None


def _provider(more: Mapping[str, Any]) -> Mapping[str, Any]:
    provider = more.get("provider")
    if provider is None:
        return {}
    if not isinstance(provider, Mapping):
        raise InvalidRequest(
            f"provider must be an object of OpenRouter's preferences, not {provider!r:.80}", field="provider"
        )
    return provider


@lru_cache(maxsize=16)
def _route(path: Path, upstreams: Upstreams, attribution: Attribution) -> tuple[str, Mapping[str, str]]:
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "llm-rollout"}
    if path is Path.LITELLM:
        headers["x-litellm-num-retries"] = "0"
        if upstreams.litellm_key:
            headers["Authorization"] = _bearer(upstreams.litellm_key, "LITELLM_MASTER_KEY")
        return f"{upstreams.litellm_url}/v1/chat/completions", MappingProxyType(headers)
    if not upstreams.openrouter_key:
        raise InvalidRequest(
            "OPENROUTER_API_KEY is not set, so nothing can be sent to OpenRouter; set it and start again",
            field="OPENROUTER_API_KEY",
        )
    headers["Authorization"] = _bearer(upstreams.openrouter_key, "OPENROUTER_API_KEY")
    headers["HTTP-Referer"] = attribution.referer
    headers["X-Title"] = attribution.title
    return f"{upstreams.openrouter_url}/chat/completions", MappingProxyType(headers)


def _bearer(key: str, variable: str) -> str:
    # a key with a line break in it would otherwise surface in a client's error, key included
    if not (key.isascii() and key.isprintable()):
        raise InvalidRequest(
            f"{variable} holds characters that no key has (a line break, a letter outside ASCII); copy it again",
            field=variable,
        )
    return f"Bearer {key}"
