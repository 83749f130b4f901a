"""Put back what the gateway moves, renames or drops, so that an answer looks the same whichever path it took. Pure.

LiteLLM reads an answer into its own shape and writes it anew. What it keeps elsewhere is moved back here; what it
drops and nobody can know is named in `LOST_FROM_STREAMS`, and by `in_doubt` for a plain answer. A stream that is passed
on as bytes is not touched: it says `STREAM_REWRITES` in a header instead. docs/parity.md has the table of what was
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

REWRITES_HEADER: Final = "X-Rollout-Gateway-Rewrites"
"""The header in which an answer from the gateway says what is different in it, or may be."""

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

STREAM_REWRITES: Final = ("model", "choices.finish_reason", "choices.delta.refusal", *LOST_FROM_STREAMS)
"""What may differ in a stream of bytes from the gateway, as that header's value lists it."""

_PREFIX: Final = "openrouter/"
_ELSEWHERE: Final = "provider_specific_fields"


def restore(document: Any, *, model: str) -> bool:
    """Turn a plain answer of the gateway, in place, into what the upstream wrote; say whether anything was put back.

    Args:
        document: The parsed answer.
        model: The model that was asked for, as the cascade names it.
    """
    return _restore(document, model, "message")


def in_doubt(document: Any) -> tuple[str, ...]:
    """Name what nobody can put back in a plain answer of the gateway, as `REWRITES_HEADER` lists it.

    Args:
        document: The parsed answer as the gateway wrote it, before `restore`.
    """
    choices = [each for each in _choices(document) if isinstance(each.get(_ELSEWHERE), dict)]
    found = []
    if any(_may_be_written_over(each) for each in choices):
        found.append("choices.finish_reason")
    if len(choices) > 1:
        found.append("choices.index")  # LiteLLM numbers them anew, in the order in which they came
    if any(each.get("logprobs") for each in choices):
        found.append("choices.logprobs.refusal")
    return tuple(found)


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


def usage_is_estimated(chunk: Any) -> bool:
    """Tell whether a chunk's usage is the gateway's own guess, because the upstream's never came.

    The upstream's usage always carries its `cost`. A stream of the gateway that ends with a usage without one was
    cut off upstream: the gateway made up its end, `finish_reason` and `[DONE]` included. Ask only about a gateway
    whose streams say a cost at all: those of old releases never do.

    Args:
        chunk: The parsed chunk.
    """
    usage = chunk.get("usage") if isinstance(chunk, Mapping) else None
    return isinstance(usage, Mapping) and bool(usage) and usage.get("cost") is None


def _restore(document: Any, model: str, holder: str) -> bool:
    if not isinstance(document, dict):
        return False
    said = document.get("model")
    changed = isinstance(said, str) and said != (known := upstream_model(said, model))
    if changed:
        document["model"] = known
    if _ELSEWHERE in document:
        changed |= _move_back(document)
    for choice in _choices(document):
        from_gateway = _ELSEWHERE in choice
        if from_gateway:
            changed |= _move_back(choice)
        if choice.get("finish_reason") == "stop" and _failed(choice):
            choice["finish_reason"] = "error"
            changed = True
        body = choice.get(holder)
        if holder == "message" and from_gateway and isinstance(body, dict):
            changed |= _restore_finish(choice, body)
            changed |= _restore_thought(body)
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


def _choices(document: Any) -> list[dict[str, Any]]:
    choices = document.get("choices") if isinstance(document, dict) else None
    return [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []


def _complete(choice: dict[str, Any], delta: Any) -> bool:
    said = delta if isinstance(delta, dict) else {}
    fields = len(choice) + len(said)
    said.setdefault("role", "assistant")
    said.setdefault("content", None if said.get("tool_calls") else "")
    if choice.setdefault("finish_reason", None) is None:
        choice.setdefault("native_finish_reason", None)
    return len(choice) + len(said) > fields


def _restore_finish(choice: dict[str, Any], message: Mapping[str, Any]) -> bool:
    """Put back a reason to finish that LiteLLM wrote over; say whether there was one.

    It writes "stop" over null, and "tool_calls" over "stop" in a message with tool calls. OpenRouter takes null and
    "stop" over from its provider as they are, so the native reason shows which it was. What LiteLLM makes of a word
    it does not know cannot be told from a "stop" whose native reason has that word.
    """
    said = choice.get("finish_reason")
    written_over = ("stop", "tool_calls") if message.get("tool_calls") else ("stop",)
    native = choice.get("native_finish_reason", "unknown")
    if said not in written_over or native == said or native not in (None, "stop"):
        return False
    choice["finish_reason"] = native
    return True


def _may_be_written_over(choice: Mapping[str, Any]) -> bool:
    said, native = choice.get("finish_reason"), choice[_ELSEWHERE].get("native_finish_reason", "unknown")
    return native not in (said, None) and not (native == "stop" and said == "tool_calls")


def _restore_thought(message: dict[str, Any]) -> bool:
    """Put a thought in tags back to the head of the content, from which LiteLLM cut it; say whether there was one.

    LiteLLM does that only for a message without any field for reasoning. An upstream that writes `reasoning_content`
    itself looks the same; OpenRouter's field is `reasoning`.
    """
    thought = message.get("reasoning_content")
    content = message.get("content")
    apart = {"reasoning", "reasoning_details"} & {*message, *(message.get(_ELSEWHERE) or ())}
    if not isinstance(thought, str) or not isinstance(content, str | None) or apart:
        return False
    del message["reasoning_content"]
    message["content"] = f"<think>{thought}</think>{content or ''}"
    return True


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
