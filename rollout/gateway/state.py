"""What state the gateway is in, and which state may follow which."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from rollout.gateway.progress import InstallProgress


class GatewayPhase(StrEnum):
    """What the gateway is doing."""

    WAITING = "waiting"  # nothing begun
    INSTALLING = "installing"
    STARTING = "starting"  # the process runs and does not answer yet
    HEALTHY = "healthy"
    UNWELL = "unwell"  # the process runs and stopped answering
    RESTARTING = "restarting"  # it ended; the pause before the next start
    FAILED = "failed"  # something people have to put right; tried again now and then
    STOPPED = "stopped"  # by us
    EXTERNAL = "external"  # not ours: only asked whether it answers


_P = GatewayPhase
TRANSITIONS: Final[Mapping[GatewayPhase, frozenset[GatewayPhase]]] = {
    _P.WAITING: frozenset({_P.INSTALLING, _P.EXTERNAL, _P.STOPPED}),
    _P.INSTALLING: frozenset({_P.STARTING, _P.FAILED, _P.STOPPED}),
    _P.STARTING: frozenset({_P.HEALTHY, _P.RESTARTING, _P.FAILED, _P.STOPPED}),
    _P.HEALTHY: frozenset({_P.UNWELL, _P.RESTARTING, _P.STOPPED}),
    _P.UNWELL: frozenset({_P.HEALTHY, _P.RESTARTING, _P.STOPPED}),
    _P.RESTARTING: frozenset({_P.STARTING, _P.FAILED, _P.STOPPED}),
    _P.FAILED: frozenset({_P.INSTALLING, _P.STARTING, _P.STOPPED}),
    _P.STOPPED: frozenset({_P.INSTALLING, _P.EXTERNAL}),
    _P.EXTERNAL: frozenset({_P.STOPPED}),
}


@dataclass(frozen=True, slots=True)
class GatewayState:
    """The gateway at one moment. Holds no secret.

    Attributes:
        phase: What it is doing.
        detail: The same as a sentence for people, with what to do where something is to be done.
        since: When this phase began, seconds since the epoch (UTC).
        answering: Whether its liveness answered when last asked; what preflight asks for.
        pid: LiteLLM's process id while it runs and is ours.
        restarts: How often it was started again since we began.
        install: How far the installation is, once one began.
        last_error: Why it last ended, failed or did not answer.
        last_error_at: When that was last seen, seconds since the epoch (UTC).
        log: Where its output is.
        release: Which LiteLLM a gateway that is not ours says that it is, None if it does not say.
    """

    phase: GatewayPhase
    detail: str
    since: float
    answering: bool = False
    pid: int | None = None
    restarts: int = 0
    install: InstallProgress | None = None
    last_error: str | None = None
    last_error_at: float | None = None
    log: Path | None = None
    release: str | None = None
