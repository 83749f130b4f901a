"""How the server's pieces hear of each other: when it listens, what the gateway does, which models there are."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import socket
from types import FrameType

import uvicorn

from rollout.client.holder import Holder
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.settings import Upstreams

log = logging.getLogger("rollout")


class Uvicorn(uvicorn.Server):
    """Uvicorn, telling when it listens, and leaving the process's end to us."""

    def __init__(self, config: uvicorn.Config, on_started: functools.partial[None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets)
        if self.started:
            await asyncio.to_thread(self._on_started)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Stop; a second Ctrl-C does not wait for open requests.

        Uvicorn's own also raises the signal again when it is done, which would end the process before LiteLLM
        was stopped.
        """
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


class Phases:
    """Logs what the gateway is doing, once for each phase: an installation says something new every moment."""

    def __init__(self) -> None:
        self._last: GatewayPhase | None = None

    def heard(self, state: GatewayState) -> None:
        """Hear of a state."""
        if state.phase is not self._last:
            self._last = state.phase
            log.info("gateway %s: %s", state.phase, state.detail)


class Deciding:
    """The holder as the completions endpoint asks it; without a snapshot the cascade is empty."""

    def __init__(self, holder: Holder, upstreams: Upstreams) -> None:
        self.evaluate = holder.evaluate
        self.upstreams = upstreams
        self._holder = holder

    @property
    def cascade(self) -> tuple[str, ...]:
        """Return the installation's model ids."""
        return self._holder.cascade or ()

    def wait_until_ready(self, _timeout: float, /) -> bool:
        """Say that there is nothing to wait for: the snapshot is made in this process."""
        return True
