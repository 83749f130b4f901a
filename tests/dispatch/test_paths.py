import json
from typing import Any

import pytest

from rollout.dispatch.paths import Attribution, call_for, write
from rollout.domain.errors import InvalidRequest
from rollout.domain.flag import Path
from rollout.settings import Upstreams

HERE = Upstreams("https://or/api/v1", "sk-or", "http://gw:4000", "sk-gw")
BODY = {"messages": [], "model": "gpt-4o", "x_unknown": {"a": [1, 2.5]}, "provider": {"sort": "price"}}
FREE = {"prompt": 0, "completion": 0, "request": 0, "image": 0}
MODEL = "one/alpha:free"


def sent(path: Any, upstreams: Any = HERE, body: Any = BODY, model: Any = MODEL) -> Any:
    """Return the call, and what reaches OpenRouter of it: LiteLLM writes `extra_body` over the rest."""
    call = call_for(path, model, write(body, free=not upstreams.allow_paid), upstreams)
    document = json.loads(call.body)
    return call, {**document, **document.pop("extra_body", {})} if path is Path.LITELLM else document


def test_the_gateway_is_told_to_retry_nothing_and_to_fall_back_to_nothing() -> None:
    call, document = sent(Path.LITELLM)
    assert call.url == "http://gw:4000/v1/chat/completions"
    assert call.headers["Authorization"] == "Bearer sk-gw"
    assert call.headers["x-litellm-num-retries"] == "0"
    assert document["disable_fallbacks"] is True
    assert document["model"] == "openrouter/one/alpha:free"


def test_openrouter_is_told_who_asks() -> None:
    call, document = sent(Path.OPENROUTER)
    assert call.url == "https://or/api/v1/chat/completions"
    assert call.headers["Authorization"] == "Bearer sk-or"
    assert call.headers["X-Title"] == "llm-rollout"
    assert document["model"] == MODEL
    assert "disable_fallbacks" not in document
    named = call_for(Path.OPENROUTER, MODEL, write(BODY), HERE, Attribution("https://app", "App"))
    assert (named.headers["HTTP-Referer"], named.headers["X-Title"]) == ("https://app", "App")


@pytest.mark.parametrize("path", list(Path))
def test_no_price_is_accepted_on_either_path_and_the_rest_passes_untouched(path: Any) -> None:
    _, document = sent(path)
    assert document["provider"] == {"sort": "price", "max_price": FREE}
    assert document["x_unknown"] == {"a": [1, 2.5]}
    _, document = sent(path, body={"provider": {"max_price": {"prompt": 5}}})
    assert document["provider"]["max_price"] == FREE


@pytest.mark.parametrize("path", list(Path))
def test_a_paid_model_is_refused_unless_it_was_allowed(path: Any) -> None:
    with pytest.raises(InvalidRequest, match="ROLLOUT_ALLOW_PAID"):
        sent(path, model="openai/gpt-5")
    _, document = sent(path, Upstreams("https://or", "sk-or", allow_paid=True), model="openai/gpt-5")
    assert document["provider"] == {"sort": "price"}


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InvalidRequest, match="OPENROUTER_API_KEY is not set"):
        sent(Path.OPENROUTER, Upstreams())
    call, _ = sent(Path.LITELLM, Upstreams())
    assert "Authorization" not in call.headers


def test_a_key_that_no_header_can_carry_is_named_and_not_shown() -> None:
    with pytest.raises(InvalidRequest, match="OPENROUTER_API_KEY") as caught:
        sent(Path.OPENROUTER, Upstreams(openrouter_key="sk-or\nsecret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "says"),
    [({"provider": "cheap"}, "provider must be an object"), ({"a": object()}, "JSON"), ({"a": float("nan")}, "JSON")],
)
def test_what_cannot_be_said_in_json_is_refused(body: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        sent(Path.OPENROUTER, body=body)


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_caller_does_not_say_is_the_same_as_what_it_leaves_to_us(path: Any, stream: bool) -> None:
    plain = {"messages": [{"role": "user", "content": "Hej"}], "stream": stream}
    _, usual = sent(path, body=plain)
    _, said = sent(path, body={**plain, "provider": {}, "stream_options": None, "model": "x"})
    if path is Path.OPENROUTER:
        assert said.pop("stream_options") is None
    assert usual == said


@pytest.mark.parametrize("path", list(Path))
def test_what_the_caller_asks_of_a_stream_is_kept(path: Any) -> None:
    _, document = sent(path, body={"stream": True, "stream_options": {"include_obfuscation": False}})
    assert document["stream_options"]["include_obfuscation"] is False


@pytest.mark.parametrize("stream", [False, True])
def test_the_gateway_is_told_nothing_by_the_caller_but_what_it_hands_on(stream: bool) -> None:
    told = dict.fromkeys(("api_base", "api_key", "additional_drop_params", "fallbacks", "timeout", "metadata"), "x")
    call, _ = sent(Path.LITELLM, body={"messages": [], "stream": stream, "disable_fallbacks": False, **told})
    document = json.loads(call.body)
    ours = {"model", "disable_fallbacks", "extra_body"} | ({"stream_options"} if stream else set())
    assert document.keys() == {"messages", "stream"} | ours
    assert document["disable_fallbacks"] is True
    assert document["extra_body"] == {**told, "disable_fallbacks": False, "provider": {"max_price": FREE}}


@pytest.mark.parametrize("path", list(Path))
def test_the_cascade_is_ours_and_other_models_to_fall_back_to_are_left_out(path: Any) -> None:
    _, document = sent(path, body={"models": ["openai/gpt-5"], "route": "fallback"})
    assert document.keys().isdisjoint({"models", "route"})
    _, document = sent(path, Upstreams("https://or", "sk-or", allow_paid=True), body={"models": ["openai/gpt-5"]})
    assert document["models"] == ["openai/gpt-5"]


@pytest.mark.parametrize(
    "extra",
    [
        {"plugins": [{"id": "web"}]},
        {"plugins": [{"id": "context-compression"}, {"id": ["web"]}]},
        {"plugins": ["web"]},
        {"tools": [{"type": "function"}, {"type": "openrouter:web_search"}]},
        {"web_search_options": {}},
    ],
)
def test_what_is_billed_beside_a_free_model_is_refused_unless_it_was_allowed(extra: Any) -> None:
    with pytest.raises(InvalidRequest, match="ROLLOUT_ALLOW_PAID"):
        sent(Path.OPENROUTER, body=extra)
    assert sent(Path.OPENROUTER, Upstreams("https://or", "sk-or", allow_paid=True), body=extra)[1].keys() > extra.keys()


def test_extras_that_cost_nothing_pass() -> None:
    asks = {"plugins": [{"id": "context-compression"}], "tools": [{"type": "function", "function": {"name": "f"}}]}
    assert sent(Path.OPENROUTER, body=asks)[1].items() >= asks.items()


def test_a_body_with_nothing_of_its_own_is_still_an_object() -> None:
    assert sent(Path.OPENROUTER, body={})[1] == {"model": MODEL, "provider": {"max_price": FREE}}


def test_a_body_is_written_once_and_says_the_same_on_both_paths() -> None:
    body = write({"messages": [{"role": "user", "content": "Hej"}], "seed": 7})
    direct, gateway = (json.loads(call_for(path, MODEL, body, HERE).body) for path in (Path.OPENROUTER, Path.LITELLM))
    assert gateway.pop("extra_body") == {"provider": direct.pop("provider")}
    assert {**gateway, "model": MODEL} == {**direct, "disable_fallbacks": True}
