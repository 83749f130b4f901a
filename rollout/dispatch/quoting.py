"""What the gateway's error quotes of the upstream's, and whether it is an error of the gateway's own code. Pure.

LiteLLM passes an upstream's error on as text inside its own message: the whole JSON for an HTTP error, and for an error
inside a stream its message and its metadata, which are written as Python writes them. If its own code fails on an
answer, it tells that in the same form and with the status of a wrong request (400) or of a lost connection (500).
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Mapping
from typing import Any, Final

from rollout.dispatch.words import LONGEST_TEXT, QUOTES, told_in_stream
from rollout.wire.chat import error_in, parse_json

_UNEXPECTED: Final = "Got unexpected response from OpenRouter: "
_OWN_CODE: Final = re.compile(
    r"""
      Traceback\ \(most\ recent | \bKeyError:\  | Got\ unexpected\ response\ from
    | Error\ parsing\ chunk | validation\ errors?\ for\  | Invalid\ response\ object | Error\ in\ response\ object
    | '\w+'\ object\ (?:is|has|does|cannot)\b | \bindices\ must\ be\ | \bindex\ out\ of\ range | \bis\ not\ iterable
    | invalid\ literal\ for\  | not\ supported\ between\ instances | unsupported\ operand\ type | unhashable\ type
    | unexpected\ keyword\ argument | required\ positional\ argument | codec\ can't\ encode
    | can\ only\ concatenate\b | could\ not\ convert\ string\b | expected\ str\ instance | expected\ string\ or\ bytes
    | \(\)\ argument\ must\ be\b | must\ be\ (?:str|real\ number),\ not\b
    | is\ repeating\ the\ same\ chunk
    """,
    re.VERBOSE,
)
"""What Python and pydantic say, and LiteLLM if it gives up on an answer that others could read."""


def upstreams_error(error: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the upstream's own error out of the gateway's, None if it quotes none that can be read."""
    text = str(error.get("message"))[:LONGEST_TEXT]
    mark = QUOTES.search(text)
    if mark is None:
        return None
    quoted = text[mark.end() :]
    if (told := told_in_stream(quoted)) is not None:
        return {"message": told[0], "metadata": _python(told[1])}
    _, unexpected, chunk = quoted.partition(_UNEXPECTED)
    if unexpected:  # a release that does not look for errors in a stream
        inner = error_in(_python(chunk))
        return inner if inner is not None and inner.get("code") else None
    for end in (len(quoted), quoted.rfind("}") + 1):  # sentences of the gateway's own may follow
        try:
            return error_in(parse_json(quoted[:end].encode("utf-8", "replace")))
        except ValueError:
            continue
    return None


def is_own_code(error: Mapping[str, Any]) -> bool:
    """Tell whether the gateway's error tells that its own code failed; ask only if it quotes nothing."""
    return _OWN_CODE.search(str(error.get("message"))[:LONGEST_TEXT]) is not None


def _python(text: str) -> Any:
    """Return a value that Python wrote, None if it cannot be read."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
