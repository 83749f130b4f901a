import json
from typing import Any

import pytest

from rollout.dispatch.extras import FREE_ENGINE
from rollout.dispatch.paths import Attribution, call_for, write
from rollout.domain.errors import InvalidRequest
from rollout.domain.flag import Path
from rollout.settings import Upstreams
from tests.dispatch.bodies import UNCHANGED, WITH_A_FILE, any_of

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


def test_a_lone_surrogate_is_written_as_the_replacement_character_and_a_pair_as_its_character() -> None:
    said = write({"messages": [{"role": "user", "content": "\ud800a\udc00\ud83d\udc4b\ud83d"}]}).said
    assert json.loads(b"{" + said[1:] + b"}")["messages"][0]["content"] == "\ufffda\ufffd👋\ufffd"


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize("stream", [False, True])
def test_what_the_caller_does_not_say_is_the_same_as_what_it_leaves_to_us(path: Any, stream: bool) -> None:
    plain = {"messages": [{"role": "user", "content": "Hej"}], "stream": stream}
    _, usual = sent(path, body=plain)
    _, said = sent(path, body={**plain, "provider": {}, "model": "x"})
    assert usual == said


@pytest.mark.parametrize("path", list(Path))
def test_what_the_caller_asks_of_a_stream_is_kept(path: Any) -> None:
    _, document = sent(path, body={"stream": True, "stream_options": {"include_obfuscation": False}})
    assert document["stream_options"]["include_obfuscation"] is False


@pytest.mark.parametrize("stream", [False, True])
def test_the_gateway_is_shown_nothing_of_what_the_caller_says(stream: bool) -> None:
    settings = dict.fromkeys(("api_base", "api_key", "additional_drop_params", "fallbacks", "timeout", "metadata"), "x")
    told = {"messages": [{"role": "user", "content": "secret"}], "stop": ["a"], "user": "anna", **settings}
    call, _ = sent(Path.LITELLM, body={"stream": stream, "disable_fallbacks": False, **told})
    document = json.loads(call.body)
    assert document.pop("extra_body") == {
        "stream": stream,
        "disable_fallbacks": False,
        **told,
        "provider": {"max_price": FREE},
    }
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    assert document == {
        "model": "openrouter/one/alpha:free",
        "messages": [{"role": "user", "content": "extra_body"}],
        "stream": stream,
        "disable_fallbacks": True,
        **usage,
    }


@pytest.mark.parametrize("path", list(Path))
def test_the_cascade_is_ours_and_other_models_to_fall_back_to_are_left_out(path: Any) -> None:
    _, document = sent(path, body={"models": ["openai/gpt-5"], "route": "fallback"})
    assert document.keys().isdisjoint({"models", "route"})
    _, document = sent(path, Upstreams("https://or", "sk-or", allow_paid=True), body={"models": ["openai/gpt-5"]})
    assert document["models"] == ["openai/gpt-5"]


PAID = Upstreams("https://or", "sk-or", allow_paid=True)
PDF = {"type": "file", "file": {"file_data": "https://a.b/c.pdf"}}
LOOK = {"type": "function", "function": {"name": "look"}}


def allowed(*tools: Any) -> Any:
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [*tools]}}


