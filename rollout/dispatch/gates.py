"""One gate per process: what its paths, models and account are like is shared by everything that sends in it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Final

from rollout.resilience.gate import Gate
from rollout.resilience.quota import QuotaLimits
from rollout.settings import Upstreams


def make_gate(upstreams: Upstreams, *, clock: Callable[[], float], wall: Callable[[], float]) -> Gate:
    """Return a gate with the account's limits; `clock` in monotonic seconds, `wall` in seconds since the epoch."""
    return Gate(limits_of(upstreams), clock=clock, wall=wall, chance=random.random)


def limits_of(upstreams: Upstreams) -> QuotaLimits:
    """Return the account's limits."""
    return QuotaLimits(upstreams.free_requests_per_minute, upstreams.free_requests_per_day)


_forks: Final = [0]
"""How often this process was forked from one that had loaded this; asking for the process's id costs a system call."""


def _forked() -> None:
    _forks[0] += 1


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_forked)


class OwnGate:
    """This process's gate, made when it is first asked for.

    A forked child makes its own: the lock of its parent's may have been held at that moment, for ever.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Gate], given: Gate | None = None) -> None:
        self._make = make
        self._made: dict[int, Gate] = {_forks[0]: given} if given else {}

    def get(self) -> Gate:
        """Return it; of many threads that come first at once the first one's stays."""
        forks = _forks[0]
        return self._made.get(forks) or self._made.setdefault(forks, self._make())
