"""Who asks and what is asked, as the breakers tell them apart: so that one caller cannot open what all share."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Mark(NamedTuple):
    """Two numbers: equal callers have equal ones, and so have equal bodies.

    An unknown caller has its body's number.
    """

    caller: int
    body: int


class Source(Protocol):
    """A request, as the gate sees it."""

    def mark(self) -> Mark:
        """Return its mark; asked for only after something failed, because it costs a pass over the body."""
        ...
