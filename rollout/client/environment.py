"""What this process's environment says of `enableLiteLLM`; nothing here raises.

    FORCE_DIRECT_OPENROUTER     yes: killed            unreadable: killed
    LITELLM_ENABLED             beats the stored one   unreadable: share 0
    LITELLM_ROLLOUT_PERCENTAGE  beats the stored one   unreadable: share 0
    LITELLM_FORCE_USERS         a,b,c onto the gateway

Empty means unset. What cannot be read fails towards the direct path and is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rollout.domain.errors import InvalidValue
from rollout.domain.identity import user_id
from rollout.domain.local import LocalOverrides
from rollout.domain.share import parse_percentage
from rollout.settings import given, read_switch

KILL: Final = "FORCE_DIRECT_OPENROUTER"
ENABLED: Final = "LITELLM_ENABLED"
PERCENTAGE: Final = "LITELLM_ROLLOUT_PERCENTAGE"
FORCE_USERS: Final = "LITELLM_FORCE_USERS"

_SHOWN: Final = 60


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
    return LocalOverrides(
        killed=killed,
        enabled=enabled,
        share=share,
        force_users=frozenset(name for part in environ.get(FORCE_USERS, "").split(",") if (name := user_id(part))),
        problems=tuple(problems),
    )


_SHARE_0: Final = "until then the share of this process is 0"


def _needs(variable: str, text: str, what: str) -> str:
    shown = repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."
    return f"{variable} is {shown} and needs {what}"
