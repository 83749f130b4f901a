"""The shape of a request's body, checked once for the functions, the endpoint and the transports. Pure.

Every value that OpenRouter's documentation gives a type is checked for that type, because a body of another shape
fails at every model and so would look like a fault of all of them. What is not known passes: a field, a field of a
message, the type of a part. The upstream decides about those, and extras.py decides what they may cost.

Only the outer shape is looked at, down to the fields of a part, so that the cost grows with the number of messages
and parts and not with how deeply they are nested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from reprlib import Repr
from typing import Any, Final, NamedTuple

from rollout.domain.errors import InvalidRequest

ROLES: Final = ("assistant", "developer", "function", "system", "tool", "user")
_USUAL_ROLES: Final = ("user", "assistant", "system")
_USUAL_FIELDS: Final = {"role", "content"}

_SHOWN: Final = Repr()
_SHOWN.maxlevel, _SHOWN.maxdict, _SHOWN.maxlist, _SHOWN.maxtuple = 1, 3, 3, 3
_SHOWN.maxstring = _SHOWN.maxother = 80


class _Kind(NamedTuple):
    """What a value has to be: a test, and how the error calls it."""

    fits: Callable[[Any], bool]
    called: str


def shown(value: object) -> str:
    """Return a value as an error quotes it: at most about 80 characters of each text in it, whatever its size."""
    if isinstance(value, Mapping):
        value = dict(islice(value.items(), 4))  # one more than is shown; otherwise all of its keys would be sorted
    try:
        return _SHOWN.repr(value)
    except (ValueError, RecursionError):  # a number with more digits than Python writes, or an object nested too deeply
        return f"a value of type {type(value).__name__}"


def check_shape(body: Mapping[str, Any]) -> None:
    """Check that a body has the shape of a chat completion.

    A field that is None counts as not given.

    Raises:
        InvalidRequest: it has another shape; `field` is the path to what is wrong, such as `messages[0].content`.
    """
    messages = body.get("messages")
    if not isinstance(messages, list | tuple) or not messages:
        raise InvalidRequest(
            "messages must be a list with at least one message such as {'role': 'user', 'content': 'Hej'}",
            field="messages",
        )
    for name, value in body.items():
        kind = _FIELDS.get(name)
        if kind is not None and value is not None and not kind.fits(value):
            raise _wrong(name, kind.called, value)
    for index, message in enumerate(messages):
        if not is_usual(message):
            _check_message(message, f"messages[{index}]")


def is_usual(message: object) -> bool:
    """Tell whether a message is like nearly every one: a usual role and a text, so that it needs no further look."""
    return (
        type(message) is dict
        and message.keys() == _USUAL_FIELDS
        and type(message["content"]) is str
        and message["role"] in _USUAL_ROLES
    )


def _check_message(message: object, place: str) -> None:
    if not isinstance(message, Mapping):
        raise _wrong(place, "an object with role and content", message)
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise _wrong(f"{place}.role", f"one of {', '.join(ROLES)}", role)
    for name, kind in _FIELDS_OF_A_MESSAGE.items():
        value = message.get(name)
        if value is not None and not kind.fits(value):
            raise _wrong(f"{place}.{name}", kind.called, value)
    if content is None:
        if role != "assistant":
            field = f"{place}.content"
            raise InvalidRequest(f"{field} is missing; give a text or a list of parts", field=field)
    elif isinstance(content, list | tuple):
        for index, part in enumerate(content):
            _check_part(part, place, index)
    elif not isinstance(content, str):
        raise _wrong(f"{place}.content", "a text or a list of parts", content)


def _check_part(part: object, place: str, index: int) -> None:
    if not isinstance(part, Mapping):
        expected = "an object such as {'type': 'text', 'text': ...}"
        raise _wrong(f"{place}.content[{index}]", expected, part)
    kind = part.get("type")
    if kind == "text":
        if not isinstance(part.get("text"), str):
            field = f"{place}.content[{index}].text"
            told = "the part has no text" if part.get("text") is None else f"it is not {shown(part['text'])}"
            raise InvalidRequest(
                f"{field} must be a text, but {told}; give {{'type': 'text', 'text': ...}}", field=field
            )
    elif not isinstance(kind, str) or not kind:
        raise _wrong(f"{place}.content[{index}].type", "the name of a type such as 'text'", kind)
    elif (inside := _INSIDE_A_PART.get(kind)) is not None and not inside.fits(part.get(kind)):
        raise _wrong(f"{place}.content[{index}].{kind}", inside.called, part.get(kind))


def _wrong(field: str, expected: str, value: object) -> InvalidRequest:
    return InvalidRequest(f"{field} must be {expected}, not {shown(value)}", field=field)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, Mapping) for each in value)


def _is_stop(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and all(isinstance(each, str) for each in value))


def _is_format(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("type"), str)


def _has_url(value: object) -> bool:
    url = value.get("url") if isinstance(value, Mapping) else value
    return isinstance(url, str) and bool(url)


_TEXT: Final = _Kind(_is_text, "a text")
_OBJECT: Final = _Kind(_is_object, "an object")
_SWITCH: Final = _Kind(lambda value: isinstance(value, bool), "true or false")
_NUMBER: Final = _Kind(_is_number, "a number")
_WHOLE: Final = _Kind(_is_whole, "a whole number")
_COUNT: Final = _Kind(_is_count, "a whole number of at least 1")
_OBJECTS: Final = _Kind(_is_list_of_objects, "a list of objects")
_ADDRESS: Final = _Kind(_has_url, "an object with a url, such as {'url': 'https://...'}")

_FIELDS: Final[Mapping[str, _Kind]] = {
    "frequency_penalty": _NUMBER,
    "functions": _OBJECTS,
    "logit_bias": _OBJECT,
    "logprobs": _SWITCH,
    "max_completion_tokens": _COUNT,
    "max_tokens": _COUNT,
    "min_p": _NUMBER,
    "n": _COUNT,
    "parallel_tool_calls": _SWITCH,
    "presence_penalty": _NUMBER,
    "provider": _Kind(_is_object, "an object of OpenRouter's preferences"),
    "repetition_penalty": _NUMBER,
    "response_format": _Kind(_is_format, "an object such as {'type': 'json_object'}"),
    "seed": _WHOLE,
    "stop": _Kind(_is_stop, "a text or a list of texts"),
    "stream_options": _OBJECT,
    "temperature": _NUMBER,
    "tool_choice": _Kind(lambda value: isinstance(value, str | Mapping), "a text such as 'auto', or an object"),
    "tools": _Kind(_is_list_of_objects, "a list of tools, each an object"),
    "top_a": _NUMBER,
    "top_k": _WHOLE,
    "top_logprobs": _WHOLE,
    "top_p": _NUMBER,
}
"""The fields of a body whose type OpenRouter's documentation names; `model`, `stream`, `user` are read elsewhere."""

_FIELDS_OF_A_MESSAGE: Final[Mapping[str, _Kind]] = {
    "name": _TEXT,
    "refusal": _TEXT,
    "tool_call_id": _TEXT,
    "tool_calls": _OBJECTS,
}

_INSIDE_A_PART: Final[Mapping[str, _Kind]] = {
    "file": _OBJECT,
    "file_url": _ADDRESS,
    "image_url": _ADDRESS,
    "input_audio": _OBJECT,
    "refusal": _TEXT,
    "video_url": _ADDRESS,
}
"""What a part of a type holds in its field of the same name. OpenRouter takes an address without its object too."""
