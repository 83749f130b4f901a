"""What this process's environment says of `enableLiteLLM`; nothing here raises.

    FORCE_DIRECT_OPENROUTER     yes: killed            unreadable: killed
    LITELLM_ENABLED             beats the stored one   unreadable: share 0
    LITELLM_ROLLOUT_PERCENTAGE  beats the stored one   unreadable: share 0
    LITELLM_FORCE_USERS         a,b,c onto the gateway  unreadable: nobody
    ROLLOUT_KILL_FILE           see `killfile`         no path: killed
    ROLLOUT_DATA_DIR            where it lies else     no path: killed

Empty means unset. What cannot be read fails towards the direct path and is said in a sentence. A name in another case
is not read: that is said too, and a kill under such a name counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rollout.domain.errors import InvalidValue
from rollout.domain.identity import check_user_id, user_id
from rollout.domain.local import LocalOverrides
from rollout.domain.share import parse_percentage
from rollout.settings import (
    DATA_DIR,
    KILL_FILE,
    given,
    read_switch,
    why_assigned,
    why_commented,
    why_no_path,
    why_quoted,
)

KILL: Final = "FORCE_DIRECT_OPENROUTER"
ENABLED: Final = "LITELLM_ENABLED"
PERCENTAGE: Final = "LITELLM_ROLLOUT_PERCENTAGE"
FORCE_USERS: Final = "LITELLM_FORCE_USERS"

_SHOWN: Final = 60
_OTHER_COMMAS: Final = frozenset(";\uff0c\uff1b\u3001\u060c\u061b")
"""The semicolon, and what East Asian and Arabic keyboards have for it and for the comma."""

_NAMES: Final = frozenset({KILL, ENABLED, PERCENTAGE, FORCE_USERS, KILL_FILE})
"""What is read under exactly this name; DATA_DIR has other readers than a kill."""


def read_overrides(environ: Mapping[str, str]) -> LocalOverrides:
    """Read this process's overrides; every value that cannot be read stands in `problems`."""
    problems: list[str] = []
    killed, enabled, share = False, None, None

    if (text := given(environ, KILL)) is not None:
        said = read_switch(text)
        killed = said is not False
        if said is None:
            problems.append(f"{_needs(KILL, text, 'yes or no')}: until then this process is killed, all goes direct")
    if (text := given(environ, PERCENTAGE)) is not None:
        try:
            share = parse_percentage(text)
        except InvalidValue:
            share = 0
            problems.append(f"{_needs(PERCENTAGE, text, 'a number from 0 to 100 in steps of 0.001')}: {_SHARE_0}")
    if (text := given(environ, ENABLED)) is not None:
        enabled = read_switch(text)
        if enabled is None:
            share = 0
            problems.append(f"{_needs(ENABLED, text, 'yes or no')}: {_SHARE_0}")
    force_users, doubts = _users(environ.get(FORCE_USERS, ""))
    problems += doubts
    # where the kill file lies is doubtful: whoever makes it would see nothing happen
    place = KILL_FILE if given(environ, KILL_FILE) is not None else DATA_DIR
    if (text := given(environ, place)) is not None and (why := why_no_path(text)) is not None:
        killed = True
        shown = repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."
        problems.append(f"{place} is {shown} and {why}: until then no kill file is found, so all goes direct")
    for name in environ:
        if name not in _NAMES and (meant := name.strip().upper()) in _NAMES and given(environ, name) is not None:
            # whoever writes the kill switch so would see nothing happen
            kills = meant in {KILL, KILL_FILE} and read_switch(environ[name]) is not False
            killed = killed or kills
            problems.append(
                f"{name!r} is set and is not read: the name of the variable is {meant}"
                + ("; until then this process is killed, all goes direct" if kills else "")
            )
    return LocalOverrides(
        killed=killed,
        enabled=enabled,
        share=share,
        force_users=force_users,
        problems=tuple(problems),
    )


def _users(text: str) -> tuple[frozenset[str], list[str]]:
    """Read a list of users; one that is written in another way than ours names nobody, and that is said."""
    names = [name for part in text.split(",") if (name := user_id(part))]
    why = "another sign than a comma stands between the names" if _OTHER_COMMAS & set(text) else None
    for name in names:
        if name[0] in "[{(<" or name[-1] in "]})>":
            why = "it looks like JSON"
        elif why_quoted(name) is not None:
            why = "a quotation mark stands around a name"
        elif name[0] == "$" or name == "*":
            why = "a variable or a pattern stands for a name"
        elif (doubt := why_commented(name) or why_assigned(name)) is not None:
            why = f"it {doubt}"
        else:
            try:
                check_user_id(name)
            except InvalidValue as error:
                why = error.message
        if why is not None:
            break
    if why is None:
        return frozenset(names), []
    needs = _needs(FORCE_USERS, text, "user ids with commas between them, and nothing around them")
    return frozenset(), [f"{needs} ({why}): until then nobody is forced by this process"]


_SHARE_0: Final = "until then the share of this process is 0"


def _needs(variable: str, text: str, what: str) -> str:
    shown = repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."
    return f"{variable} is {shown} and needs {what}"
