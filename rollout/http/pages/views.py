"""What the pages show, as values: read once, decided here, only written down by the templates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from urllib.parse import urlencode

from rollout.domain.evaluate import Cause
from rollout.domain.flag import MAIN_FLAG, Flag, Override, Variant
from rollout.domain.identity import user_id
from rollout.domain.ledger import Action, Entry
from rollout.domain.local import LocalOverrides
from rollout.domain.share import WHOLE
from rollout.http.pages.health import Paths, PathView, Tone, paths_of
from rollout.http.pages.words import count, percent
from rollout.http.plane import Plane
from rollout.store.engine import Connection
from rollout.store.flags import read_flag
from rollout.store.forced import list_forced
from rollout.store.ledger import AuditFilter, list_entries

VISIBLE: Final = 0.8
"""The thinnest side of the bar that is drawn, in percent of its width; the numbers below it stay exact."""

NEWEST: Final = 10
"""How many forced users the flag's page lists; the rest have a page of their own."""

ROWS: Final = 50
"""How many forced users one page of that page lists."""

_LAST_PAGE: Final = 1_000_000
"""Beyond that an offset is no number that every database takes."""


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
    def outage(self) -> str:
        """What keeps requests from being answered at all, empty if nothing does: it is said before the share."""
        if self.paths.capped:
            return "No request is answered: today's free requests are used up"
        if self.paths.direct.tone is not Tone.BAD or (self.moved == WHOLE and not (self.forced_off or self.unwell)):
            return ""
        if self.unwell:
            return "Requests end in an error: both paths fail"
        if self.moved or self.forced_on:
            return f"Direct requests end in an error: the direct path {self.paths.direct.state}"
        return f"Requests end in an error: the direct path {self.paths.direct.state}"

    @property
    def headline(self) -> str:
        """What has to be known first: an outage, else where traffic goes."""
        return self.outage or self.sentence

    @property
    def unwell(self) -> bool:
        """Whether users are sent to a gateway that does not serve them."""
        reaching = self.mode in {Mode.SOME, Mode.ALL} or (
            self.forced_on > 0 and self.mode in {Mode.DISABLED, Mode.NOBODY}
        )
        return reaching and self.gateway.tone in {Tone.BUSY, Tone.BAD}

    @property
    def troubles(self) -> tuple[tuple[str, str], ...]:
        """What goes wrong for users now, whatever the flag says: what it is, and what it means for them."""
        if self.paths.capped:
            return (("The account's free requests of today are used up", "nothing is sent on either path."),)
        said = []
        failing = self.paths.direct.tone is Tone.BAD
        if failing and (self.moved < WHOLE or self.forced_off):
            said.append((f"The direct path {self.paths.direct.state}", "requests on it end in an error."))
        if self.unwell and failing:
            said.append((f"The gateway {self.gateway.state}", "requests on it find no other way."))
        elif self.unwell:
            so = "requests sent to it are answered directly until it is back."
            said.append((f"The gateway {self.gateway.state}", so))
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
    """The rows a search found, newest first, cut to what a page shows.

    `whole` tells the page of all forced users from the flag's page, which lists the newest alone.
    """

    rows: tuple[ForcedUser, ...]
    found: int
    total: int
    query: str = ""
    page: int = 1
    whole: bool = False

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, -(-self.found // ROWS))

    def address(self, key: str, page: int | None = None) -> str:
        """Return where one page of the list stands."""
        named = {"q": self.query, "page": "" if page in {None, 1} else str(page)}
        query = urlencode({name: value for name, value in named.items() if value})
        return f"/flags/{key}/forced" + (f"?{query}" if query else "")


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
    """Tell whether this process is killed by its environment or by its kill file."""
    if plane.holder.local.killed:
        return True
    # the holder alone knows of the file; it shows as a kill that neither the environment nor the store made
    snapshot = plane.holder.snapshot
    stored = snapshot.flags.get(MAIN_FLAG) if snapshot else None
    killed = plane.holder.evaluate(MAIN_FLAG, None).cause is Cause.KILL_SWITCH
    return killed and not (isinstance(stored, Flag) and stored.killed)


def forced_users(
    connection: Connection, view: FlagView, query: str = "", page: str = "", *, whole: bool = False
) -> ForcedUsers:
    """List who is forced, newest first, narrowed to ids and reasons that contain `query`.

    A page that does not exist is the last one: the place where somebody removed the last row of a page.
    """
    limit = ROWS if whole else NEWEST
    wanted = min(int(page), _LAST_PAGE) if whole and page.isascii() and page.isdigit() and len(page) < 10 else 1
    at = max(1, wanted)
    search = user_id(query)
    found = list_forced(connection, view.flag.key, search=search, limit=limit, offset=(at - 1) * limit)
    last = max(1, -(-found.found // limit))
    if at > last:
        at = last
        found = list_forced(connection, view.flag.key, search=search, limit=limit, offset=(at - 1) * limit)
    rows = tuple(ForcedUser(user, override, override.holds(view.now)) for user, override in found.rows)
    return ForcedUsers(rows, found.found, found.total, query, at, whole)


def last_changes(connection: Connection, key: str, *, after: int = 0, limit: int = 5) -> list[Entry]:
    """List the newest entries about a flag and its overrides."""
    found = [
        entry
        for subject in (f"flag:{key}", f"override:{key}")
        for entry in list_entries(connection, AuditFilter(subject=subject), after=after, limit=limit)
    ]
    return sorted(found, key=lambda entry: -entry.revision)[:limit]
