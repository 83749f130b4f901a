"""An attempt as an HTTP call: where it goes, with which key, and what guards the price. Pure.

Both paths carry `provider.max_price` of 0, so that OpenRouter itself refuses whatever costs something. The
gateway is told to retry nothing and to fall back to nothing: retries and the cascade are ours, on both paths. It
is asked for the usage of a stream, which OpenRouter always sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from rollout.domain.errors import InvalidRequest
from rollout.domain.flag import Path
from rollout.domain.identity import FREE_SUFFIX
from rollout.settings import Upstreams
from rollout.wire.chat import dump_json

NO_PRICE: Final[Mapping[str, int]] = MappingProxyType({"prompt": 0, "completion": 0, "request": 0, "image": 0})
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


def call_for(
    path: Path, model: str, body: Mapping[str, Any], upstreams: Upstreams, attribution: Attribution = ATTRIBUTION
) -> Call:
    """Return the call for a request on a path with a model; fields nobody here knows pass untouched.

    Raises:
        InvalidRequest: the key is missing, the model is not free, or the body cannot be said in JSON.
    """
    if not upstreams.allow_paid and not model.endswith(FREE_SUFFIX):
        raise InvalidRequest(
            f"{model!r} is not a free model (its id does not end in {FREE_SUFFIX!r}); take it out of the cascade, "
            "or set ROLLOUT_ALLOW_PAID=1",
            field="cascade",
        )
    url, headers = _route(path, upstreams, attribution)
    document = dict(body)
    if path is Path.LITELLM:
        document["model"] = f"openrouter/{model}"
        document["disable_fallbacks"] = True
        if body.get("stream") is True:
            # otherwise the gateway drops the chunk that says what was used, and so the proof that it cost nothing
            options = body.get("stream_options")
            document["stream_options"] = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
    else:
        document["model"] = model
    if not upstreams.allow_paid:
        document["provider"] = {**_provider(body), "max_price": dict(NO_PRICE)}
    try:
        return Call(url, headers, dump_json(document))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be said in JSON: {error}; use plain values") from None


def _provider(body: Mapping[str, Any]) -> Mapping[str, Any]:
    provider = body.get("provider")
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
