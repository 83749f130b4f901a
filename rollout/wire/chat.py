"""Chat completions on the wire: what is an answer, what is progress, how an error looks. OpenAI's shapes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

DONE: Final = b"[DONE]"
"""The data of the event that ends a stream."""

_DELIVERING: Final = (
    "content",
    "tool_calls",
    "function_call",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
    "refusal",
    "audio",
    "images",
)


def parse_json(data: bytes) -> Any:
    """Read a JSON document in UTF-8.

    Raises:
        ValueError: it is no UTF-8, no JSON, nested too deeply, or uses NaN or Infinity, which JSON has not.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def dump_json(document: Any) -> bytes:
    """Write a document as compact ASCII JSON; escapes keep even lone surrogates sendable.

    Raises:
        TypeError: it holds something that JSON has no word for.
        ValueError: it holds NaN or Infinity, or itself.
    """
    return _encode(document).encode("ascii")


_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def error_in(document: Any) -> Mapping[str, Any] | None:
    """Return the error that a document carries at its top level, None where there is none.

    An error that is text alone is returned as an object with that message.
    """
    if not isinstance(document, Mapping):
        return None
    error = document.get("error")
    if isinstance(error, Mapping):
        return error
    return {"message": str(error)} if error else None


def is_completion(document: Any) -> bool:
    """Say whether a document is an answer at all: an object with at least one choice."""
    if not isinstance(document, Mapping):
        return False
    choices = document.get("choices")
    return isinstance(choices, list) and bool(choices)


def delivers(chunk: Any) -> bool:
    """Say whether a chunk of a stream brings the caller something: content, a tool call, reasoning, or an end.

    A chunk with nothing but a role is a sign of life, not progress.
    """
    if not isinstance(chunk, Mapping):
        return False
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return False
    for choice in choices:
        if not isinstance(choice, Mapping):
            continue
        delta = choice.get("delta")
        if isinstance(delta, Mapping) and any(delta.get(name) for name in _DELIVERING):
            return True
        if choice.get("finish_reason") or choice.get("text"):
            return True
    return False


def served_model(document: Any) -> str | None:
    """Return the model that a document says answered, None where it does not say."""
    model = document.get("model") if isinstance(document, Mapping) else None
    return model if isinstance(model, str) else None


def error_document(message: str, *, kind: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's shape; `kind` becomes its `type`."""
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def error_event(message: str, *, kind: str, code: str | None = None) -> bytes:
    """Return an error as an event inside a stream, in the form clients of OpenAI look for."""
    return b"data: " + dump_json(error_document(message, kind=kind, code=code)) + b"\n\n"


def models_document(models: Iterable[str]) -> dict[str, Any]:
    """Return model ids as OpenAI lists models; who owns one is the part before its slash."""
    entries = [{"id": each, "object": "model", "created": 0, "owned_by": each.partition("/")[0]} for each in models]
    return {"object": "list", "data": entries}
