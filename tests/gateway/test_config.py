"""The configuration as a value and as a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from rollout.gateway.config import FREE_WILDCARD, gateway_config, render, write_config

CASCADE = ["z-ai/glm-4.5-air:free", "qwen/qwen3-coder:free", "moonshotai/kimi-k2:free"]
UPSTREAM = "https://upstream.example/api/v1"


def a_config(cascade: Sequence[str] = CASCADE, **changes: Any) -> dict[str, Any]:
    return gateway_config(cascade, **{"upstream_base_url": UPSTREAM, **changes})


def test_each_model_of_the_cascade_gets_an_alias_and_the_wildcard_comes_last() -> None:
    names = [entry["model_name"] for entry in a_config()["model_list"]]
    assert names == ["free-1", "free-2", "free-3", FREE_WILDCARD]


def test_each_alias_falls_back_to_all_below_it() -> None:
    router = a_config()["router_settings"]
    assert router["fallbacks"] == [{"free-1": ["free-2", "free-3"]}, {"free-2": ["free-3"]}]
    assert router["max_fallbacks"] >= 2


@pytest.mark.parametrize("size", [0, 1])
def test_a_cascade_too_short_to_fall_back_has_no_fallbacks(size: int) -> None:
    config = a_config(CASCADE[:size])
    assert config["router_settings"]["fallbacks"] == []
    assert len(config["model_list"]) == size + 1


def test_the_shim_owns_retries_and_breakers_and_a_client_that_leaves_costs_nothing_more() -> None:
    config = a_config()
    assert config["router_settings"]["num_retries"] == 0
    assert config["litellm_settings"]["num_retries"] == 0
    assert config["router_settings"]["disable_cooldowns"] is True
    assert config["general_settings"]["cancel_on_disconnect"] is True
    assert config["general_settings"]["background_health_checks"] is False


def test_a_long_line_of_equal_pieces_ends_no_stream() -> None:
    # what the real LiteLLM makes of it is tested where odd answers are
    assert a_config()["litellm_settings"]["REPEATED_STREAMING_CHUNK_LIMIT"] > 1_000_000


def test_every_entry_keeps_the_user_and_forbids_a_price() -> None:
    for entry in a_config()["model_list"]:
        params = entry["litellm_params"]
        assert params["allowed_openai_params"] == ["user"]
        provider = params.get("provider") or params["extra_body"]["provider"]
        assert set(provider["max_price"].values()) == {0}


def test_keys_are_named_and_never_written() -> None:
    text = render(a_config())
    assert text.count("os.environ/OPENROUTER_API_KEY") == 4
    assert "master_key: os.environ/LITELLM_MASTER_KEY" in text
    assert "sk-" not in text


def test_what_is_rendered_reads_back_as_the_same_values_under_a_comment() -> None:
    text = render(a_config())
    assert text.startswith("# Written by rollout")
    assert yaml.safe_load(text) == a_config()
    assert "&" not in text
    assert " *" not in text


def test_paid_models_pass_only_where_they_are_allowed() -> None:
    with pytest.raises(ValueError, match="ROLLOUT_ALLOW_PAID"):
        a_config(["openai/gpt-5"])
    config = a_config(["openai/gpt-5"], allow_paid=True)
    assert [entry["model_name"] for entry in config["model_list"]] == ["free-1", "openrouter/*"]
    assert "max_price" not in render(config)


@pytest.mark.parametrize(
    "model", ["", "no-slash:free", "a/b/c:free", "a/b:free\n", "a/b :free", "../b:free", "a/ü:free", "a/" + "b" * 300]
)
def test_what_is_no_model_id_is_refused_with_the_form_it_should_have(model: str) -> None:
    with pytest.raises(ValueError, match="author/name:free"):
        a_config([model])


def test_a_model_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="more than once"):
        a_config([CASCADE[0], CASCADE[1], CASCADE[0]])


@pytest.mark.parametrize(
    "url", ["", "ftp://a.example", "https://", "https://user:hush@a.example/v1", "https://a.example/?key=hush"]
)
def test_a_bad_upstream_is_refused_without_repeating_what_may_be_a_secret(url: str) -> None:
    with pytest.raises(ValueError, match="base URL") as caught:
        a_config(upstream_base_url=url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_a_positive_number(seconds: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        a_config(request_timeout=seconds)


def test_a_broken_file_is_written_anew_and_an_equal_one_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "litellm.yaml"
    text = render(a_config())
    assert write_config(path, text)
    assert not write_config(path, text)
    path.write_bytes(text.encode()[:100] + b"\xff\xfe")
    assert write_config(path, text)
    assert path.read_text() == text
    assert [entry.name for entry in path.parent.iterdir()] == ["litellm.yaml"]


def test_a_file_that_cannot_take_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "litellm.yaml"
    path.mkdir()
    with pytest.raises(OSError):
        write_config(path, "x")
    assert list(tmp_path.iterdir()) == [path]
