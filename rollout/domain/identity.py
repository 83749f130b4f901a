"""What people and programs may call things: user ids, flag keys, names, reasons, model ids.

The evaluator takes any string at all. What is *stored* has to be one line of printable text, because it is
shown in tables, compared by eye and typed into forms.
"""

from __future__ import annotations

import re
import unicodedata
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

_FLAG_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,79}")
_MODEL_ID: Final = re.compile(r"[A-Za-z0-9~][A-Za-z0-9._~-]*/[A-Za-z0-9][A-Za-z0-9._~-]*(:[a-z0-9-]+)?")


def is_free_id(model: str) -> bool:
    """Say whether a model's id says that it is free: `:free` is its only suffix, and no preset is named in it.

    `a/b:online:free` or `a/b@preset/c:free` could ask for something beside the model that costs.
    """
    return model.endswith(FREE_SUFFIX) and model.count(":") == 1 and "@" not in model


def _printable(text: object, *, field: str, longest: int, empty: bool) -> str:
    if not isinstance(text, str):
        raise InvalidValue(f"{field} must be text, not {text!r}", field=field)
    if len(text) > longest:
        raise InvalidValue(f"{field} is {len(text):,} characters long; {longest} is the most", field=field)
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cs"} or character in "\u2028\u2029":
            raise InvalidValue(
                f"{field} holds the control character {character!r}; use one line of printable text",
                field=field,
            )
    if not empty and not text.strip():
        raise InvalidValue(f"{field} is empty; say which", field=field)
    return text


def check_user_id(text: object, *, field: str = "user") -> str:
    """Return a user id that may be stored: 1 to 256 printable characters, kept exactly as it is.

    Raises:
        InvalidValue: it is empty, too long, or holds control characters or lone surrogates.
    """
    return _printable(text, field=field, longest=MAX_USER_ID, empty=False)


def check_reason(text: object) -> str | None:
    """Return a reason trimmed, None where there is none: at most 500 printable characters on one line.

    Raises:
        InvalidValue: it is too long or holds control characters.
    """
    if text is None:
        return None
    return _printable(text, field="reason", longest=MAX_REASON, empty=True).strip() or None


def check_name(text: object, *, field: str = "name") -> str:
    """Return the name of a person or a program: 1 to 80 printable characters.

    Raises:
        InvalidValue: it is empty, too long, or holds control characters.
    """
    return _printable(text, field=field, longest=MAX_NAME, empty=False).strip()


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
