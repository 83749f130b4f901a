"""What the pages show, as values: read once, decided here, only written down by the templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from rollout.domain.evaluate import Cause
from rollout.domain.flag import MAIN_FLAG, Flag, Override, Variant
from rollout.domain.ledger import Action, Entry
from rollout.domain.local import LocalOverrides
from rollout.domain.share import WHOLE, percentage_of, percentage_text
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.http.pages.words import count, exact, relative
from rollout.http.plane import Plane
from rollout.store.engine import Connection
from rollout.store.flags import read_flag
from rollout.store.ledger import AuditFilter, list_entries

VISIBLE: Final = 0.8
"""The thinnest side of the bar that is drawn, in percent of its width; the numbers below it stay exact."""

ROWS: Final = 100
"""How many forced users a page lists before it asks to search."""

CASCADE: Final = "/gateway#cascade"
"""Where the cascade is shown."""


class Mode(StrEnum):
    """How the flag looks: each a different look, first that applies."""

    STOPPED = "stopped"
    STOPPED_HERE = "stopped-here"  # by this process's environment or kill file, which no page can lift
    DISABLED = "disabled"
    NOBODY = "nobody"
    SOME = "some"
    ALL = "all"


class Tone(StrEnum):
    """How well something is: never a colour alone, always beside a word."""

    GOOD = "good"
    BUSY = "busy"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class GatewayView:
    """The gateway in a word, with how well that is."""

    state: GatewayState
    word: str
    tone: Tone

    @property
    def since(self) -> datetime:
        """When this began."""
        return datetime.fromtimestamp(self.state.since, UTC)


@dataclass(frozen=True, slots=True)
class FlagView:
    """A flag as it stands, with all that its band says. `now` is when it was read."""

    flag: Flag
    mode: Mode
    gateway: GatewayView
    now: datetime
    forced_on: int
    forced_off: int
    stop: Entry | None
    local: LocalOverrides

    @property
    def share_text(self) -> str:
        """The share through the gateway."""
        return percentage_text(self.flag.share)

    @property
    def moved(self) -> int:
        """The share that really goes through the gateway now, in parts per 100,000."""
        return self.flag.share if self.mode in {Mode.SOME, Mode.ALL} else 0

    @property
    def badge(self) -> str:
        """The state in a word."""
        return {
            Mode.STOPPED: "STOPPED",
            Mode.STOPPED_HERE: "STOPPED HERE",
            Mode.DISABLED: "DISABLED",
            Mode.NOBODY: "ON, AT 0 %",
        }.get(self.mode, "ON")

    @property
    def sentence(self) -> str:
        """Where traffic goes now."""
        testers = count(self.forced_on, "forced user")
        match self.mode:
            case Mode.STOPPED:
                return "Everybody goes direct to OpenRouter, forced users too"
            case Mode.STOPPED_HERE:
                return "This process sends everybody direct to OpenRouter"
            case Mode.DISABLED:
                return "Users go direct to OpenRouter" + (f"; {testers} through LiteLLM" if self.forced_on else "")
            case Mode.NOBODY:
                only = f"only {testers} through LiteLLM" if self.forced_on else "nobody through LiteLLM"
                return f"Users go direct to OpenRouter; {only}"
            case Mode.SOME | Mode.ALL:
                return f"{self.share_text} of users go through LiteLLM"

    @property
    def unwell(self) -> bool:
        """Whether users are sent to a gateway that does not serve them."""
        reaching = self.mode in {Mode.SOME, Mode.ALL} or (
            self.forced_on > 0 and self.mode in {Mode.DISABLED, Mode.NOBODY}
        )
        return reaching and self.gateway.tone is not Tone.GOOD

    @property
    def bar(self) -> tuple[float, float]:
        """How wide the two sides of the bar are, in percent: direct, gateway; neither is too thin to be seen."""
        gateway = self.flag.share / WHOLE * 100
        if 0 < gateway < 100:
            gateway = min(max(gateway, VISIBLE), 100 - VISIBLE)
        return 100 - gateway, gateway


@dataclass(frozen=True, slots=True)
class ForcedUser:
    """One override as a row."""

    user: str
    override: Override
    holds: bool


@dataclass(frozen=True, slots=True)
class ForcedUsers:
    """The rows a search found, cut to what a page shows."""

    rows: tuple[ForcedUser, ...]
    found: int
    total: int
    query: str


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


def gateway_view(state: GatewayState) -> GatewayView:
    """Say how the gateway is."""
    if state.phase is GatewayPhase.EXTERNAL:
        return GatewayView(
            state, "answers" if state.answering else "does not answer", Tone.GOOD if state.answering else Tone.BAD
        )
    return GatewayView(state, *_GATEWAY[state.phase])


def flag_view(connection: Connection, plane: Plane, key: str) -> FlagView:
    """Read a flag and judge how it stands.

    Raises:
        NotFound: there is no such flag.
    """
    flag, now = read_flag(connection, key), plane.now()
    holding = [override.variant for override in flag.overrides.values() if override.holds(now)]
    stop = None
    if flag.killed:
        wanted = AuditFilter(subject=f"flag:{key}", action=Action.FLAG_KILL)
        stop = next(iter(list_entries(connection, wanted, limit=1)), None)
    return FlagView(
        flag=flag,
        mode=_mode(flag, stopped_here=key == MAIN_FLAG and stopped_here(plane)),
        gateway=gateway_view(plane.gateway()),
        now=now,
        forced_on=holding.count(Variant.ON),
        forced_off=holding.count(Variant.OFF),
        stop=stop,
        local=plane.holder.local,
    )


def _mode(flag: Flag, *, stopped_here: bool) -> Mode:
    if flag.killed:
        return Mode.STOPPED
    if stopped_here:
        return Mode.STOPPED_HERE
    if not flag.enabled:
        return Mode.DISABLED
    return Mode.NOBODY if flag.share == 0 else Mode.ALL if flag.share == WHOLE else Mode.SOME


def stopped_here(plane: Plane) -> bool:
    """Say whether this process is killed by its environment or by its kill file."""
    if plane.holder.local.killed:
        return True
    # the holder alone knows of the file; it shows as a kill that neither the environment nor the store made
    snapshot = plane.holder.snapshot
    stored = snapshot.flags.get(MAIN_FLAG) if snapshot else None
    killed = plane.holder.evaluate(MAIN_FLAG, None).cause is Cause.KILL_SWITCH
    return killed and not (isinstance(stored, Flag) and stored.killed)


def forced_users(flag: Flag, now: datetime, query: str) -> ForcedUsers:
    """List who is forced, those that hold first, narrowed to ids and reasons that contain `query`."""
    needle = query.strip().casefold()
    rows = [
        ForcedUser(user, override, override.holds(now))
        for user, override in flag.overrides.items()
        if needle in user.casefold() or needle in (override.reason or "").casefold()
    ]
    rows.sort(key=lambda row: (not row.holds, row.user))
    return ForcedUsers(tuple(rows[:ROWS]), len(rows), len(flag.overrides), query)


def last_changes(connection: Connection, key: str, *, after: int = 0, limit: int = 5) -> list[Entry]:
    """List the newest entries about a flag and its overrides."""
    found = [
        entry
        for subject in (f"flag:{key}", f"override:{key}")
        for entry in list_entries(connection, AuditFilter(subject=subject), after=after, limit=limit)
    ]
    return sorted(found, key=lambda entry: -entry.revision)[:limit]


class Notice(NamedTuple):
    """What everybody should know on every page; a loud one is about harm that goes on until somebody acts."""

    word: str
    text: str
    loud: bool = False
    where: str = ""


def notices(plane: Plane) -> list[Notice]:
    """Say what everybody should know on every page, what is loud first."""
    return sorted((*_models(plane), *_quota(plane), *_notices(plane)), key=lambda notice: not notice.loud)


def _models(plane: Plane) -> Iterator[Notice]:
    cascade = plane.published.cascade
    known = frozenset(plane.gate.status().quarantined) if plane.gate else frozenset()
    for model in sorted(cascade.quarantined | known):
        out = cascade.out.get(model)
        said = f"{out.detail}, {exact(out.at)}" if out and model in cascade.quarantined else "an answer cost money"
        yield Notice(
            "NOT FREE",
            f"{model}: {said}. It is asked no more, on either path, until somebody lifts it",
            loud=True,
            where=CASCADE,
        )
    gone = [model for model in cascade.models if model in cascade.out and model not in cascade.quarantined]
    if gone:
        said = "; ".join(f"{model} is {cascade.out[model].detail}" for model in gone)
        left = count(len(cascade.live), "model") + " left"
        yield Notice("Cascade", f"{count(len(gone), 'model')} taken out, {left}: {said}", where=CASCADE)
    if cascade.models and not cascade.live:
        yield Notice("Cascade", "every model is out, so no request can be answered", loud=True, where=CASCADE)


def _quota(plane: Plane) -> Iterator[Notice]:
    if plane.gate is None:
        return
    quota, now = plane.gate.status().quota, plane.now()
    if quota.blocked_until is None and quota.left_today != 0:
        return
    ends = datetime.fromtimestamp(quota.blocked_until or quota.resets_at, UTC)
    said = f"{quota.used_today:,} of {quota.per_day:,} used" if quota.per_day else "the upstream says so"
    yield Notice(
        "Daily cap",
        f"the account's free requests of today are used up ({said}); "
        f"nothing is sent on either path until {exact(ends)}, {relative(ends, now)}",
        where="/gateway#quota",
    )


def _notices(plane: Plane) -> Iterator[Notice]:
    if plane.database_problem is not None:
        yield Notice("Database", plane.database_problem)
    if plane.upstream().simulated:
        said = "no real model answers; set OPENROUTER_API_KEY and start again for the real upstream"
        yield Notice("Simulator", said)
    if said := _local(plane.holder.local):
        yield Notice("Environment", f"this process departs from the stored flag: {said}. The page shows what is stored")
    elif stopped_here(plane):
        yield Notice("Kill file", f"it lies at {plane.settings.kill_file}: this process sends everybody direct")
    for problem in (*plane.holder.problems, *map(str, plane.settings.problems)):
        yield Notice("Problem", problem)


def _local(local: LocalOverrides) -> str:
    said = []
    if local.killed:
        said.append("stopped (FORCE_DIRECT_OPENROUTER)")
    if local.enabled is not None:
        said.append(f"{'enabled' if local.enabled else 'disabled'} (LITELLM_ENABLED)")
    if local.share is not None:
        said.append(f"share {percentage_of(local.share)} % (LITELLM_ROLLOUT_PERCENTAGE)")
    if local.force_users:
        said.append(f"{count(len(local.force_users), 'user')} forced on (LITELLM_FORCE_USERS)")
    return ", ".join(said)
