"""How long to wait before trying again: full jitter, and what an upstream says where that is sane.

Full jitter, `random(0, min(cap, base * 2**n))`: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from typing import Final

BASE_SECONDS: Final = 0.25
CAP_SECONDS: Final = 8.0


def full_jitter(retry: int, chance: float, *, base: float = BASE_SECONDS, cap: float = CAP_SECONDS) -> float:
    """Return seconds to wait before a retry.

    Args:
        retry: which one, from 0.
        chance: a number in [0, 1).
        base: seconds the first wait is below.
        cap: seconds every wait is below.
    """
    return chance * min(cap, base * 2.0 ** min(retry, 32))
