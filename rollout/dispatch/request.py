"""What the caller wants, in the parameters of the old `invokeLLM`, turned into a chat completions body. Pure.

Differences to the old function, all of them wider:
- `model`, `max_tokens`/`maxTokens` are honoured; where no limit is given none is sent (it used to be 32,768
  always, more than many free models take).
- `tool_choice: "required"` with several tools is passed on, as OpenAI allows it; with one tool it still
  becomes that tool by name, without tools it is refused.
- an assistant's `tool_calls` and any other field of a message are kept, so that a tool turn can be replayed.
- any other field of OpenAI's (`temperature`, `seed`, `user`, `stream`, ...) is passed through untouched; what stands
  in `extra_body` is as good as said directly.
A parameter that is None is as good as not given. camelCase beats snake_case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from rollout.dispatch.shape import check_shape, is_usual, shown
from rollout.domain.errors import InvalidRequest
from rollout.domain.identity import check_user_id, user_id

_ALIASES: Final = {
    "toolChoice": "tool_choice",
    "maxTokens": "max_tokens",
    "outputSchema": "output_schema",
    "responseFormat": "response_format",
}
_SHAPED: Final = ("tools", "tool_choice", "response_format", "output_schema")
# tuples, not sets: what is looked up in them may be anything, a list too
_PARTS: Final = (
    "file",
    "file_url",
    "image_url",
    "input_audio",
    "input_file",
    "input_image",
    "input_text",
    "input_video",
    "refusal",
    "text",
    "video_url",
)
_TEXT_PART: Final = {"type", "text"}


class Request(NamedTuple):
    """A request as it will be sent, but for the model: `body` is JSON-ready and holds no `model`.

    `model` is what the caller asked for (None: no wish), `user` whom it said it is asking for.
    """

    body: dict[str, Any]
    model: str | None
    stream: bool
    user: object


class Choice(NamedTuple):
    """Which models to try, in order; `substituted` where the caller asked for another."""

    models: tuple[str, ...]
    substituted: bool


def normalise(params: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> Request:
    """Read the old function's parameters: one mapping, keywords, or both (a keyword beats the mapping).

    Raises:
        InvalidRequest: something cannot be sent; the message says what to do.
    """
    if params is not None and not isinstance(params, Mapping):
        raise InvalidRequest(
            f"the parameters must be one mapping such as {{'messages': [...]}} or keywords, not {_kind(params)}"
        )
    given = {**(params or {}), **keywords}
    for name in params or ():
        if not isinstance(name, str):
            raise InvalidRequest(f"parameter names are text, not {name!r}")
    if not _ALIASES.keys().isdisjoint(given):
        for camel, snake in _ALIASES.items():
            if camel in given:
                value = given.pop(camel)
                if value or given.get(snake) is None:
                    given[snake] = value
    body = {name: value for name, value in unpacked(given).items() if value is not None}
    messages = body.get("messages")
    if isinstance(messages, list | tuple):
        body["messages"] = [
            dict(each) if is_usual(each) else _message(each, f"messages[{index}]")
            for index, each in enumerate(messages)
        ]
    if not body.keys().isdisjoint(_SHAPED):
        tools = _tools(body)
        _put(body, "tool_choice", _tool_choice(body.pop("tool_choice", None), tools))
        shape = _response_format(body.pop("response_format", None), body.pop("output_schema", None))
        _put(body, "response_format", shape)
    model, stream, user = checked_model(body.pop("model", None)), checked_stream(body), body.pop("user", None)
    _put(body, "user", checked_user(user))
    check_shape(body)
    return Request(body, model, stream, user)


def choose_models(asked: str | None, cascade: Sequence[str]) -> Choice:
    """Say which models to try: the one asked for first if it stands in the cascade, else the cascade as it is.

    A process that never heard of a cascade tries the model asked for alone; it is no guess of ours.

    Raises:
        InvalidRequest: the cascade is empty and no model was asked for; nothing can be sent.
    """
    if not cascade and asked is not None:
        return Choice((asked,), substituted=False)
    if not cascade:
        raise InvalidRequest(
            "the cascade is empty or not known here, so there is no model to send to; set it with "
            "`rollout cascade set`, check ROLLOUT_URL and ROLLOUT_TOKEN, or name a model",
            field="cascade",
        )
    if asked is None or asked == cascade[0]:
        return Choice(tuple(cascade), substituted=False)
    if asked in cascade:
        return Choice((asked, *(each for each in cascade if each != asked)), substituted=False)
    return Choice(tuple(cascade), substituted=True)


def unpacked(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a body with the fields of its `extra_body` in it, where the OpenAI SDK puts them before it sends.

    Raises:
        InvalidRequest: `extra_body` is no object, or holds another.
    """
    extra = body.get("extra_body")
    if extra is None:
        return body
    if not isinstance(extra, Mapping) or "extra_body" in extra:
        raise InvalidRequest("extra_body must be an object of further fields of the request", field="extra_body")
    return {name: value for name, value in {**body, **extra}.items() if name != "extra_body"}


