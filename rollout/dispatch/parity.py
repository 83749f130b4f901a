"""Put back what the gateway moves, renames or drops, so that an answer looks the same whichever path it took. Pure.

LiteLLM reads an answer into its own shape and writes it anew. What it keeps elsewhere is moved back here; what it
drops and nobody can know is named in `LOST_FROM_STREAMS`. A stream that is passed on as bytes is not touched: it
says `STREAM_REWRITES` in a header instead. docs/parity.md has the table of what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rollout.wire.chat import parse_json

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
_MARK: Final = "OpenrouterException - "


def restore(document: Any, *, model: str) -> tuple[Any, tuple[str, ...]]:
    """Return a plain answer of the gateway as the upstream wrote it, and the names of the fields put back.

    Args:
        document: The parsed answer; it is not changed.
        model: The model that was asked for, as the cascade names it.
    """
    return _restored(document, model, "message")


def restore_chunk(chunk: Any, *, model: str) -> tuple[Any, tuple[str, ...]]:
    """Return a chunk of the gateway's stream in the upstream's shape, and the names of the fields put back.

    What the gateway leaves out of a chunk because it says nothing new (a role, no content, no reason to finish) is
    there again, as an application that reads the direct path's chunks expects it.

    Args:
        chunk: The parsed chunk; it is not changed.
        model: The model that was asked for, as the cascade names it.
    """
    return _restored(chunk, model, "delta")


def upstream_model(said: str, model: str) -> str:
    """Return the upstream's id for the model that the gateway's answer names.

    Args:
        said: What the answer says: `openrouter/<id>`, the gateway's own alias (`free-1`), or an id.
        model: The model that was asked for; an alias stands for it.
    """
    if said.startswith(_PREFIX) and "/" in said.removeprefix(_PREFIX):
        return said.removeprefix(_PREFIX)
    return said if "/" in said else model


def upstream_error(error: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the upstream's own error out of the gateway's message about it, None where there is none.

    The gateway puts the upstream's whole answer, as text, into its message. Its `code`, `metadata` and
    `availability` say which of several limits was met, and when it ends.
    """
    message = error.get("message")
    if not isinstance(message, str):
        return None
    _, mark, quoted = message.partition(_MARK)
    if not mark or not quoted.startswith("{"):
        return None
    # sentences of the gateway's own may follow the quotation
    for end in (len(quoted), quoted.rfind("}") + 1):
        try:
            document = parse_json(quoted[:end].encode("utf-8", "replace"))
        except ValueError:
            continue
        inner = document.get("error") if isinstance(document, Mapping) else None
        return inner if isinstance(inner, Mapping) else None
    return None


def usage_is_estimated(chunk: Any) -> bool:
    """Say whether a chunk's usage is the gateway's own guess, because the upstream's never came.

    The upstream's usage always carries its `cost`. A stream of the gateway that ends with a usage without one was
    cut off upstream: the gateway made up its end, `finish_reason` and `[DONE]` included.
    """
    usage = chunk.get("usage") if isinstance(chunk, Mapping) else None
    return isinstance(usage, Mapping) and bool(usage) and usage.get("cost") is None


def _restored(document: Any, model: str, holder: str) -> tuple[Any, tuple[str, ...]]:
    if not isinstance(document, Mapping):
        return document, ()
    restored = dict(document)
    changed: dict[str, None] = {}  # a set that keeps its order
    said = restored.get("model")
    if isinstance(said, str) and (known := upstream_model(said, model)) != said:
        restored["model"] = known
        changed["model"] = None
    _move_back(restored, "", changed)
    choices = restored.get("choices")
    if isinstance(choices, list):
        restored["choices"] = [
            _choice(each, holder, changed) if isinstance(each, Mapping) else each for each in choices
        ]
    return restored, tuple(changed)


def _choice(choice: Mapping[str, Any], holder: str, changed: dict[str, None]) -> dict[str, Any]:
    restored = dict(choice)
    _move_back(restored, "choices.", changed)
    if restored.get("finish_reason") == "stop" and _failed(restored):
        restored["finish_reason"] = "error"
        changed["choices.finish_reason"] = None
    body = restored.get(holder)
    if isinstance(body, Mapping):
        restored[holder] = held = dict(body)
        _move_back(held, f"choices.{holder}.", changed)
        if "reasoning_content" in held and held.get("reasoning") == held["reasoning_content"]:
            del held["reasoning_content"]  # the gateway's second name for the same text
            changed[f"choices.{holder}.reasoning_content"] = None
        if holder == "delta":
            _say(held, "role", "assistant", "choices.delta.", changed)
            _say(held, "content", None if held.get("tool_calls") else "", "choices.delta.", changed)
    if holder == "delta":
        _say(restored, "finish_reason", None, "choices.", changed)
        if restored["finish_reason"] is None:
            _say(restored, "native_finish_reason", None, "choices.", changed)
    _say(restored, "logprobs", None, "choices.", changed)
    return restored


def _failed(choice: Mapping[str, Any]) -> bool:
    # LiteLLM writes "stop" over a finish_reason "error" and keeps the old word as the native one
    return choice.get("native_finish_reason") == "error" or bool(choice.get("error"))


def _move_back(holder: dict[str, Any], where: str, changed: dict[str, None]) -> None:
    elsewhere = holder.pop(_ELSEWHERE, None)
    if isinstance(elsewhere, Mapping):
        for name, value in elsewhere.items():
            if holder.get(name) is None:
                holder[name] = value
                changed[f"{where}{name}"] = None


def _say(holder: dict[str, Any], name: str, value: Any, where: str, changed: dict[str, None]) -> None:
    if name not in holder:
        holder[name] = value
        changed[f"{where}{name}"] = None
