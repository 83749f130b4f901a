"""The configuration of LiteLLM, made from the cascade.

Two kinds of clients use the gateway, and the file serves both:

- The shim names the model it wants (`openrouter/<id>:free`) and owns retries and the cascade itself. It goes
  through the wildcard entry, so a changed cascade needs no restart, and a paid model matches nothing.
- Every other client asks for an alias (`free-1`); LiteLLM then walks down the rest of the cascade.

No secret is written: keys are named as variables of LiteLLM's environment.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import yaml

from rollout.files import write_whole

FREE_WILDCARD: Final = "openrouter/*:free"
ANY_WILDCARD: Final = "openrouter/*"

# The gateway's own guard, sent with every call: the upstream refuses what would cost anything.
NOTHING_TO_PAY: Final[Mapping[str, int]] = {"prompt": 0, "completion": 0, "request": 0, "image": 0}

# LiteLLM ends a stream after so many equal pieces in a row, 100 unless told otherwise: a table's line of dashes. Models
# that repeat themselves for ever are stopped by their limit of tokens and by the shim's deadlines.
EQUAL_PIECES: Final = 1_000_000_000

_MODEL: Final = re.compile(r"[A-Za-z0-9][\w.~-]*/[A-Za-z0-9][\w.~-]*(:[a-z0-9-]+)?", re.ASCII)
_LONGEST_MODEL: Final = 200

_HEADER: Final = """\
# Written by rollout from the cascade, and written again whenever the cascade changes: edits here are lost.
# Keys are read from LiteLLM's environment; none stands in this file.
"""


def alias(place: int) -> str:
    """Return the name under which other clients ask for the model at one place (from 1) of the cascade."""
    return f"free-{place}"


def gateway_config(
    cascade: Sequence[str],
    *,
    upstream_base_url: str,
    request_timeout: float = 120.0,
    allow_paid: bool = False,
) -> dict[str, object]:
    """Return LiteLLM's configuration as plain values, ready to be rendered.

    Args:
        cascade: Model ids as the upstream lists them (`author/name:free`), best first. May be empty: then the
            gateway serves whatever free model the shim names, and has no aliases.
        upstream_base_url: An OpenRouter-compatible API, such as `https://openrouter.ai/api/v1`.
        request_timeout: Seconds LiteLLM waits for each read from the upstream. Not a total: deadlines are the
            shim's.
        allow_paid: Whether models that are not free may pass.

    Raises:
        ValueError: A model id is malformed, named twice or not free; the URL is not http(s) or carries
            credentials; the timeout is not positive.
    """
    _check_cascade(cascade, allow_paid=allow_paid)
    _check_url(upstream_base_url)
    if not 0 < request_timeout < float("inf"):
        raise ValueError(f"request_timeout must be a positive number of seconds, not {request_timeout!r}")

    def entry(name: str, model: str, *, guard_is_fixed: bool) -> dict[str, object]:
        params: dict[str, object] = {
            "model": model,
            "api_key": "os.environ/OPENROUTER_API_KEY",
            "api_base": upstream_base_url,
            # drop_params would take away who is asking.
            "allowed_openai_params": ["user"],
        }
        if not allow_paid:
            guard = {"provider": {"max_price": dict(NOTHING_TO_PAY)}}
            # What stands in extra_body replaces what a caller sent; what stands beside it is only a default.
            params.update({"extra_body": guard} if guard_is_fixed else guard)
        return {"model_name": name, "litellm_params": params}

    names = [alias(place) for place in range(1, len(cascade) + 1)]
    models = [f"openrouter/{model}" for model in cascade]
    entries = [entry(name, model, guard_is_fixed=True) for name, model in zip(names, models, strict=True)]
    wildcard = ANY_WILDCARD if allow_paid else FREE_WILDCARD
    return {
        # The shim sends the same guard itself, with whatever else its caller wants of providers, as it does on the
        # direct path.
        "model_list": [*entries, entry(wildcard, wildcard, guard_is_fixed=False)],
        "router_settings": {
            "routing_strategy": "simple-shuffle",
            "num_retries": 0,
            "fallbacks": [{name: names[place + 1 :]} for place, name in enumerate(names[:-1])],
            "max_fallbacks": max(1, len(names)),
            # One 404 would cool the wildcard entry, and with it every model. Breakers are the shim's.
            "disable_cooldowns": True,
        },
        "litellm_settings": {
            "num_retries": 0,
            "request_timeout": request_timeout,
            "drop_params": True,
            "telemetry": False,
            "turn_off_message_logging": True,
            "REPEATED_STREAMING_CHUNK_LIMIT": EQUAL_PIECES,
        },
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            # Otherwise a plain call goes on, and costs quota, after its client has left.
            "cancel_on_disconnect": True,
            # Its own checks send real requests.
            "background_health_checks": False,
        },
    }


def render(config: Mapping[str, object]) -> str:
    """Return a configuration as YAML, with a header that says who writes it."""
    return _HEADER + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)


def write_config(path: Path, text: str) -> bool:
    """Write a configuration so that a reader sees the old one or the new one, never half of either.

    Returns:
        Whether the file was changed.

    Raises:
        OSError: The folder cannot be written to.
    """
    try:
        if path.read_text(encoding="utf-8") == text:
            return False
    except (OSError, UnicodeDecodeError):
        pass  # absent or broken: written anew
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode(), forced=True)
    return True


def _check_cascade(cascade: Sequence[str], *, allow_paid: bool) -> None:
    for model in cascade:
        if len(model) > _LONGEST_MODEL or not _MODEL.fullmatch(model):
            raise ValueError(
                f"{model[:_LONGEST_MODEL]!r} is not a model id; write author/name:free, as the upstream lists it"
            )
        if not (allow_paid or model.endswith(":free")):
            raise ValueError(
                f"{model!r} is not a free model: its id does not end in ':free'. "
                "Take it out of the cascade, or set ROLLOUT_ALLOW_PAID"
            )
    twice = sorted({model for model in cascade if list(cascade).count(model) > 1})
    if twice:
        raise ValueError(f"the cascade names {twice} more than once; keep the first of each")


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("the upstream's base URL must start with http:// or https:// and name a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        # The URL itself is not quoted: it may hold a secret.
        raise ValueError(
            "the upstream's base URL must hold neither credentials nor a query; put the key in OPENROUTER_API_KEY"
        )
