"""How well the two paths serve, in words: by the supervisor, by the upstream's watch, by this process's breakers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from rollout.domain.flag import Path
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from rollout.http.pages.words import count
from rollout.http.plane import Plane
from rollout.resilience.breaker import BreakerState, BreakerStatus
from rollout.resilience.permit import GateStatus
from rollout.resilience.quota import Cap


class Tone(StrEnum):
    """How well something is: never a colour alone, always beside a word."""

    GOOD = "good"
    BUSY = "busy"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class PathView:
    """A path in a word, with how well that is; `why` says more, `since` is when it began, None where nobody knows."""

    word: str
    tone: Tone
    why: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Paths:
    """Both paths at one moment; `capped` where nothing is sent on either."""

    direct: PathView
    gateway: PathView
    capped: bool = False


UPSTREAM_TONES: Final[Mapping[UpstreamPhase, Tone]] = {
    UpstreamPhase.UNKNOWN: Tone.BUSY,
    UpstreamPhase.OK: Tone.GOOD,
    UpstreamPhase.UNREACHABLE: Tone.BAD,
    UpstreamPhase.KEY_MISSING: Tone.BAD,
    UpstreamPhase.KEY_REFUSED: Tone.BAD,
}

_GATEWAY: Final[Mapping[GatewayPhase, tuple[str, Tone]]] = {
    GatewayPhase.WAITING: ("not started yet", Tone.BUSY),
    GatewayPhase.INSTALLING: ("installing", Tone.BUSY),
    GatewayPhase.STARTING: ("starting", Tone.BUSY),
    GatewayPhase.HEALTHY: ("healthy", Tone.GOOD),
    GatewayPhase.UNWELL: ("unwell", Tone.BAD),
    GatewayPhase.RESTARTING: ("restarting", Tone.BAD),
    GatewayPhase.FAILED: ("failed", Tone.BAD),
    GatewayPhase.STOPPED: ("stopped", Tone.BAD),
}


def gateway_view(state: GatewayState) -> PathView:
    """Say how the gateway's process is; `paths_of` says how its path serves."""
    since = datetime.fromtimestamp(state.since, UTC)
    if state.phase is GatewayPhase.EXTERNAL:
        word, tone = ("answers", Tone.GOOD) if state.answering else ("does not answer", Tone.BAD)
    else:
        word, tone = _GATEWAY[state.phase]
    return PathView(word, tone, since=since)


def paths_of(plane: Plane) -> Paths:
    """Judge both paths: a breaker of this process knows more than whoever asks the gateway or the upstream."""
    status = plane.gate.status() if plane.gate else None
    live = plane.published.cascade.live
    direct, gateway = _direct(plane.upstream()), gateway_view(plane.gateway())
    if status is not None and status.quota.blocked_by is Cap.DAY:
        none_left = PathView("capped", Tone.BAD, "today's free requests are used up")
        return Paths(none_left, none_left if gateway.tone is Tone.GOOD else gateway, capped=True)
    if status is not None:
        direct = _by_breakers(direct, status, Path.OPENROUTER, live)
        gateway = _by_breakers(gateway, status, Path.LITELLM, live)
    return Paths(direct, gateway)


def why_failing(status: GateStatus, path: Path, live: tuple[str, ...]) -> str:
    """Say what a path fails with, `server error, 8 in a row`; empty where a request on it is let through.

    A path fails where its own breaker is open, or that of every model in the live order.
    """
    closed = BreakerState.CLOSED
    lines = [line for line in status.breakers if line.path is path and line.status.state is not closed]
    whole = next((line for line in lines if line.model is None), None)
    if whole is not None:
        return why(whole.status)
    resting = {line.model: line.status for line in lines if line.model is not None}
    if not live or not set(live) <= resting.keys():
        return ""
    if len(live) == 1:
        return f"its only model rests: {why(resting[live[0]])}"
    return f"all its {count(len(live), 'model')} rest; the first: {why(resting[live[0]])}"


def why(status: BreakerStatus) -> str:
    """Say what a breaker counted: `server error, 8 in a row`."""
    said = (status.why or "reason not said").replace("_", " ")
    return f"{said}, {status.failures:,} in a row" if status.failures > 1 else said


def _direct(upstream: UpstreamState) -> PathView:
    since = None if upstream.checked_at is None else datetime.fromtimestamp(upstream.checked_at, UTC)
    match tone := UPSTREAM_TONES[upstream.phase]:
        case Tone.GOOD:
            return PathView("answers", tone, since=since)
        case Tone.BUSY:
            return PathView("not asked yet", tone)
        case Tone.BAD:
            return PathView("not usable", tone, upstream.detail, since)


def _by_breakers(view: PathView, status: GateStatus, path: Path, live: tuple[str, ...]) -> PathView:
    if view.tone is Tone.BAD or not (failing := why_failing(status, path, live)):
        return view
    return PathView("failing", Tone.BAD, failing)
