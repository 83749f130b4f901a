"""What is in an answer: whether it says anything, and whether it is the JSON that was asked for. Pure.

An upstream may answer HTTP 200 and still have failed: `finish_reason` "error", not a word, half a document. What
the caller's own limit on tokens cut off is no failure: it asked for that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from rollout.dispatch.classify import Fault
from rollout.dispatch.words import sentence
from rollout.domain.failure import FailureKind
from rollout.wire.chat import choices_in, error_of_choice, parse_json, serves

EMPTY: Final = Fault(FailureKind.EMPTY, "an answer with neither text nor a tool call in it")
_MARKS: Final = re.compile(r'["\\{}\[\]]')


class Wanted(NamedTuple):
    """What a request asks of the answer's shape.

    `json`: it is to be JSON, `an_object` an object, with the keys in `required`. `limited`: the caller set a limit
    on tokens.
    """

    json: bool = False
    an_object: bool = False
    required: tuple[str, ...] = ()
    limited: bool = False


_ANYTHING: Final = Wanted()
_LIMITED: Final = Wanted(limited=True)


def wanted_by(body: Mapping[str, Any]) -> Wanted:
    """Return what a request's body asks of the answer's shape; a format that cannot be read asks for nothing."""
    limited = body.get("max_tokens") is not None or body.get("max_completion_tokens") is not None
    nothing = _LIMITED if limited else _ANYTHING
    shape = body.get("response_format")
    if shape is None or not isinstance(shape, Mapping):
        return nothing
    if shape.get("type") == "json_object":
        return Wanted(json=True, an_object=True, limited=limited)
    if shape.get("type") != "json_schema":
        return nothing
    described = shape.get("json_schema")
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if not isinstance(schema, Mapping):
        return Wanted(json=True, limited=limited)
    required = schema.get("required")
    keys = tuple(each for each in required if isinstance(each, str)) if isinstance(required, list | tuple) else ()
    return Wanted(json=True, an_object=schema.get("type") == "object", required=keys, limited=limited)


def error_finish(error: Mapping[str, Any]) -> Fault:
    """Return the fault of a choice that its upstream gave up."""
    return Fault(FailureKind.ERROR_FINISH, sentence(error, 'the upstream gave up (finish_reason "error")'))


def judge_answer(document: Mapping[str, Any], wanted: Wanted) -> Fault | None:
    """Return what is wrong with a plain answer that has choices, None where nothing is."""
    said = cut = False
    for choice in choices_in(document):
        if (error := error_of_choice(choice)) is not None:
            return error_finish(error)
        message = choice.get("message")
        if wanted.limited and choice.get("finish_reason") == "length":
            cut = True
        elif serves(message) or choice.get("text"):
            said = True
            if wanted.json and (problem := _json_problem(message, wanted)) is not None:
                return Fault(FailureKind.INVALID_JSON, problem)
    return None if said or cut else EMPTY


def _json_problem(message: Any, wanted: Wanted) -> str | None:
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str) or not content or message.get("tool_calls") or message.get("refusal"):
        return None  # a tool call or a refusal is an answer of its own
    try:
        document = parse_json(content.encode("utf-8", "surrogatepass"))
    except ValueError:
        return "JSON was asked for, and the text is none"
    if not isinstance(document, dict):
        return "a JSON object was asked for, and the text is another value" if wanted.an_object else None
    missing = [key for key in wanted.required if key not in document]
    return f"the JSON lacks {', '.join(map(repr, missing[:5]))}, which its schema requires" if missing else None


class JsonShape:
    """Whether text that comes in pieces is one whole JSON object or array, by its brackets and quotes alone.

    Nothing of the text is kept, so this holds for any length; a document that is cut off is always noticed.
    """

    __slots__ = ("_depth", "_escaped", "_in_text", "_outside")

    def __init__(self) -> None:
        self._depth = 0
        self._in_text = self._escaped = False
        self._outside = 0  # 0 before the document, 1 in it, 2 after it, 3 something else than a document

    @property
    def is_whole(self) -> bool:
        """Say whether exactly one document came, to its end."""
        return self._outside == 2

    def feed(self, text: str) -> None:
        """Take the next piece."""
        if self._outside != 1:
            text = text.lstrip()
            if not text:
                return
            self._outside = 1 if self._outside == 0 and text[0] in "{[" else 3
        if self._outside == 3:
            return
        at = 1 if self._escaped else 0
        self._escaped = False
        while (found := _MARKS.search(text, at)) is not None:
            at = found.end()
            mark = found[0]
            if self._in_text:
                if mark == "\\":
                    self._escaped = at >= len(text)
                    at += 1
                elif mark == '"':
                    self._in_text = False
            elif mark == '"':
                self._in_text = True
            elif mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self._outside = 3 if self._depth < 0 or text[at:].strip() else 2
                    return
