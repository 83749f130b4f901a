"""Where a user stands on a scale of 100,000, the same in every process and for ever.

    bucket = (murmur3_x86_32(f"{salt}:{targeting_key}", seed 0) * 100_000) >> 32

The multiplication spreads 2**32 hash values over 100,000 buckets without the bias of a modulo. The salt is
random, stored, immutable and never derived from the flag's key, so that two flags do not favour the same
users. MurmurHash3: Austin Appleby, public domain, here through mmh3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import mmh3

from rollout.domain.share import WHOLE

HASH_VERSION: Final = 1
"""The contract above; stored beside every salt, so that a later one can exist beside it."""

_hash: Final[Callable[[bytes, int], int]] = mmh3.mmh3_32_uintdigest


def encode_key(targeting_key: str) -> bytes:
    """Encode a key as it enters the hash; lone surrogates pass, so that no string raises."""
    return targeting_key.encode("utf-8", "surrogatepass")


def salt_prefix(salt: str, purpose: str = "") -> bytes:
    """Return the bytes before the key: the salt, a purpose for decisions beside the rollout itself, a colon."""
    return encode_key(f"{salt}/{purpose}:" if purpose else f"{salt}:")


def bucket_of(prefix: bytes, targeting_key: str) -> int:
    """Return the bucket of a key under a prefix made by `salt_prefix`: an integer in [0, 100000)."""
    return (_hash(prefix + encode_key(targeting_key), 0) * WHOLE) >> 32
