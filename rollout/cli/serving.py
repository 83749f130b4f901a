"""How the server's pieces hear of each other: when it listens, what the gateway does, which models there are."""

from __future__ import annotations

import asyncio
import functools
import logging
import signal
import socket
from types import FrameType
from typing import Final

import uvicorn

from rollout.cli.protocol import BoundedProtocol, end_late_messages
from rollout.client.holder import Holder
from rollout.domain.flag import Path
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.http.security import App
from rollout.resilience.gate import Gate
from rollout.resilience.scope import LONGEST_REST
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

    async def on_tick(self, counter: int) -> bool:
        """Look after everything ten times a second; once a second, end what clients hold open."""
        if counter % 10 == 0:
            end_late_messages(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """Stop; a second Ctrl-C does not wait for open requests.

        Uvicorn's own also raises the signal again when it is done, which would end the process before LiteLLM
        was stopped.
        """
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


KEEP_ALIVE_SECONDS: Final = 90
"""How long an idle connection stays open: longer than proxies keep one to us, so that they never send into one that
is being closed. nginx keeps an upstream's for 60 s (`keepalive_timeout`), AWS's load balancer 60 s."""


def server_config(app: App) -> uvicorn.Config:
    """Return how an application is served."""
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        http=BoundedProtocol,
        ws="none",
        server_header=False,
        proxy_headers=False,  # ROLLOUT_TRUSTED_PROXIES says whom to believe; uvicorn's own trusts loopback
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=5,
    )


_HANGS: Final = frozenset({GatewayPhase.UNWELL, GatewayPhase.FAILED})  # the second: another program has the port
_TROUBLE: Final = frozenset({GatewayPhase.UNWELL, GatewayPhase.RESTARTING})


class Phases:
    """Hears what the gateway is doing: logs it, and has its path left alone while it takes requests and answers none.

    Found out by each request, that costs its caller a whole time-out. Where nothing listens no request waits: while
    LiteLLM is installed, and while it starts.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._last: tuple[GatewayPhase, bool, bool] | None = None

    def heard(self, state: GatewayState) -> None:
        """Hear of a state; an installation says something new every moment, and is logged once."""
        news = (state.phase, state.answering, hangs(state))
        if news == self._last:
            return
        before, self._last = self._last, news
        if hangs(state):
            # for as long as a breaker ever rests: should nobody watch any more, a probe finds the way back
            self._gate.rest(Path.LITELLM, state.detail, LONGEST_REST)
        elif state.answering and (before is None or before[2] or before[0] is not state.phase):
            # not after one late answer: what requests found out about the path meanwhile stands
            self._gate.reset(str(Path.LITELLM))
        log.log(level_of(state), "gateway %s: %s", state.phase, state.detail)


def hangs(state: GatewayState) -> bool:
    """Tell whether requests to the gateway would wait for nothing."""
    if state.phase is GatewayPhase.EXTERNAL:
        return not state.answering and state.last_error is not None  # else it was not asked yet
    return state.phase in _HANGS


def level_of(state: GatewayState) -> int:
    """Return how loudly a state is logged."""
    if state.phase is GatewayPhase.FAILED:
        return logging.ERROR
    trouble = state.phase in _TROUBLE or (state.phase is GatewayPhase.EXTERNAL and hangs(state))
    return logging.WARNING if trouble else logging.INFO


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
