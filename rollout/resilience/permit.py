"""Leave to make one attempt, why it is refused, and how a gate looks: the values that it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.resilience.breaker import BreakerStatus
from rollout.resilience.quota import QuotaRecord, QuotaStatus


class Permit(NamedTuple):
    """Leave to make one attempt; `settle` or `release` takes it back. `at` is when, in seconds since the epoch.

    `path_probe` and `model_probe` are the probe's number where it is one, else 0.
    """

    path: Path
    model: str
    path_probe: int = 0
    model_probe: int = 0
    at: float = 0.0


class Refusal(NamedTuple):
    """Why an attempt may not be made now.

    `kind` says what is in the way: PATH breakers show as UNREACHABLE, a model's as RESTING, the account's caps as
    MINUTE_CAP and DAY_CAP, a model that is not free as NOT_FREE, an empty retry budget as what is not tried again.
    `retry_after` is in seconds, 0 where nobody knows.
    """

    kind: FailureKind
    retry_after: float
    detail: str


class QuotaStore(Protocol):
    """Where the quota's record outlives the process."""

    def save(self, record: QuotaRecord) -> None:
        """Keep a record; must be quick, and never raise."""
        ...


@dataclass(frozen=True, slots=True)
class BreakerLine:
    """One breaker as people see it; `model` is None for a whole path."""

    path: Path
    model: str | None
    status: BreakerStatus


@dataclass(frozen=True, slots=True)
class GateStatus:
    """Everything at one moment: breakers that are not closed or have failures, the quota, models that cost money.

    `retries` is what the retry budget holds; below 1 nothing is tried again.
    """

    breakers: tuple[BreakerLine, ...]
    quota: QuotaStatus
    quarantined: tuple[str, ...]
    retries: float
