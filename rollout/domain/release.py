"""A release of LiteLLM by its number, and the one from which its streams prove what they cost. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple


class Release(NamedTuple):
    """A release's number; parts such as `rc1` behind it are left out."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


STREAMS_SAY_COST: Final = Release(1, 94, 0)
"""The first release that keeps `usage.cost` in a stream. Measured: 1.84.0 loses it; 1.94.0 and 1.106.2 keep it."""

_NUMBERS: Final = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})")


@lru_cache(maxsize=16)
def parse_release(text: str) -> Release | None:
    """Return the release that a text begins with, None if it begins with none."""
    found = _NUMBERS.match(text)
    return Release(int(found[1]), int(found[2]), int(found[3])) if found else None


def streams_say_cost(text: str | None, *, unknown: bool) -> bool:
    """Tell whether the streams of a release tell their cost.

    Args:
        text: what a gateway says that it is, None if it does not say.
        unknown: the answer if that names no release.
    """
    release = parse_release(text) if text else None
    return unknown if release is None else release >= STREAMS_SAY_COST
