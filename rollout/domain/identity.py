"""What people and programs may call things: user ids, flag keys, names, reasons, model ids.

The evaluator takes anything at all, read by `user_id`. What is *stored* has to be one line of printable text, because
it is shown in tables, compared by eye and typed into forms.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum
from typing import Final

from rollout.domain.errors import InvalidValue

MAX_USER_ID: Final = 256
MAX_REASON: Final = 500
MAX_NAME: Final = 80
MAX_DESCRIPTION: Final = 500
MAX_MODEL_ID: Final = 200
MAX_CASCADE: Final = 20

FREE_SUFFIX: Final = ":free"
"""What the id of a model ends with that costs nothing."""

_ADDRESS: Final = re.compile(r" at 0x[0-9A-Fa-f]{4,16}\W*$")
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Characters that `str.isprintable` counts as printable and that show nothing: fillers, and the empty braille cell."""

_FLAG_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,79}")
_MODEL_ID: Final = re.compile(r"[A-Za-z0-9~][A-Za-z0-9._~-]*/[A-Za-z0-9][A-Za-z0-9._~-]*(:[a-z0-9-]+)?")


def is_free_id(model: str) -> bool:
    """Tell whether a model's id says that it is free: `:free` is its only suffix, and no preset is named in it.

    `a/b:online:free` or `a/b@preset/c:free` could ask for something beside the model that costs.
    """
    return model.endswith(FREE_SUFFIX) and model.count(":") == 1 and "@" not in model


def _printable(text: object, *, field: str, longest: int, empty: bool) -> str:
    if not isinstance(text, str):
        raise InvalidValue(f"{field} must be text, not {text!r}", field=field)
    if len(text) > longest:
        raise InvalidValue(f"{field} is {len(text):,} characters long; {longest} is the most", field=field)
    for character in "" if text.isprintable() else text:  # nearly every one is, and then nothing is looked at
        if unicodedata.category(character) in {"Cc", "Cs"} or character in "\u2028\u2029":
            raise InvalidValue(
                f"{field} holds control characters ({character!r}); use one line of printable text",
                field=field,
            )
    if not empty and not text.strip():
        raise InvalidValue(f"{field} is empty; say which", field=field)
    return text


def check_user_id(text: object, *, field: str = "user") -> str:
    """Return a user id that may be stored and sent: trimmed as `user_id` does, 1 to 256 printable characters.

    Raises:
        InvalidValue: it is empty, too long, or holds control characters or lone surrogates.
    """
    trimmed = user_id(text) if isinstance(text, str) else text  # of nothing else the reason is said
    return _printable(trimmed, field=field, longest=MAX_USER_ID, empty=False)


def user_id(who: object) -> str:
    """Return the id of whoever asks as every way in reads it; empty for nobody. Never raises.

    Blanks and invisible characters around an id are no part of it, wherever it comes from. Bytes are read as
    headers are, an enumeration's member is its value, and a framework's user is its name; an anonymous one, and an
    object that has no text of its own, is nobody.
    """
    if type(who) is str:
        if who.isascii() and who[:1].isalnum() and who[-1:].isalnum():
            return who  # nearly every one; some fillers that show nothing count as letters
        return _without_edges(who)
    if who is None:
        return ""
    try:
        return _without_edges(_text_of(who))
    except Exception:  # noqa: BLE001 - evaluation never raises, whatever object an application hands in
        return ""