def checked_model(model: object) -> str | None:
    """Return the model asked for, None where there is no wish.

    Raises:
        InvalidRequest: it is no text.
    """
    if model is None or model == "":
        return None
    if not isinstance(model, str):
        raise InvalidRequest(f"model must be a model id such as 'author/name:free', not {_kind(model)}", field="model")
    return model


def checked_user(who: object, *, field: str = "user") -> str | None:
    """Return whom a request says it is asking for, as every way in reads it; None for nobody.

    Raises:
        InvalidRequest: the id is too long, or holds control characters.
    """
    user = user_id(who)
    return check_user_id(user, field=field) if user else None


def checked_stream(body: Mapping[str, Any]) -> bool:
    """Return whether a body asks for a stream.

    Raises:
        InvalidRequest: `stream` is neither true nor false.
    """
    stream = body.get("stream")
    if stream is None or isinstance(stream, bool):
        return bool(stream)
    raise InvalidRequest(f"stream must be true or false, not {shown(stream)}", field="stream")


def _put(body: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        body[name] = value


def _kind(value: object) -> str:
    return type(value).__name__


def _message(message: Any, place: str) -> Any:
    """Return a message as the API wants it; what is no message is left as it is, for `check_shape` to refuse."""
    if not isinstance(message, Mapping):
        return message
    role, content = message.get("role"), message.get("content")
    kept = {name: value for name, value in message.items() if value is not None and name != "content"}
    if role in ("tool", "function"):
        if content is None:
            return kept
        parts = list(content) if isinstance(content, list | tuple) else [content]
        return {**kept, "content": "\n".join(each if isinstance(each, str) else _as_text(each) for each in parts)}
    kept.pop("tool_call_id", None)
    return {**kept, "content": None if content is None else _content(content, place)}


def _as_text(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest(f"a tool's result must be text or JSON, not {_kind(value)}", field="messages") from None


def _content(content: object, place: str) -> Any:
    if isinstance(content, str):
        return content
    place += ".content"
    if not isinstance(content, list | tuple):
        parts = [_part(content, place)]
    else:
        parts = [_part(each, f"{place}[{index}]") for index, each in enumerate(content)]
    if len(parts) == 1 and parts[0].keys() == _TEXT_PART and isinstance(parts[0]["text"], str):
        return parts[0]["text"]
    return parts


def _part(part: object, place: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping) or part.get("type") not in _PARTS:
        given = part.get("type") if isinstance(part, Mapping) else part
        raise InvalidRequest(
            f"Unsupported message content part {shown(given)} at {place}; use a text, or an object whose type is "
            f"one of {', '.join(_PARTS)}",
            field=place,
        )
    return dict(part)


def _tools(body: Mapping[str, Any]) -> Sequence[Any]:
    tools = body.get("tools")
    if tools is None:
        return ()
    if not isinstance(tools, list | tuple):
        raise InvalidRequest(f"tools must be a list of tools, not {_kind(tools)}", field="tools")
    return tools


def _tool_choice(choice: object, tools: Sequence[Any]) -> Any:
    if not choice:
        return None
    if choice in ("none", "auto"):
        return choice
    if choice == "required":
        if not tools:
            raise InvalidRequest(
                "tool_choice 'required' was provided but no tools were configured; give tools, or leave it out",
                field="tool_choice",
            )
        return _by_name(_tool_name(tools[0])) if len(tools) == 1 else choice
    if isinstance(choice, Mapping):
        if isinstance(choice.get("name"), str):
            return _by_name(choice["name"])
        if isinstance(choice.get("type"), str):
            return dict(choice)
    raise InvalidRequest(
        f"tool_choice must be 'none', 'auto', 'required' or {{'name': ...}}, not {shown(choice)}", field="tool_choice"
    )


def _by_name(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _tool_name(tool: object) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise InvalidRequest(
            "a tool needs a name: {'type': 'function', 'function': {'name': ..., 'parameters': {...}}}", field="tools"
        )
    return name


def _response_format(explicit: object, schema: object) -> Any:
    if explicit:
        if not isinstance(explicit, Mapping) or not isinstance(explicit.get("type"), str):
            raise InvalidRequest(
                "response_format must be an object such as {'type': 'json_object'}", field="response_format"
            )
        described = explicit.get("json_schema")
        if explicit["type"] == "json_schema" and not (isinstance(described, Mapping) and described.get("schema")):
            raise InvalidRequest(
                "responseFormat json_schema requires a defined schema object; "
                "give {'type': 'json_schema', 'json_schema': {'name': ..., 'schema': {...}}}",
                field="response_format",
            )
        return dict(explicit)
    if not schema:
        return None
    if not isinstance(schema, Mapping) or not schema.get("name") or not schema.get("schema"):
        raise InvalidRequest(
            "outputSchema requires both name and schema; give {'name': ..., 'schema': {...}}", field="output_schema"
        )
    described = {"name": schema["name"], "schema": schema["schema"]}
    if isinstance(schema.get("strict"), bool):
        described["strict"] = schema["strict"]
    return {"type": "json_schema", "json_schema": described}
