"""A seeded population of users, for tests, benchmarks and demonstrations."""

import random
import uuid
from typing import Final

_GIVEN: Final = ("anna", "bo", "camille", "dmitri", "emil", "freja", "goran", "hanne", "ines", "jonas", "kim", "li")
_FAMILY: Final = ("andersen", "berg", "costa", "dahl", "eriksen", "fischer", "garcia", "holm", "ito", "jensen")


def users(seed: int, count: int) -> list[str]:
    """Return `count` distinct plausible user ids: numbers, uuids, mail addresses, prefixed ids.

    The same seed gives the same users, and a larger count only adds to them.

    Raises:
        ValueError: `count` is negative.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count!r}")
    chance = random.Random(seed)  # noqa: S311 - a population for tests, no secret
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(_one(chance))
    return list(found)


def _one(chance: random.Random) -> str:
    number = chance.getrandbits(32)
    match chance.randrange(5):
        case 0:
            return str(number)
        case 1:
            return f"user_{number:08x}"
        case 2:
            return str(uuid.UUID(int=chance.getrandbits(128), version=4))
        case 3:
            return f"{chance.choice(_GIVEN)}.{chance.choice(_FAMILY)}{number % 10_000}@example.com"
        case _:
            return f"auth0|{chance.getrandbits(96):024x}"
