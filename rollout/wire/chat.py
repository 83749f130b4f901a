"""Chat completions on the wire: what is an answer, what is progress, how an error looks. OpenAI's shapes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

DONE: Final = b"[DONE]"
"""The data of the event that ends a stream."""

_SERVING: Final = ("content", "tool_calls", "function_call", "refusal", "audio", "images")
_DELIVERING: Final = (*_SERVING, "reasoning", "reasoning_content", "reasoning_details")


class Usage(NamedTuple):
    """What an answer says it used: tokens, and `cost` in US dollars; None if it does not say.

    `cost` is also what a provider bills to a key of the account's own.
    """

    prompt_tokens: int | None
    completion_tokens: int | None
    cost: float | None


def parse_json(data: bytes) -> Any:
    """Read a JSON document in UTF-8.

    Raises:
        ValueError: it is no UTF-8, no JSON, nested too deeply, or uses NaN or Infinity, which JSON has not.
    """
    text = data.decode("utf-8").strip(_BLANKS)
    try:
        document, end = _read(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_BLANKS: Final = " \t\n\r"
_read: Final = json.JSONDecoder(parse_constant=_no_constant).raw_decode  # json.loads would build one for each document


def read_event(data: bytes) -> dict[str, Any] | bytes | None:
    """Read the data of one event of a stream.

    Returns:
        The chunk; `DONE` at the end mark, white space around it or not; None if the event says nothing, which is so
        for empty data and for `null`.

    Raises:
        ValueError: it is something else than a JSON object: no JSON, or a number, a text, a list, true or false.
    """
    try:
        chunk = parse_json(data)
    except ValueError:
        said = data.strip()
        if not said:
            return None
        if said == DONE:
            return DONE
        raise
    if chunk is None or isinstance(chunk, dict):
        return chunk
    raise ValueError("it is JSON, but no object")


def dump_json(document: Any) -> bytes:
    """Write a document as compact ASCII JSON; escapes keep even lone surrogates sendable.

    Raises:
        TypeError: it holds something that JSON has no word for.
        ValueError: it holds NaN or Infinity, or itself.
    """
    return _encode(document).encode("ascii")


_encode: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def error_in(document: Any) -> Mapping[str, Any] | None:
    """Return the error that a parsed document carries at its top level, None where there is none.

    An error that is text alone is returned as an object with that message.
    """
    if not isinstance(document, dict):
        return None
    return _as_error(document.get("error"))


def _as_error(error: Any) -> Mapping[str, Any] | None:
    if not error:
        return None
    return error if isinstance(error, dict) else {"message": str(error)}


def is_completion(document: Any) -> bool:
    """Tell whether a parsed document is an answer at all: an object with at least one choice."""
    choices = document.get("choices") if isinstance(document, dict) else None
    return isinstance(choices, list) and bool(choices)


def choices_in(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a parsed answer or chunk; what is no object is left out."""
    choices = document.get("choices")
    return [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []


def error_of_choice(choice: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return why a choice failed, None where it did not; an empty object where nobody says why.

    The gateway rewrites `finish_reason: "error"` to `stop`; the truth is then in `provider_specific_fields`.
    """
    if (error := choice.get("error")) or choice.get("finish_reason") == "error":
        return _as_error(error) or {}
    if choice.get("native_finish_reason") == "error":
        return {}
    for holder in (choice, choice.get("message"), choice.get("delta")):
        fields = holder.get("provider_specific_fields") if isinstance(holder, dict) else None
        if isinstance(fields, dict):
            if error := fields.get("error"):
                return _as_error(error)
            if fields.get("native_finish_reason") == "error":
                return {}
    return None


def serves(message: Any) -> bool:
    """Tell whether a message, or a delta, holds anything of an answer: text, a tool call, a refusal, audio, images.

    White space is no text, and reasoning is no answer.
    """
    if not isinstance(message, dict):
        return False
    for name in _SERVING:
        value = message.get(name)
        if value and not (isinstance(value, str) and value.isspace()):
            return True
    return False


def delivers(choice: Mapping[str, Any]) -> bool:
    """Tell whether a choice of a chunk brings the caller something: content, a tool call, or reasoning.

    A choice with nothing but a role is a sign of life, not progress; nor is an end that nothing came before, nor
    white space, of which a model that lost its way sends one token after the other.
    """
    delta = choice.get("delta")
    if isinstance(delta, dict):
        for name in _DELIVERING:
            value = delta.get(name)
            if value and not (isinstance(value, str) and value.isspace()):
                return True
    text = choice.get("text")
    return bool(text) and not (isinstance(text, str) and text.isspace())


def usage_in(document: Any) -> Usage | None:
    """Return what an answer, or a chunk, says it used; None where it says nothing."""
    usage = document.get("usage") if isinstance(document, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    # by type, as true and false are whole numbers too
    return Usage(
        prompt if type(prompt) is int else None,
        completion if type(completion) is int else None,
        _cost(usage),
    )


def _cost(usage: Mapping[str, Any]) -> float | None:
    """Return what an answer cost its account: what OpenRouter charges, else what a provider bills to the account's key.

    The second is told in `cost_details`, whole and in parts, and `cost` is 0 then.
    """
    cost = _amount(usage.get("cost"))
    details = usage.get("cost_details")
    if not isinstance(details, dict) or (cost is not None and cost > 0):
        return cost
    told = [_amount(value) for name, value in details.items() if name.startswith("upstream_inference")]
    return max((each for each in told if each is not None and each > 0), default=cost)


def _amount(value: Any) -> float | None:
    # a price may be told as text, as the prices in the list of models are
    if type(value) not in (int, float, str):
        return None
    try:
        amount = float(value)
    except (ValueError, OverflowError):
        return None
    return amount if isfinite(amount) else None


def served_model(document: Any) -> str | None:
    """Return the model that a document says answered, None where it does not say."""
    model = document.get("model") if isinstance(document, dict) else None
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
