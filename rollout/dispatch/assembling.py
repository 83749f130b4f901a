"""A stream put together again as the plain answer it would have been, so that one rule judges both. Pure.

Only what that rule looks at is kept, and only if the request asks something of the answer's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rollout.wire.chat import dump_json

MAX_CHARACTERS: Final = 16 * 1024 * 1024
"""Characters of text and arguments; as many as a single event may hold bytes, and more than any model writes."""


class _Call:
    """One tool call; its arguments come in pieces."""

    __slots__ = ("arguments", "id", "index", "is_function", "name")

    def __init__(self, piece: Mapping[str, Any], name: object) -> None:
        self.index = piece.get("index")
        self.id = piece.get("id")
        self.name = name
        self.is_function = False
        self.arguments: list[str] = []

    def goes_on_with(self, piece: Mapping[str, Any], name: object) -> bool:
        """Tell whether a piece belongs to this call; some models give every call the same index and its own id."""
        if piece.get("index") != self.index:
            return False
        return not (name and self.id and piece.get("id") and piece["id"] != self.id)

    def document(self) -> dict[str, Any]:
        return {"function": {"name": self.name, "arguments": "".join(self.arguments)}} if self.is_function else {}


class _Choice:
    __slots__ = ("calls", "finish", "function_call", "other", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.calls: list[_Call] = []
        self.function_call: _Call | None = None
        self.other: dict[str, Any] = {}
        self.finish: Any = None

    def document(self) -> dict[str, Any]:
        message: dict[str, Any] = {"content": "".join(self.text), **self.other}
        if self.calls:
            message["tool_calls"] = [each.document() for each in self.calls]
        if self.function_call is not None:
            message["function_call"] = self.function_call.document()["function"]
        return {"message": message, "finish_reason": self.finish}


class Assembly:
    """The choices of a stream, put together from their pieces."""

    __slots__ = ("_choices", "_size")

    def __init__(self) -> None:
        self._choices: dict[object, _Choice] = {}
        self._size = 0

    @property
    def is_too_long(self) -> bool:
        """Tell whether more came than is ever kept; nothing is added from there on."""
        return self._size > MAX_CHARACTERS

    def take(self, piece: Mapping[str, Any]) -> None:
        """Take a choice of the next chunk."""
        index = piece.get("index")
        choice = self._choices.setdefault(index if isinstance(index, int) else 0, _Choice())
        choice.finish = piece.get("finish_reason") or choice.finish
        delta = piece.get("delta")
        if not isinstance(delta, dict) or self.is_too_long:
            return
        for name, value in delta.items():
            if name == "content" and isinstance(value, str):
                choice.text.append(value)
                self._size += len(value)
            elif name == "tool_calls":
                for call in value if isinstance(value, list) else ():
                    if isinstance(call, dict):
                        self._call(choice, call)
            elif name == "function_call" and isinstance(value, dict):
                choice.function_call = choice.function_call or _Call({}, value.get("name"))
                self._arguments(choice.function_call, value)
            elif value and name not in ("role", "reasoning", "reasoning_content", "reasoning_details"):
                choice.other[name] = value

    def document(self, *, unknown_finish: str | None = None) -> dict[str, Any]:
        """Return the plain answer; a choice whose reason to finish never came gets `unknown_finish`."""
        choices = [each.document() for each in self._choices.values()]
        for choice in choices:
            choice["finish_reason"] = choice["finish_reason"] or unknown_finish
        return {"choices": choices}

    def _call(self, choice: _Choice, piece: Mapping[str, Any]) -> None:
        function = piece.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        call = next((each for each in reversed(choice.calls) if each.goes_on_with(piece, name)), None)
        if call is None:
            call = _Call(piece, name)
            choice.calls.append(call)
            self._size += 1
        call.name = call.name or name
        if isinstance(function, dict):
            self._arguments(call, function)

    def _arguments(self, call: _Call, function: Mapping[str, Any]) -> None:
        call.is_function = True
        arguments = function.get("arguments")
        if arguments is None:
            return
        text = arguments if isinstance(arguments, str) else dump_json(arguments).decode("ascii")
        call.arguments.append(text)
        self._size += len(text)
