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
_OURS: Final = ("model", "provider", "stream_options", "disable_fallbacks")
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
    """A request's body in JSON, written once for all of its attempts, but for the fields that each one sets anew.

    `rest` ends before its closing brace; `asked` is what the caller said in those fields itself.
    """

    rest: bytes
    asked: Mapping[str, Any]
    stream: bool


def write(body: Mapping[str, Any]) -> Written:
    """Write a request's body; fields nobody here knows pass untouched, whatever stands under `model` is left out.

    Raises:
        InvalidRequest: it cannot be said in JSON.
    """
    if body.keys().isdisjoint(_OURS):
        asked, rest = _NOTHING, body
    else:
        asked = {name: body[name] for name in _OURS if name in body and name != "model"}
        rest = {name: value for name, value in body.items() if name not in _OURS}
    return Written(_json(rest)[:-1], asked, body.get("stream") is True)


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
    if body.asked:
        own = _json(_own(path, model, body.asked, stream=body.stream, free=not upstreams.allow_paid))
    else:
        own = _usual(path, model, body.stream, not upstreams.allow_paid)
    return Call(url, headers, b"%b%b%b" % (body.rest, b"," if len(body.rest) > 1 else b"", own[1:]))


def _own(path: Path, model: str, asked: Mapping[str, Any], *, stream: bool, free: bool) -> dict[str, Any]:
    """Return the fields that an attempt sets, what the caller asked for in them kept where it may be."""
    own = {**asked, "model": model}
    if path is Path.LITELLM:
        own["model"] = f"openrouter/{model}"
        own["disable_fallbacks"] = True
        if stream:
            # otherwise the gateway drops the chunk that says what was used, and so the proof that it cost nothing
            options = asked.get("stream_options")
            own["stream_options"] = {**(options if isinstance(options, Mapping) else {}), "include_usage": True}
    if free:
        own["provider"] = {**_provider(asked), "max_price": dict(NO_PRICE)}
    return own


@lru_cache(maxsize=256)
def _usual(path: Path, model: str, stream: bool, free: bool) -> bytes:  # noqa: FBT001 - a key of the cache
    return _json(_own(path, model, _NOTHING, stream=stream, free=free))


def _json(document: Mapping[str, Any]) -> bytes:
    try:
        return dump_json(document)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be said in JSON: {error}; use plain values") from None


def _provider(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    provider = asked.get("provider")
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
