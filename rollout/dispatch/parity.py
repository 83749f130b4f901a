"""Put back what the gateway moves, renames or drops, so that an answer looks the same whichever path it took. Pure.

LiteLLM reads an answer into its own shape and writes it anew. What it keeps elsewhere is moved back here; what it
drops and nobody can know is named in `LOST_FROM_STREAMS`. A stream that is passed on as bytes is not touched: it
says `STREAM_REWRITES` in a header instead. docs/parity.md has the table of what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from rollout.domain.release import streams_say_cost

REWRITES_HEADER: Final = "X-Rollout-Gateway-Rewrites"
"""The header in which a stream of bytes from the gateway says what is different in it."""

LOST_FROM_STREAMS: Final = (
    "created",
    "provider",
    "service_tier",
    "system_fingerprint",
    "choices.error",
    "choices.native_finish_reason",
    "usage.cost_details",
    "usage.is_byok",
)
"""What a stream through the gateway has lost for good; `created` is the gateway's own time. Fields that the gateway
does not know are lost too, at the top level and in a delta."""

STREAM_REWRITES: Final = ("model", *LOST_FROM_STREAMS)
"""What differs in a stream of bytes from the gateway, as that header's value lists it."""

_PREFIX: Final = "openrouter/"
_ELSEWHERE: Final = "provider_specific_fields"


def restore(document: Any, *, model: str) -> bool:
    """Turn a plain answer of the gateway, in place, into what the upstream wrote; say whether anything was put back.

    Args:
        document: The parsed answer.
        model: The model that was asked for, as the cascade names it.
    """
    return _restore(document, model, "message")


def restore_chunk(chunk: Any, *, model: str) -> bool:
    """Turn a chunk of the gateway's stream, in place, into the upstream's shape; say whether anything was put back.

    What the gateway leaves out of a chunk because it says nothing new (a role, no content, no reason to finish) is
    there again, as an application that reads the direct path's chunks expects it.

    Args:
        chunk: The parsed chunk.
        model: The model that was asked for, as the cascade names it.
    """
    return _restore(chunk, model, "delta")


@lru_cache(maxsize=256)
def upstream_model(said: str, model: str) -> str:
    """Return the upstream's id for the model that the gateway's answer names.

    Args:
        said: What the answer says: `openrouter/<id>`, the gateway's own alias (`free-1`), or an id.
        model: The model that was asked for; an alias stands for it.
    """
    if said.startswith(_PREFIX) and "/" in said.removeprefix(_PREFIX):
        return said.removeprefix(_PREFIX)
    return said if "/" in said else model


def usage_is_estimated(chunk: Any, *, release: str | None = None) -> bool:
    """Say whether a chunk's usage is the gateway's own guess, because the upstream's never came.

    The upstream's usage always carries its `cost`. A stream of the gateway that ends with a usage without one was
    cut off upstream: the gateway made up its end, `finish_reason` and `[DONE]` included. The streams of old releases
    never say a cost, so that behind those nobody can tell.

    Args:
        chunk: The parsed chunk.
        release: Which LiteLLM the gateway says that it is, None if it does not say.
    """
    usage = chunk.get("usage") if isinstance(chunk, Mapping) else None
    if not isinstance(usage, Mapping) or not usage or usage.get("cost") is not None:
        return False
    return streams_say_cost(release)


def _restore(document: Any, model: str, holder: str) -> bool:
    if not isinstance(document, dict):
        return False
    said = document.get("model")
    changed = isinstance(said, str) and said != (known := upstream_model(said, model))
    if changed:
        document["model"] = known
    if _ELSEWHERE in document:
        changed |= _move_back(document)
    choices = document.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        if _ELSEWHERE in choice:
            changed |= _move_back(choice)
        if choice.get("finish_reason") == "stop" and _failed(choice):
            choice["finish_reason"] = "error"
            changed = True
        body = choice.get(holder)
        if isinstance(body, dict):
            if _ELSEWHERE in body:
                changed |= _move_back(body)
            if "reasoning_content" in body and body.get("reasoning") == body["reasoning_content"]:
                del body["reasoning_content"]  # the gateway's second name for the same text
                changed = True
        if holder == "delta":
            changed |= _complete(choice, body)
        if "logprobs" not in choice:
            choice["logprobs"] = None
            changed = True
    return changed


def _complete(choice: dict[str, Any], delta: Any) -> bool:
    said = delta if isinstance(delta, dict) else {}
    fields = len(choice) + len(said)
    said.setdefault("role", "assistant")
    said.setdefault("content", None if said.get("tool_calls") else "")
    if choice.setdefault("finish_reason", None) is None:
        choice.setdefault("native_finish_reason", None)
    return len(choice) + len(said) > fields


def _failed(choice: Mapping[str, Any]) -> bool:
    # LiteLLM writes "stop" over a finish_reason "error" and keeps the old word as the native one
    return choice.get("native_finish_reason") == "error" or bool(choice.get("error"))


def _move_back(holder: dict[str, Any]) -> bool:
    changed = False
    elsewhere = holder.pop(_ELSEWHERE)
    for name, value in elsewhere.items() if isinstance(elsewhere, dict) else ():
        if holder.get(name) is None:
            holder[name] = value
            changed = True
    return changed
