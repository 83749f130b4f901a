"""How often somebody may fail to sign in, for each address and for all together.

Codes are far too long to be guessed, so this guards the server's work and its log, not the codes. It counts failures
alone, and a code that is right is never refused (see `pages/session.py`), so an attacker locks nobody out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final

log = logging.getLogger(__name__)

PER_ADDRESS: Final = (10, 10.0)
"""Failures in a row from one address, and seconds until it has one more."""

OVERALL: Final = (60, 1.0)
"""The same for all addresses together."""

MAX_ADDRESSES: Final = 1_000
"""So many addresses are kept apart; any more share one allowance."""

_LINES: Final = (5, 60.0)
"""Lines in the log in a row, and seconds until there is one more."""


class Allowance:
    """A token bucket: `burst` at once, then one more every `seconds`."""

    __slots__ = ("_at", "_burst", "_left", "_seconds")

    def __init__(self, burst: int, seconds: float, now: float) -> None:
        self._burst, self._seconds = burst, seconds
        self._left, self._at = float(burst), now

    def left(self, now: float) -> float:
        """Return what is left at a moment, in units."""
        return min(self._burst, self._left + (now - self._at) / self._seconds)

    def wait(self, now: float) -> float:
        """Return the seconds until there is one; 0 if there is one now."""
        return max(0.0, (1 - self.left(now)) * self._seconds)

    def take(self, now: float) -> None:
        """Use one up, if there is one."""
        self._left, self._at = max(0.0, self.left(now) - 1), now


class Throttle:
    """Counts failed sign-ins. Used on the event loop alone; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        now = clock()
        self._all = Allowance(*OVERALL, now)
        self._others = Allowance(*PER_ADDRESS, now)
        self._addresses: dict[str, Allowance] = {}
        self._lines = Allowance(*_LINES, now)
        self._unsaid = 0

    def wait(self, address: str) -> int:
        """Return the whole seconds that an address has to wait before it may fail again; 0 if it need not wait."""
        now = self._clock()
        return ceil(max(self._all.wait(now), self._addresses.get(_network(address), self._others).wait(now)))

    def failed(self, address: str) -> None:
        """Count a failure and put it on record; many in a short time become one line."""
        now, network = self._clock(), _network(address)
        self._all.take(now)
        self._of(network, now).take(now)
        self._unsaid += 1
        if not self._lines.wait(now):
            self._lines.take(now)
            log.warning("%d failed sign-in(s), the last one from %s", self._unsaid, network)
            self._unsaid = 0

    def _of(self, network: str, now: float) -> Allowance:
        found = self._addresses.get(network)
        if found is None:
            if len(self._addresses) >= MAX_ADDRESSES:
                full = PER_ADDRESS[0]
                self._addresses = {name: each for name, each in self._addresses.items() if each.left(now) < full}
            if len(self._addresses) >= MAX_ADDRESSES:
                return self._others
            found = self._addresses[network] = Allowance(*PER_ADDRESS, now)
        return found


def _network(address: str) -> str:
    """Return what stands for one caller: an address, of IPv6 the 64 bits that a single host is given."""
    try:
        read = ip_address(address)
    except ValueError:
        return address[:100]
    if isinstance(read, IPv6Address):
        return str(read.ipv4_mapped or f"{IPv6Address(int(read) >> 64 << 64)}/64")
    return str(read)
