"""What of the breakers, the quota and the cascade keeps requests from being sent, as sentences for people. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime

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
