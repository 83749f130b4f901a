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
_FENCE: Final = re.compile(
    r"(`{3,}|~{3,})(?:[ \t]*[^\s`~{\[\"]*[ \t]*(?:\r\n?|\n)|[ \t]*(?:json\w*)?(?=[\s{\[\"]))", re.IGNORECASE
)
"""How a Markdown fence begins: its marks, and perhaps a word for the language; then the end of the line, or at once the
JSON, as models write it on one line."""


class Wanted(NamedTuple):
    """What a request asks of the answer's shape.

    `json`: it is to be JSON, `an_object` an object, with the keys in `required`. `limited`: the caller set a limit
    on tokens. `tools`: the names of the tools that cannot be called without arguments; None if no tool is offered.
    """

    json: bool = False
    an_object: bool = False
    required: tuple[str, ...] = ()
    limited: bool = False
    tools: frozenset[str] | None = None

    @property
    def has_shape(self) -> bool:
        """Tell whether there is more to judge than whether the answer says anything."""
        return self.json or self.tools is not None


_ANYTHING: Final = Wanted()
_LIMITED: Final = Wanted(limited=True)


def wanted_by(body: Mapping[str, Any]) -> Wanted:
    """Return what a request's body asks of the answer's shape; a format that cannot be read asks for nothing."""
    limited = body.get("max_tokens") is not None or body.get("max_completion_tokens") is not None
    nothing = _LIMITED if limited else _ANYTHING
    if body.get("tools") or body.get("functions"):
        nothing = Wanted(limited=limited, tools=_needing_arguments(body))
    shape = body.get("response_format")
    if shape is None or not isinstance(shape, Mapping):
        return nothing
    if shape.get("type") == "json_object":
        return nothing._replace(json=True, an_object=True)
    if shape.get("type") != "json_schema":
        return nothing
    described = shape.get("json_schema")
    schema = described.get("schema") if isinstance(described, Mapping) else None
    if not isinstance(schema, Mapping):
        return nothing._replace(json=True)
    return nothing._replace(json=True, an_object=schema.get("type") == "object", required=_required(schema))


def _required(schema: Any) -> tuple[str, ...]:
    required = schema.get("required") if isinstance(schema, Mapping) else None
    return tuple(each for each in required if isinstance(each, str)) if isinstance(required, list | tuple) else ()


def _needing_arguments(body: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the tools whose parameters are not all optional."""
    tools, functions = body.get("tools"), body.get("functions")
    described = [each.get("function") for each in _mappings(tools)] + _mappings(functions)
    names = ((each.get("name"), each.get("parameters")) for each in _mappings(described))
    return frozenset(name for name, parameters in names if isinstance(name, str) and _required(parameters))


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list | tuple) else []


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
            if wanted.has_shape and (problem := _problem(message, wanted)) is not None:
                return Fault(FailureKind.INVALID_JSON, problem)
    return None if said or cut else EMPTY


def _problem(message: Any, wanted: Wanted) -> str | None:
    if not isinstance(message, dict):
        return None
    if wanted.tools is not None and (problem := _call_problem(message, wanted.tools)) is not None:
        return problem
    return _json_problem(message, wanted) if wanted.json else None


def _call_problem(message: Mapping[str, Any], needing: frozenset[str]) -> str | None:
    """Return what is wrong with the arguments of a message's tool calls, None if nothing is.

    Calls of another kind than functions have free text. No arguments are as good as an empty object.
    """
    functions = [each.get("function") for each in _mappings(message.get("tool_calls"))]
    for function in _mappings([*functions, message.get("function_call")]):
        name, arguments = function.get("name"), function.get("arguments")
        if not arguments or (isinstance(arguments, str) and arguments.isspace()):
            if name in needing:
                return f"the tool {name!r:.100} is called without the arguments that it requires"
        elif isinstance(arguments, str) and not _parsed(arguments).is_json:
            return f"the tool {name!r:.100} is called with arguments that are no JSON"
    return None


def _json_problem(message: Mapping[str, Any], wanted: Wanted) -> str | None:
    content = message.get("content")
    if not isinstance(content, str) or not content or message.get("tool_calls") or message.get("refusal"):
        return None  # a tool call or a refusal is an answer of its own
    parsed = _parsed(content)
    if not parsed.is_json:
        parsed = _parsed(_unfenced(content))
    if not parsed.is_json:
        return "JSON was asked for, and the text is none"
    document = parsed.value
    if not isinstance(document, dict):
        return "a JSON object was asked for, and the text is another value" if wanted.an_object else None
    missing = [key for key in wanted.required if key not in document]
    return f"the JSON lacks {', '.join(map(repr, missing[:5]))}, which its schema requires" if missing else None


class _Parsed(NamedTuple):
    is_json: bool
    value: Any = None


def _parsed(text: str) -> _Parsed:
    try:
        return _Parsed(True, parse_json(_utf8(text)))
    except ValueError:
        return _Parsed(False)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # a stream may send the two halves of a character as two pieces; one half alone stays an error
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le").encode()


def _unfenced(text: str) -> str:
    """Return what stands in the one Markdown fence around a text, nothing if there is no fence around all of it.

    Models often write one although they were asked for JSON alone, and those who read JSON of models take it away.
    Whether it is the only fence the parser finds out: with a second one, what is inside is no JSON.
    """
    text = text.strip()
    begun = _FENCE.match(text)
    if begun is None:
        return ""
    inside = text[begun.end() :].rstrip(begun[1][0])
    closing = len(text) - begun.end() - len(inside)
    return inside if closing >= len(begun[1]) else ""