COSTLY: Any = [
    *({"plugins": value} for value in any_of({}, {"id": "web"}, "web", 0, False, "", [None], ["web"], [[]], [{}])),
    *(
        {"plugins": [{"id": name}]}
        for name in any_of("web", "Web", " web", "web-fetch", "fusion", "auto-router", "x", 5)
    ),
    {"plugins": [{"id": "context-compression"}, {"id": ["web"]}]},
    {"plugins": [{"id": "context-compression"}, {"id": "web", "enabled": True}]},
    {"plugins": [{"id": "web", "enabled": 0}]},
    {"plugins": [{"id": "web", "enabled": "false"}]},
    {"plugins": [{"id": "context-compression", "engine": "a-model"}]},
    {"plugins": [{"id": "response-healing", "model": "openai/gpt-5"}]},
    *(
        {"plugins": [{"id": "file-parser", "pdf": pdf}]}
        for pdf in any_of("mistral-ocr", [], 5, {"engine": "mistral-ocr"})
    ),
    *(
        {"plugins": [{"id": "file-parser", "pdf": {"engine": engine}}]}
        for engine in any_of("native", "x", "", ["native"])
    ),
    {"plugins": [{"id": "file-parser", "pdf": {"engine": "cloudflare-ai", "fallback": "mistral-ocr"}}]},
    {"plugins": [{"id": "file-parser", "engine": "mistral-ocr"}]},
    {"plugins": [{"id": "file-parser", "enabled": False}]},
    {"plugins": [{"id": "file-parser"}, {"id": "file-parser", "pdf": {"engine": "native"}}]},
    *({"tools": value} for value in any_of({}, "mcp", {"type": "mcp"}, 0, False, ["mcp"], [None], [[]], [{}])),
    *(
        {"tools": [{"type": kind}]}
        for kind in any_of("mcp", "openrouter:web_search", "web_search", "custom", None, ["x"])
    ),
    {"tools": [LOOK, {"type": "mcp", "server_url": "litellm_proxy"}]},
    {"tool_choice": {"type": "openrouter:web_search"}},
    {"tool_choice": {"type": "mcp", "server_label": "x"}},
    {"tool_choice": allowed(LOOK, {"type": "mcp"})},
    {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}},
    {"tool_choice": ["auto"]},
    {"preset": "a"},
    {"preset": {"slug": "a"}},
    *({"service_tier": tier} for tier in any_of("priority", "fast", "flex", "Priority", ["priority"], 1)),
    {"speed": "fast"},
    {"provider": {"order": ["deepinfra", "openai/fast"]}},
    {"provider": {"only": ["openai/Priority"]}},
    {"provider": {"only": "google-vertex/flex"}},
    {"provider": {"only": ["openai/priority "]}},
    {"provider": {"order": ["openai/flex/eu"]}},
    *({"provider": {"order": slugs}} for slugs in any_of({"0": "openai/flex"}, [["openai/flex"]], [None], 5, True)),
    *({"modalities": value} for value in any_of(["image", "text"], ["audio"], "image", {"image": 1})),
    {"audio": {"voice": "alloy"}},
    {"image_config": {"aspect_ratio": "1:1"}},
    {"transforms": ["middle-out", "x"]},
    {"transforms": {"x": 1}},
    {"web_search_options": {}},
    {"web_search": True},
    {"enable_search": True},
    {"search_parameters": {"mode": "auto"}},
    {"x_search_filter": {}},
    {"mcp_servers": [{"url": "https://a.b"}]},
    {"container": "c"},
]
"""What OpenRouter bills beside the model, or what might be such a thing if it could be read."""


@pytest.mark.parametrize("extra", COSTLY, ids=repr)
def test_what_may_be_billed_beside_a_free_model_is_refused_unless_it_was_allowed(extra: Any) -> None:
    (name,) = extra
    with pytest.raises(InvalidRequest, match="ROLLOUT_ALLOW_PAID") as caught:
        sent(Path.OPENROUTER, body=extra)
    assert caught.value.field == name
    for path in Path:
        assert sent(path, PAID, body=extra)[1][name] == extra[name]