def user_from_header(value: bytes) -> str:
    """Read a user's id as it stands in a header: UTF-8 if it is valid, else Latin-1."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return _without_edges(text)


def _text_of(who: object) -> str:
    if isinstance(who, Enum):
        return user_id(who.value)
    if isinstance(who, bytes | bytearray | memoryview):
        return user_from_header(bytes(who))
    if isinstance(who, str):
        return str(who)
    if _says(who, "is_anonymous") is True or _says(who, "is_authenticated") is False:
        return ""
    text = str(who)
    # what Python writes of an object without words is another text in each process
    return "" if _ADDRESS.search(text) else text


def _says(who: object, name: str) -> object:
    said = getattr(who, name, None)
    return said() if callable(said) else said


def _without_edges(text: str) -> str:
    start, end = 0, len(text)
    while start < end and _is_invisible(text[start]):
        start += 1
    while end > start and _is_invisible(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_invisible(character: str) -> bool:
    # control characters are none of them: somebody put them there, and they are refused
    return character.isspace() or character in _INVISIBLE or unicodedata.category(character) == "Cf"


def check_reason(text: object) -> str | None:
    """Return a reason trimmed, None where there is none: at most 500 printable characters on one line.

    Raises:
        InvalidValue: it is too long or holds control characters.
    """
    if text is None:
        return None
    return _printable(text, field="reason", longest=MAX_REASON, empty=True).strip() or None


def check_name(text: object, *, field: str = "name") -> str:
    """Return the name of a person or a program, trimmed: 1 to 80 printable characters.

    Names are compared by eye in the ledger, so characters that cannot be seen are refused: those that turn the
    direction of text, join or separate without a width, and blanks other than the space.

    Raises:
        InvalidValue: it is empty, too long, or holds control characters or characters that cannot be seen.
    """
    name = _printable(text, field=field, longest=MAX_NAME, empty=False).strip(" ")
    for character in name:
        if not character.isprintable() or character in _INVISIBLE:
            raise InvalidValue(
                f"{field} holds {character!a}, which cannot be seen; use letters, digits, marks and spaces",
                field=field,
            )
    return name


def check_description(text: object) -> str:
    """Return a flag's description: at most 500 printable characters, may be empty.

    Raises:
        InvalidValue: it is too long or holds control characters.
    """
    return _printable(text, field="description", longest=MAX_DESCRIPTION, empty=True).strip()


def check_flag_key(text: object) -> str:
    """Return a flag's key: a letter, then letters, digits, dots, dashes and underscores, 80 at most.

    Raises:
        InvalidValue: it is anything else.
    """
    if not isinstance(text, str) or not _FLAG_KEY.fullmatch(text):
        shown = text[:90] if isinstance(text, str) else text
        raise InvalidValue(
            f"{shown!r} cannot be a flag's key: a letter, then letters, digits, '.', '_' or '-', 80 at most",
            field="key",
        )
    return text


def check_cascade(models: object, *, allow_paid: bool = False) -> tuple[str, ...]:
    """Return an ordered list of model ids: 1 to 20, each once, each `author/name` with an optional `:variant`.

    Raises:
        InvalidValue: it is empty, too long, repeats a model, holds something that is no model id, or a model
            that is not free while `allow_paid` is off.
    """
    if isinstance(models, str) or not isinstance(models, list | tuple):
        raise InvalidValue("a cascade is a list of model ids", field="models")
    if not models:
        raise InvalidValue("an empty cascade could answer nobody; name at least one model", field="models")
    if len(models) > MAX_CASCADE:
        raise InvalidValue(f"a cascade holds at most {MAX_CASCADE} models, not {len(models)}", field="models")
    for model in models:
        if not isinstance(model, str) or len(model) > MAX_MODEL_ID or not _MODEL_ID.fullmatch(model):
            raise InvalidValue(f"{model!r} is no model id; they look like 'author/name:free'", field="models")
        if not (allow_paid or model.endswith(FREE_SUFFIX)):
            raise InvalidValue(
                f"{model!r} is not free: only ids ending in {FREE_SUFFIX!r} cost nothing. "
                "ROLLOUT_ALLOW_PAID=yes lifts this for teams that pay.",
                field="models",
            )
    repeated = sorted({model for model in models if models.count(model) > 1})
    if repeated:
        raise InvalidValue(f"{repeated[0]!r} stands in the cascade more than once", field="models")
    return tuple(models)
