"""How well the two paths serve, in words: by whoever watches them, by the breakers, and by the last requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from rollout.dispatch.recent import WINDOW_SECONDS, Summary
from rollout.domain.evaluate import Cause
from rollout.domain.flag import MAIN_FLAG, Path
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from rollout.http.pages.words import count, kind_in_words
from rollout.http.plane import Plane
from rollout.http.unwell import too_little, unwell_requests
from rollout.resilience.breaker import BreakerState, BreakerStatus
from rollout.resilience.permit import GateStatus
from rollout.resilience.quota import Cap


class Tone(StrEnum):
    """How well something is: never a colour alone, always beside a word."""

    GOOD = "good"
    PART = "part"  # it serves, and something about it rests
    BUSY = "busy"
    BAD = "bad"


_VERBS: Final = ("answers", "does not")


@dataclass(frozen=True, slots=True)
class PathView:
    """A path in a word, with how well that is.

    `why` says more, `since` is when it began and `seen` when a failure was last seen, each None if nobody knows.
    """

    word: str
    tone: Tone
    why: str = ""
    since: datetime | None = None
    seen: datetime | None = None

    @property
    def state(self) -> str:
        """Say the word after a subject: "is healthy", "does not answer"."""
        return self.word if self.word.startswith(_VERBS) else f"is {self.word}"


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
    GatewayPhase.RESTARTING: ("crashed", Tone.BAD),
    GatewayPhase.FAILED: ("failed", Tone.BAD),
    GatewayPhase.STOPPED: ("stopped", Tone.BAD),
}


def gateway_view(state: GatewayState) -> PathView:
    """Say how the gateway's process is; `paths_of` says how its path serves."""
    since, seen = datetime.fromtimestamp(state.since, UTC), _moment(state.last_error_at)
    word, tone = _GATEWAY.get(state.phase, ("answers", Tone.GOOD))
    why = ""
    if state.phase is GatewayPhase.EXTERNAL and not state.answering:
        word, tone = "does not answer", Tone.BAD
    elif state.phase is GatewayPhase.HEALTHY and not state.answering:
        word, tone, since = "does not answer", Tone.BAD, seen or since
    elif state.phase is GatewayPhase.STARTING and state.restarts:
        word, tone = "crashed, starting again", Tone.BAD
    if state.phase in {GatewayPhase.STARTING, GatewayPhase.RESTARTING} and state.restarts:
        why = state.last_error or ""
    return PathView(word, tone, why, since, seen if tone is Tone.BAD else None)


def paths_of(plane: Plane) -> Paths:
    """Judge both paths: a breaker of this process knows more than whoever asks the gateway or the upstream."""
    status = plane.gate.status() if plane.gate else None
    live = plane.published.cascade.live
    direct, gateway = _direct(plane.upstream()), gateway_view(plane.gateway())
    if status is not None and status.quota.blocked_by is Cap.DAY:
        none_left = PathView("capped", Tone.BAD, "today's free requests are used up")
        return Paths(none_left, none_left if gateway.tone is Tone.GOOD else gateway, capped=True)
    if status is not None:
        direct = _by_requests(direct, status, Path.OPENROUTER, live, plane.recent.summary(Path.OPENROUTER))
        gateway = _by_requests(gateway, status, Path.LITELLM, live, plane.recent.summary(Path.LITELLM))
    return Paths(direct, gateway)


def failing_now(plane: Plane, path: Path) -> PathView | None:
    """Say what the requests on a path fail with; None if they do not, or if this process sends none."""
    if plane.gate is None:
        return None
    live, summary = plane.published.cascade.live, plane.recent.summary(path)
    view = _by_requests(PathView("answers", Tone.GOOD), plane.gate.status(), path, live, summary)
    return view if view.tone is Tone.BAD else None


@dataclass(frozen=True, slots=True)
class Preflight:
    """What speaks against raising the share; `note` is said if nothing does, `is_sure` if enough is known for that."""

    problems: tuple[str, ...]
    note: str
    is_sure: bool


def preflight_of(plane: Plane) -> Preflight:
    """Ask the preflight, and say on what its answer rests."""
    problems = plane.preflight()
    if plane.holder.evaluate(MAIN_FLAG, None).cause is Cause.KILL_SWITCH:
        return Preflight(
            problems, "the flag is stopped: a higher share moves nobody until it is restored", is_sure=False
        )
    if plane.gate is None:
        note = "not enough is known: this process sends nothing itself, so look where the requests are sent"
        return Preflight(problems, note, is_sure=False)
    through, direct = (plane.recent.summary(path) for path in (Path.LITELLM, Path.OPENROUTER))
    if missing := too_little(through, direct):
        return Preflight(problems, f"not enough is known to raise the share on: {missing}", is_sure=False)
    times = f"{_seconds(through)}, direct {_seconds(direct)}" if direct.seconds is not None else _seconds(through)
    note = (
        f"nothing speaks against raising the share: of {count(through.requests, 'request')} through the gateway in the "
        f"last {WINDOW_SECONDS / 60:.0f} min {through.rescued} were rescued and {through.failed} failed; "
        f"answers took {times}"
    )
    return Preflight(problems, note, is_sure=True)


def _seconds(summary: Summary) -> str:
    return f"{summary.seconds or 0:.2g}\u00a0s"


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


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
    said = kind_in_words(status.why or "reason not said")
    return f"{said}, {status.failures:,} in a row" if status.failures > 1 else said


def _direct(upstream: UpstreamState) -> PathView:
    since = None if upstream.checked_at is None else datetime.fromtimestamp(upstream.checked_at, UTC)
    match tone := UPSTREAM_TONES[upstream.phase]:
        case Tone.GOOD:
            return PathView("answers", tone, since=since)
        case Tone.BAD:
            return PathView("not usable", tone, upstream.detail, since)
        case _:
            return PathView("not asked yet", tone)


def _by_requests(view: PathView, status: GateStatus, path: Path, live: tuple[str, ...], summary: Summary) -> PathView:
    """Judge a path by this process's own requests: they know more than whoever asks it for its health."""
    if view.tone is Tone.BAD:
        return view
    seen = _moment(summary.last_failure.at) if summary.last_failure else None
    if failing := why_failing(status, path, live) or (unwell_requests(summary) if summary.is_unwell else ""):
        return PathView("failing", Tone.BAD, failing, seen=seen)
    resting = sum(
        line.path is path and line.model in live and line.status.state is not BreakerState.CLOSED
        for line in status.breakers
    )
    if resting and view.tone is Tone.GOOD:
        word = f"{view.word}, but {resting} of its {count(len(live), 'model')} {'rests' if resting == 1 else 'rest'}"
        return PathView(word, Tone.PART, view.why, view.since, seen)
    return view
