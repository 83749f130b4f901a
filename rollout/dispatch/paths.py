"""An attempt as an HTTP call: where it goes, with which key, and what guards the price. Pure.

Both paths carry `provider.max_price` of 0, so that OpenRouter itself refuses whatever costs something. The
gateway is told to retry nothing and to fall back to nothing: retries and the cascade are ours, on both paths. It
is asked for the usage of a stream, which OpenRouter always sends.

What a caller says reaches OpenRouter alike on both paths. LiteLLM takes many fields for settings of its own (a base
URL, a key, fields to leave out) and rewrites those that it understands (messages, tools, `stop`), so it is shown one
word in place of the messages, and the whole body rides in `extra_body`. LiteLLM looks at no field in there, and
writes them over everything else as the last thing it does. A caller has no `extra_body` there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from json import JSONEncoder
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from rollout.dispatch.extras import CASCADES, at_no_cost
from rollout.dispatch.shape import shown
from rollout.domain.errors import InvalidRequest
from rollout.domain.flag import Path
from rollout.domain.identity import FREE_SUFFIX, is_free_id
from rollout.settings import Upstreams

NO_PRICE: Final[Mapping[str, int]] = MappingProxyType({"prompt": 0, "completion": 0, "request": 0, "image": 0})
_KNOWN: Final = frozenset(
    {
        "audio",
        "cache_control",
        "debug",
        "frequency_penalty",
        "function_call",
        "functions",
        "image_config",
        "include_reasoning",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "max_tool_calls",
        "messages",
        "metadata",
        "min_p",
        "modalities",
        "models",
        "n",
        "parallel_tool_calls",
        "plugins",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "provider",
        "reasoning",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "route",
        "safety_identifier",
        "seed",
        "service_tier",
        "session_id",
        "stop",
        "store",
        "stream",
        "stream_options",
        "structured_outputs",
        "temperature",
        "tool_choice",
        "tools",
        "top_a",
        "top_k",
        "top_logprobs",
        "top_p",
        "trace",
        "transforms",
        "usage",
        "user",
        "verbosity",
    }
)
"""Fields that OpenRouter's and OpenAI's documentation names; LiteLLM refuses none of them in `extra_body`."""

_SHOWN_TO_LITELLM: Final = ({"role": "user", "content": "extra_body"},)
"""The messages that LiteLLM sees. It counts their tokens only if an answer does not say how many it used."""

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
    """A request's body in JSON, written once for all of its attempts, but for the model.

    `said` is what goes between the braces after the model, with a comma before it; `strange` says whether there are
    fields in it that nobody here knows.
    """

    said: bytes
    stream: bool
    strange: bool = False


def write(body: Mapping[str, Any], *, free: bool = True) -> Written:
    """Write a request's body; fields nobody here knows are kept.

    What stands under `model` is left out, and if the request has to be `free`, so are other models to fall back to;
    it then carries the guard `max_price`, and the name of the free parser if it may hold a file. A lone surrogate is
    no character and becomes U+FFFD: LiteLLM takes no body with one in it.

    Raises:
        InvalidRequest: it cannot be said in JSON, or asks for something that may cost.
    """
    if free:
        body = at_no_cost(body)
    guarded = free and body.get("provider") is None
    own = _OWN if guarded else _LEFT_OUT if free else _MODEL
    said = body if body.keys().isdisjoint(own) else {name: value for name, value in body.items() if name not in own}
    if free and not guarded:
        said = {**said, "provider": {**_preferences(said["provider"]), "max_price": dict(NO_PRICE)}}
    inside = _json(said)[1:-1]
    end = _GUARD if guarded else b""
    return Written(b",%b%b" % (inside, end) if inside else end, body.get("stream") is True, not said.keys() <= _KNOWN)


def call_for(
    path: Path, model: str, body: Written, upstreams: Upstreams, attribution: Attribution = ATTRIBUTION
) -> Call:
    """Return the call for a request on a path with a model.

    Raises:
        InvalidRequest: the key is missing, or the model is not free.
    """
    if not upstreams.allow_paid and not is_free_id(model):
        raise InvalidRequest(
            f"{model!r} is not a free model (its id does not end in {FREE_SUFFIX!r}, its only suffix); take it out "
            "of the cascade, or set ROLLOUT_ALLOW_PAID=1",
            field="cascade",
        )
    url, headers = _route(path, upstreams, attribution)
    if path is Path.OPENROUTER:
        return Call(url, headers, b"%b%b}" % (_to_openrouter(model), body.said))
    return Call(url, headers, b'%b,"extra_body":{%b}}' % (_to_litellm(model, body.stream), body.said[1:]))


@lru_cache(maxsize=256)
def _to_openrouter(model: str) -> bytes:
    return _json({"model": model})[:-1]


@lru_cache(maxsize=256)
def _to_litellm(model: str, stream: bool) -> bytes:  # noqa: FBT001 - a key of the cache
    own = {"model": f"openrouter/{model}", "messages": _SHOWN_TO_LITELLM, "stream": stream, "disable_fallbacks": True}
    if stream:
        # otherwise the gateway drops the chunk that says what was used, and so the proof that it cost nothing
        own["stream_options"] = {"include_usage": True}
    return _json(own)[:-1]


_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")  # two characters in Python; what read JSON has joined them
_REPLACED: Final = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_encode: Final = JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


def _json(document: Mapping[str, Any]) -> bytes:
    try:
        text = _encode(document)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be said in JSON: {error}; use plain values") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _PAIR.sub(_joined, text).translate(_REPLACED).encode()


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le")


_GUARD: Final = b"," + _json({"provider": {"max_price": dict(NO_PRICE)}})[1:-1]
_MODEL: Final = frozenset({"model"})
_LEFT_OUT: Final = _MODEL | CASCADES
_OWN: Final = _LEFT_OUT | {"provider"}


def _preferences(provider: Any) -> Mapping[str, Any]:
    if not isinstance(provider, Mapping):
        raise InvalidRequest(
            f"provider must be an object of OpenRouter's preferences, not {shown(provider)}", field="provider"
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
