"""What everybody should know on every page: bands below the state, the loud ones first."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from rollout.domain.flag import MAIN_FLAG, Flag, Path, Variant
from rollout.domain.local import LocalOverrides
from rollout.domain.share import percentage_of
from rollout.http.pages.health import Tone, failing_now, paths_of
from rollout.http.pages.views import stopped_here
from rollout.http.pages.words import count, exact, relative
from rollout.http.plane import Plane
from rollout.resilience.quota import Cap

CASCADE: Final = "/gateway#cascade"
"""Where the cascade is shown."""


class Notice(NamedTuple):
    """What everybody should know on every page; a loud one is about harm that goes on until something is done.

    `seen` is when that was last seen, None if it is so now.
    """

    word: str
    text: str
    loud: bool = False
    where: str = ""
    seen: datetime | None = None


def notices(plane: Plane) -> list[Notice]:
    """Say what everybody should know on every page, what is loud first."""
    said = (*_failing(plane), *_quota(plane), *_models(plane), *_rest(plane))
    return sorted(said, key=lambda notice: not notice.loud)


def _failing(plane: Plane) -> Iterator[Notice]:
    direct, gateway = (failing_now(plane, path) for path in (Path.OPENROUTER, Path.LITELLM))
    where = "/gateway#breakers"
    if direct:
        so = "whoever it should answer gets an error. It is tried again every few seconds"
        yield Notice("The direct path is failing", f"{direct.why}; {so}", loud=True, where=where, seen=direct.seen)
    if gateway and _anybody_on_the_gateway(plane):  # with nobody there nobody tries it, and it would be said for ever
        helps = not direct and paths_of(plane).direct.tone is not Tone.BAD
        so = "its users are answered directly" if helps else "the direct path, which would help, fails too"
        yield Notice("The gateway's path is failing", f"{gateway.why}; {so}", loud=True, where=where, seen=gateway.seen)


def _anybody_on_the_gateway(plane: Plane) -> bool:
    flag = plane.holder.snapshot.flags.get(MAIN_FLAG) if plane.holder.snapshot else None
    if not isinstance(flag, Flag) or flag.killed or stopped_here(plane):
        return False
    now = plane.now()
    forced = any(one.variant is Variant.ON and one.holds(now) for one in flag.overrides.values())
    return forced or (flag.enabled and flag.share > 0)


def _quota(plane: Plane) -> Iterator[Notice]:
    if plane.gate is None:
        return
    quota, now = plane.gate.status().quota, plane.now()
    if quota.blocked_until is None:
        return
    ends = datetime.fromtimestamp(quota.blocked_until, UTC)
    until = f"nothing is sent on either path until {exact(ends)}, {relative(ends, now)}"
    if quota.blocked_by is Cap.MINUTE:
        text = f"the upstream takes no more free requests this minute; {until}"
        yield Notice("Minute cap", text, loud=True, where="/gateway#quota")
        return
    used_up = quota.per_day and quota.left_today == 0
    said = f"{quota.used_today:,} of {quota.per_day:,} used" if quota.per_day else "the upstream says so"
    if quota.per_day and not used_up:
        said = f"the upstream says so; {said} by our own count"
    text = f"the account's free requests of today are used up ({said}); {until}"
    yield Notice("Daily cap", text, loud=True, where="/gateway#quota")


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


def _rest(plane: Plane) -> Iterator[Notice]:
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
