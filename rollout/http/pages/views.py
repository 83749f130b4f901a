"""What the pages show, as values: read once, decided here, only written down by the templates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from rollout.domain.evaluate import Cause
from rollout.domain.flag import MAIN_FLAG, Flag, Override, Variant
from rollout.domain.ledger import Action, Entry
from rollout.domain.local import LocalOverrides
from rollout.domain.share import WHOLE
from rollout.http.pages.health import Paths, PathView, Tone, paths_of
from rollout.http.pages.words import count, percent
from rollout.http.plane import Plane
from rollout.store.engine import Connection
from rollout.store.flags import read_flag
from rollout.store.ledger import AuditFilter, list_entries

VISIBLE: Final = 0.8
"""The thinnest side of the bar that is drawn, in percent of its width; the numbers below it stay exact."""

ROWS: Final = 100
"""How many forced users a page lists before it asks to search."""


class Mode(StrEnum):
    """How the flag looks: each a different look, first that applies."""

    STOPPED = "stopped"
    STOPPED_HERE = "stopped-here"  # by this process's environment or kill file, which no page can lift
    DISABLED = "disabled"
    NOBODY = "nobody"
    SOME = "some"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class FlagView:
    """A flag as it stands, with all that its band says. `now` is when it was read."""

    flag: Flag
    mode: Mode
    paths: Paths
    now: datetime
    forced_on: int
    forced_off: int
    stop: Entry | None
    local: LocalOverrides

    @property
    def share_text(self) -> str:
        """The share through the gateway."""
        return percent(self.flag.share)

    @property
    def gateway(self) -> PathView:
        """How the gateway's path serves."""
        return self.paths.gateway

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
            Mode.NOBODY: "ON, AT 0\u00a0%",
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
    def troubles(self) -> tuple[tuple[str, str], ...]:
        """What goes wrong for users now, whatever the flag says: what it is, and what it means for them."""
        if self.paths.capped:
            return (("The account's free requests of today are used up", "nothing is sent on either path."),)
        said = []
        failing = self.paths.direct.tone is Tone.BAD
        if failing and (self.moved < WHOLE or self.forced_off):
            said.append((f"The direct path is {self.paths.direct.word}", "requests on it end in an error."))
        if self.unwell and failing:
            said.append((f"The gateway is {self.gateway.word}", "requests on it find no other way."))
        elif self.unwell:
            so = "requests sent to it are answered directly until it is back."
            said.append((f"The gateway is {self.gateway.word}", so))
        return tuple(said)

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
        paths=paths_of(plane),
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