@pytest.mark.parametrize(
    "asks",
    [
        {"plugins": [{"id": "context-compression"}]},
        {"plugins": [{"id": "context-compression", "enabled": True, "engine": "middle-out"}]},
        {"plugins": [{"id": "response-healing", "enabled": None}]},
        {"plugins": [{"id": "web", "enabled": False}, {"id": "new", "enabled": False}]},
        {"plugins": [{"id": "file-parser", "max_files": 2, "pdf": {"engine": "pdf-text"}}]},
        {"plugins": []},
        {"tools": [LOOK]},
        {"tools": []},
        {"tool_choice": "required"},
        {"tool_choice": LOOK},
        {"tool_choice": {"type": "auto"}},
        {"tool_choice": {"name": "look"}},
        {"tool_choice": allowed(LOOK)},
        {"service_tier": "auto"},
        {"service_tier": "default"},
        {"speed": "standard"},
        {"provider": {"order": ["deepinfra/fp8", "fast/turbo"], "only": None, "max_price": FREE}},
        {"modalities": ["text"]},
        {"transforms": []},
        {"enable_search": False},
        {"prediction": {"type": "content", "content": "a"}},
        {"cache_control": {"type": "ephemeral"}},
        *(
            {name: None}
            for name in any_of("plugins", "tools", "preset", "service_tier", "modalities", "web_search_options")
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize("path", list(Path))
def test_what_is_known_to_be_free_passes_untouched(path: Any, asks: Any) -> None:
    assert sent(path, body=asks)[1].items() >= asks.items()


def with_a_pdf(**fields: Any) -> Any:
    return {"messages": [{"role": "user", "content": [PDF]}], **fields}


@pytest.mark.parametrize(
    ("plugins", "expected"),
    [
        (None, [{"id": "file-parser", "pdf": {"engine": FREE_ENGINE}}]),
        ([], [{"id": "file-parser", "pdf": {"engine": FREE_ENGINE}}]),
        (
            [{"id": "response-healing"}],
            [{"id": "response-healing"}, {"id": "file-parser", "pdf": {"engine": FREE_ENGINE}}],
        ),
        (
            [{"id": "file-parser", "max_files": 1, "pdf": None}],
            [{"id": "file-parser", "max_files": 1, "pdf": {"engine": FREE_ENGINE}}],
        ),
        (
            [{"id": "file-parser"}, {"id": "file-parser", "pdf": {"engine": None}}],
            [{"id": "file-parser", "pdf": {"engine": FREE_ENGINE}}] * 2,
        ),
        (
            [{"id": "file-parser", "pdf": {"engine": "pdf-text"}}],
            [{"id": "file-parser", "pdf": {"engine": "pdf-text"}}],
        ),
    ],
)
@pytest.mark.parametrize("path", list(Path))
def test_a_file_never_leaves_the_choice_of_its_parser_to_openrouter(path: Any, plugins: Any, expected: Any) -> None:
    said = with_a_pdf(plugins=plugins)
    assert sent(path, body=said)[1]["plugins"] == expected
    assert said == with_a_pdf(plugins=plugins), "what the caller handed in is not changed"
    assert sent(path, PAID, body=said)[1]["plugins"] == plugins


@pytest.mark.parametrize("name", WITH_A_FILE)
def test_whatever_may_be_a_file_names_the_free_parser(name: str) -> None:
    document = sent(Path.OPENROUTER, body={"messages": [{"role": "user", "content": "Hej"}, WITH_A_FILE[name]]})[1]
    assert document["plugins"] == [{"id": "file-parser", "pdf": {"engine": FREE_ENGINE}}]


@pytest.mark.parametrize("name", UNCHANGED)
def test_a_body_without_a_file_names_no_parser(name: str) -> None:
    assert sent(Path.OPENROUTER, body=UNCHANGED[name])[1].get("plugins") == UNCHANGED[name].get("plugins")


@pytest.mark.parametrize("model", ["a/b:online:free", "a/b@preset/c:free", "@preset/a:free", "a/b:free:online", "a/b"])
@pytest.mark.parametrize("path", list(Path))
def test_a_model_whose_id_asks_for_more_than_a_free_model_is_refused(path: Any, model: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a free model"):
        sent(path, model=model)
    assert sent(path, PAID, model=model)[1]["model"].endswith(model)


def test_a_body_with_nothing_of_its_own_is_still_an_object() -> None:
    assert sent(Path.OPENROUTER, body={})[1] == {"model": MODEL, "provider": {"max_price": FREE}}
    assert sent(Path.OPENROUTER, PAID, body={})[1] == {"model": MODEL}
    assert json.loads(sent(Path.LITELLM, PAID, body={})[0].body)["extra_body"] == {}


def test_a_body_is_written_once_and_says_the_same_on_both_paths() -> None:
    body = write({"messages": [{"role": "user", "content": "Hej"}], "seed": 7})
    direct, gateway = (json.loads(call_for(path, MODEL, body, HERE).body) for path in (Path.OPENROUTER, Path.LITELLM))
    assert {**gateway["extra_body"], "model": MODEL} == direct


def test_a_huge_body_is_written_in_a_bounded_time() -> None:
    deep: Any = {"type": "text", "text": "x"}
    for _ in range(200):
        deep = {"type": "tool_result", "content": [deep]}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "x" * 60}] * 100_000 + [deep]}]}
    assert sent(Path.OPENROUTER, body=body)[1]["plugins"]
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidRequest, match="JSON"):
        sent(Path.OPENROUTER, body={"messages": [{"role": "user", "content": [deep]}]})
