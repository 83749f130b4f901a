"""What speaks against a path: the breakers, the quota, the cascade, the last requests. Sentences for people; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from rollout.dispatch.recent import ENOUGH, MOST_FAILING, MOST_SLOWER, WINDOW_SECONDS, Summary
from rollout.domain.cascade import ListedModel
from rollout.domain.flag import Path
from rollout.resilience.permit import GateStatus
from rollout.resilience.quota import Cap, QuotaStatus


def resting(status: GateStatus, path: Path) -> Iterator[str]:
    """Say that a path is left alone now, and why.

    Not where the next request tries it: with nobody on a path nobody would, and it would be said for ever.
    """
    for line in status.breakers:
        if line.path is path and line.model is None and line.status.opens_in:
            yield f"the path {path} is left alone ({line.status.why}); `rollout gateway reset {path}` ends it"


def capped(quota: QuotaStatus, caps: Collection[Cap]) -> Iterator[str]:
    """Say that nothing is sent now because of one of these caps, and until when."""
    if quota.blocked_until is None or quota.blocked_by not in caps:
        return
    until = datetime.fromtimestamp(quota.blocked_until, UTC)
    if quota.blocked_by is Cap.DAY:
        yield f"nothing is sent until {until:%H:%M} UTC: the account's free requests of today are used up"
    else:
        yield f"nothing is sent until {until:%H:%M:%S} UTC: the account's free requests of this minute are used up"


def costing(models: Iterable[str]) -> Iterator[str]:
    """Say which models cost money."""
    for model in sorted(models):
        yield f"{model} cost money and is left alone until a person lifts it (`rollout cascade lift {model}`)"


def unlisted(live: Sequence[str], listed: Sequence[ListedModel], *, allow_paid: bool) -> Iterator[str]:
    """Say that the upstream lists no model of the live order as one that may be asked."""
    usable = {model.id for model in listed if model.free or allow_paid}
    if live and listed and usable.isdisjoint(live):
        names = ", ".join(live)
        yield f"the upstream lists no model of the cascade as free ({names}); set others with `rollout cascade set`"


def failing(summary: Summary) -> Iterator[str]:
    """Say that too many requests of the gateway's share failed or were rescued."""
    if summary.is_over_the_limit:
        yield f"{unwell_requests(summary)} on the gateway's path; the limit is {MOST_FAILING:.0%}".replace("%", " %")


def unwell_requests(summary: Summary) -> str:
    """Say how many requests failed or were rescued: `10 of 30 requests of the last 5 min failed or were rescued`."""
    unwell = summary.failed + summary.rescued
    happened = "failed" if not summary.rescued else "were rescued" if not summary.failed else "failed or were rescued"
    return f"{unwell} of {summary.requests} requests of the last {WINDOW_SECONDS / 60:.0f} min {happened}"


def slower(gateway: Summary, direct: Summary) -> Iterator[str]:
    """Say that answers through the gateway take longer: than direct ones, else than they did."""
    limit = f"the limit is {MOST_SLOWER:g} s more"
    both = gateway.is_enough and direct.is_enough
    if both and _longer(gateway.seconds, direct.seconds):
        through = f"answers through the gateway take {gateway.seconds:.2g} s"
        yield f"{through}, direct ones {direct.seconds:.2g} s; {limit}"
    elif _longer(gateway.lately, gateway.before):
        yield f"answers through the gateway take {gateway.lately:.2g} s now, {gateway.before:.2g} s before; {limit}"


def _longer(seconds: float | None, than: float | None) -> bool:
    return seconds is not None and than is not None and seconds - than > MOST_SLOWER


def too_little(gateway: Summary, direct: Summary) -> str:
    """Say what is missing before the last requests speak for the gateway; empty if nothing is."""
    if not gateway.is_enough:
        so_far = gateway.requests or "none"
        return f"{ENOUGH} requests through the gateway within {WINDOW_SECONDS / 60:.0f} min are needed; {so_far} so far"
    if not direct.is_enough and gateway.before is None:
        return f"its answers take {gateway.seconds or 0:.2g} s, and nothing is there to compare that with"
    return ""
