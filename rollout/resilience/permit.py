"""Leave to make one attempt, why it is refused, and how a gate looks: the values that it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.resilience.breaker import BreakerStatus
from rollout.resilience.quota import QuotaRecord, QuotaStatus
from rollout.resilience.run import Run
from rollout.resilience.source import Source


class Asking(NamedTuple):
    """What an attempt is to its request.

    `source` is the request, None if nobody knows. `models` is how many models it may ask, 0 if nobody knows. `further`
    says that an attempt of the same request was sent before. `press` asks for a resting model, as the last resort.
    """

    source: Source | None = None
    models: int = 0
    further: bool = False
    press: bool = False


ALONE = Asking()
"""The first attempt of a request of which nothing is known."""


class Probes(NamedTuple):
    """The numbers of the probes that an attempt is for the breakers in its way, 0 for none.

    `pressed` says that the model's breaker is open and the attempt was let through anyway.
    """

    path: int = 0
    answers: int = 0
    model: int = 0
    pressed: bool = False


NO_PROBES = Probes()


class Own(Protocol):
    """The breakers of one caller or one body, as a permit knows them."""

    run: Run

    def leave(self, path: Path, model: str, probes: Probes, /) -> None:
        """Note that an attempt came to nothing, neither well nor badly."""
        ...


class Permit(NamedTuple):
    """Leave to make one attempt; `settle` or `release` takes it back. `at` is when, in seconds since the epoch.

    `probes` are those of the breakers that all share; `own` are the breakers of its caller and its body, each with
    the probes there.
    """

    path: Path
    model: str
    probes: Probes = NO_PROBES
    at: float = 0.0
    asking: Asking = ALONE
    own: tuple[tuple[Own, Probes], ...] = ()

    @property
    def path_probe(self) -> int:
        """Return the number of the probe that it is for its path, 0 for none."""
        return self.probes.path

    @property
    def model_probe(self) -> int:
        """Return the number of the probe that it is for its model, 0 for none."""
        return self.probes.model


class Refusal(NamedTuple):
    """Why an attempt may not be made now.

    `kind` says what is in the way: PATH breakers show as UNREACHABLE, a model's as RESTING, the account's caps as
    MINUTE_CAP and DAY_CAP, a model that is not free as NOT_FREE, an empty retry budget as what is not tried again.
    `retry_after` is in seconds, 0 if nobody knows. `soon` says that others are finding out just now whether anything
    answers: it is worth waiting for.
    """

    kind: FailureKind
    retry_after: float
    detail: str
    soon: bool = False


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

    `retries` is what the retry budget holds; below 1 no model is asked a second time by the same request.
    """

    breakers: tuple[BreakerLine, ...]
    quota: QuotaStatus
    quarantined: tuple[str, ...]
    retries: float
