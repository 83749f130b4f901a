"""How far a client has come, as values; the transitions are a table.

A fork, and a reload that names another control plane, begin a new life: IDLE again, with a new `Progress`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_log: Final = logging.getLogger("rollout.client")


class State(StrEnum):
    """Where a client stands."""

    LOCAL = "local"
    """No control plane is named: the environment decides, else direct; nothing runs beside the application."""
    IDLE = "idle"
    """Not asked yet, so not started."""
    CONNECTING = "connecting"
    FOLLOWING = "following"
    FAILING = "failing"
    """The control plane does not answer: the last snapshot decides."""
    REFUSED = "refused"
    """The control plane does not know the access token, or its role does not reach: asked slowly."""
    CLOSED = "closed"
    """Nothing is followed any more; what was known last still decides."""


class Event(StrEnum):
    """What happens to a client."""

    START = "start"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    REFUSED = "refused"
    CLOSE = "close"


_ANSWERED: Final = {
    Event.CONFIRMED: State.FOLLOWING,
    Event.FAILED: State.FAILING,
    Event.REFUSED: State.REFUSED,
    Event.CLOSE: State.CLOSED,
}

TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.LOCAL: {Event.CLOSE: State.CLOSED},
    State.IDLE: {Event.START: State.CONNECTING, Event.CLOSE: State.CLOSED},
    State.CONNECTING: _ANSWERED,
    State.FOLLOWING: _ANSWERED,
    State.FAILING: _ANSWERED,
    State.REFUSED: _ANSWERED,
    State.CLOSED: {},
}
"""What is not in the table changes nothing."""


class Source(StrEnum):
    """Where the snapshot that decides comes from."""

    NONE = "none"
    DISK = "disk"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """What a client knows of itself at one moment.

    `age` is in seconds since the control plane last confirmed the snapshot, None without one; for a copy from
    disk, since it was written. `overridden` says that this process's environment or a kill file departs from
    the stored flag. `problems` are sentences, none of them with a secret.
    """

    state: State
    source: Source
    installation: str | None
    revision: int | None
    age: float | None
    overridden: bool
    problems: tuple[str, ...]


class Progress:
    """One life of a client: its state, its present problem, and a mark once the control plane has answered."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.problem: str | None = None
        self.ready = threading.Event()
        if state is State.LOCAL:
            self.ready.set()

    def happened(self, event: Event, problem: str | None = None) -> None:
        """Move on as the table says; a problem that is new is logged once."""
        if problem is not None and problem != self.problem:
            _log.warning("%s", problem)
        self.state = TRANSITIONS[self.state].get(event, self.state)
        self.problem = problem
        if event is Event.CONFIRMED:
            self.ready.set()
