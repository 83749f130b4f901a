"""The cascade: which models are asked in which order, which of them are out, and what could take their place.

A model leaves the live order when the upstream no longer lists it or no longer gives it away, when its last day
has passed, or when an answer of it cost money. It stays in the cascade, and comes back by a person alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from rollout.domain.identity import FREE_SUFFIX

CASCADE_LENGTH: Final = 5

PLANNED_MODELS: Final = (
    "z-ai/glm-4.5-air:free",
    "deepseek/deepseek-chat-v3.1:free",
    "minimax/minimax-m2:free",
    "moonshotai/kimi-k2:free",
    "qwen/qwen3-coder:free",
)
"""The plan's cascade: primary, coding, fast, long context, code."""

WARNING_DAYS: Final = 7
"""So many days before a model's last one people are told."""


class OutReason(StrEnum):
    """Why a model is out of the live order."""

    WITHDRAWN = "withdrawn"  # no longer listed, or past its last day
    NOT_FREE = "not_free"  # listed with a price
    COST = "cost"  # an answer cost money


@dataclass(frozen=True, slots=True)
class ModelOut:
    """A model out of the live order: why, a sentence that says more, and since when (aware, UTC)."""

    why: OutReason
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Cascade:
    """The installation's ordered model ids; revision 0 and no models before it was first set.

    `revision` is that of the entry that last set the order; models that go out or come back do not count. `out`
    may name models that are not in the cascade: setting a cascade lifts nobody.
    """

    models: tuple[str, ...]
    revision: int
    out: Mapping[str, ModelOut] = field(default_factory=dict)

    @property
    def live(self) -> tuple[str, ...]:
        """The models that are asked, in order."""
        return tuple(model for model in self.models if model not in self.out)

    @property
    def quarantined(self) -> frozenset[str]:
        """The models of which an answer cost money."""
        return frozenset(model for model, out in self.out.items() if out.why is OutReason.COST)


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as the upstream lists it.

    `free` means every price is 0, `context_length` is in tokens, `expires` is the last day it is served (UTC),
    None where none was announced.
    """

    id: str
    free: bool
    tools: bool = False
    context_length: int = 0
    expires: date | None = None


@dataclass(frozen=True, slots=True)
class CascadeProposal:
    """What the cascade could be: models in order, and for each planned model left out why."""

    models: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def propose_cascade(listed: Iterable[ListedModel]) -> CascadeProposal:
    """Choose the first cascade from what the upstream lists today.

    Planned models keep their order; the rest is filled up to five with free models, those that take tools
    first, then those with the longest context, then by name.
    """
    by_id = {model.id: model for model in listed}
    kept: list[str] = []
    left_out: list[tuple[str, str]] = []
    for planned in PLANNED_MODELS:
        model = by_id.get(planned)
        if model is None:
            left_out.append((planned, "no longer listed by the upstream"))
        elif not model.free:
            left_out.append((planned, "listed, but no longer free"))
        else:
            kept.append(planned)
    fill = [model.id for model in _spare(by_id.values(), kept)][: CASCADE_LENGTH - len(kept)]
    return CascadeProposal((*kept, *fill), tuple(left_out))


def propose_replacements(
    cascade: Cascade, listed: Iterable[ListedModel], now: datetime, *, at_most: int = CASCADE_LENGTH
) -> tuple[ListedModel, ...]:
    """Name free models that could take the place of those that are out, best first; none that ends soon."""
    known = {*cascade.models, *cascade.out}
    by_id = {model.id: model for model in listed}  # a list may name one twice
    lasting = (m for m in by_id.values() if m.expires is None or _days_left(m.expires, now) > WARNING_DAYS)
    return tuple(_spare(lasting, known)[:at_most])


class Withdrawal(NamedTuple):
    """A model that has to leave the live order, and why."""

    model: str
    why: OutReason
    detail: str


@dataclass(frozen=True, slots=True)
class ListChanges:
    """What an upstream's list means for the cascade.

    Attributes:
        withdraw: Models that leave the live order now.
        missing: Live models this list does not hold; those that the next one lacks too are withdrawn by it.
        ending: Live models whose last day comes within a week, with that day.
        doubt: Why the list is not believed where it would withdraw models by lacking them; None where it is.
    """

    withdraw: tuple[Withdrawal, ...] = ()
    missing: frozenset[str] = frozenset()
    ending: tuple[tuple[str, date], ...] = ()
    doubt: str | None = None


def compare(
    cascade: Sequence[str],
    out: Collection[str],
    listed: Iterable[ListedModel],
    now: datetime,
    *,
    missing_before: Collection[str] = (),
    allow_paid: bool = False,
) -> ListChanges:
    """Say what an upstream's list means for the models of a cascade that are not out.

    A price or a last day that has passed takes a model out at once. Being away does so only in two lists running.
    A list is not believed at all where it is empty or (unless `allow_paid`) holds no free model; and it withdraws
    nobody by lacking them where it lacks each of several live models: that is another upstream's list, or a
    broken one, and an empty order answers nobody.

    Args:
        cascade: the model ids in order.
        out: the models that are out already.
        listed: the upstream's list.
        now: when it was read, aware.
        missing_before: what the list before this one lacked.
        allow_paid: models may cost.
    """
    by_id = {model.id: model for model in listed}
    live = [model for model in cascade if model not in out]
    if not by_id or not (allow_paid or any(model.free for model in by_id.values())):
        said = "the upstream lists no free model" if by_id else "the upstream lists no model"
        # a list that is no evidence breaks no series either
        return ListChanges(missing=frozenset(missing_before).intersection(live), doubt=said)
    missing = frozenset(model for model in live if model not in by_id)
    doubt = "the upstream lists none of the cascade's models" if len(missing) == len(live) > 1 else None
    withdraw = []
    for model in live:
        known = by_id.get(model)
        if known is None:
            if model in missing_before and doubt is None:
                withdraw.append(Withdrawal(model, OutReason.WITHDRAWN, "no longer listed by the upstream"))
        elif not (known.free or allow_paid):
            withdraw.append(Withdrawal(model, OutReason.NOT_FREE, "listed by the upstream, but no longer free"))
        elif known.expires is not None and _days_left(known.expires, now) < 0:
            withdraw.append(Withdrawal(model, OutReason.WITHDRAWN, f"its last day, {known.expires}, has passed"))
    gone = {each.model for each in withdraw}
    ending = tuple(
        (model, last) for model in live if model not in gone and (last := ends_soon(by_id.get(model), now)) is not None
    )
    return ListChanges(tuple(withdraw), missing - gone, ending, doubt)


def ends_soon(model: ListedModel | None, now: datetime) -> date | None:
    """Return a model's last day where it comes within a week, else None."""
    if model is None or model.expires is None or _days_left(model.expires, now) > WARNING_DAYS:
        return None
    return model.expires


def _days_left(last: date, now: datetime) -> int:
    return (last - now.astimezone(UTC).date()).days


def _spare(listed: Iterable[ListedModel], taken: Collection[str]) -> list[ListedModel]:
    """Return free models that are not taken: those with tools first, then the longest context, then by name."""
    return sorted(
        (model for model in listed if model.free and model.id.endswith(FREE_SUFFIX) and model.id not in taken),
        key=lambda model: (not model.tools, -model.context_length, model.id),
    )
