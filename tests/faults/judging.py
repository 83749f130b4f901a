"""What came of a cell, held against what the table says and against the laws of every cell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.domain.failure import AttemptRecord
from rollout.simulator.record import Entry
from tests.faults.callers import ACCESS, Got
from tests.faults.rows import Cell, Way, ways
from tests.faults.upstreams import MASTER_KEY, MODELS, UPSTREAM_KEY


@dataclass(slots=True)
class Seen:
    """What came of one request of a cell."""

    got: Got
    attempts: tuple[AttemptRecord, ...]
    seconds: float
    reserved: int
    arrived_before: int
    failure: str | None = None
    entries: Sequence[Entry] = ()

    @property
    def counted(self) -> tuple[str, ...]:
        return tuple(
            f"{'g' if each.path == 'litellm' else 'd'}{MODELS.index(each.model) + 1}:{each.failure or 'ok'}"
            for each in self.attempts
        )

    @property
    def arrivals(self) -> tuple[str, ...]:
        return tuple(
            f"{'g' if each.via == 'litellm' else 'd'}{MODELS.index(each.model) + 1 if each.model in MODELS else '?'}"
            for each in self.entries
        )


def expected(cell: Cell) -> list[tuple[Way, ...]]:
    """Return what is right for each request of a cell."""
    found = [cell.ways]
    if cell.row.then is not None:
        found.append(ways(cell.row.then[0 if cell.path == "direct" else 1]))
    return found


def complaints(cell: Cell, seen: Sequence[Seen]) -> list[str]:
    """Return every way in which a cell came out other than it has to."""
    if seen[0].got.answer == "it broke":
        return [seen[0].got.shown]
    found: list[str] = []
    for number, (rights, each) in enumerate(zip(expected(cell), seen, strict=True)):
        fewest = min((_differences(cell, right, each) for right in rights), key=len)
        found += [f"second request: {problem}" for problem in fewest] if number else fewest
    return found


def _differences(cell: Cell, right: Way, each: Seen) -> list[str]:
    found = [
        f"{what}: {_text(had)}, not {_text(wanted)} {each.got.shown[:300]}"
        for what, wanted, had in (
            ("the answer", right.answer, each.got.answer),
            ("at the upstream", right.arrivals, each.arrivals),
            ("counted", right.counted, each.counted),
            ("taken out of the quota", right.reserved, each.reserved),
            ("used by the attempts", each.reserved, sum(record.quota_used for record in each.attempts)),
        )
        if wanted != had
    ]
    return found + _laws(cell, right, each)


def _text(value: object) -> str:
    return " ".join(value) or "nothing" if isinstance(value, tuple) else str(value)


def _laws(cell: Cell, right: Way, each: Seen) -> list[str]:
    """Return which laws of every cell were broken."""
    got, row = each.got, cell.row
    found = []
    if each.seconds > row.within:
        found.append(f"took {each.seconds:.1f} s, more than {row.within:g}")
    least = row.waits[cell.path == "gateway"]
    if least and len(each.entries) > 1 and each.entries[1].at - each.entries[0].at < least:
        found.append(f"the second call came less than {least:g} s after the first")
    observed = {"served": None, "half": None, "left": "cancelled"}
    if each.failure != observed.get(got.answer, each.failure) or (got.answer not in observed and not each.failure):
        found.append(f"the observer was told {each.failure}")
    if row.retry_after and not (got.retry_after and row.retry_after[0] <= got.retry_after <= row.retry_after[1]):
        found.append(f"Retry-After is {got.retry_after}, not within {row.retry_after}")
    if got.retry_after is not None and not 0 < got.retry_after <= 86_400:
        found.append(f"Retry-After {got.retry_after} is absurd")
    if got.status in (401, 403) and cell.caller == "endpoint":
        found.append(f"HTTP {got.status} says that the caller's own key is wrong")
    if right.error and right.steps and got.code not in (None, right.steps[-1].counted):
        found.append(f"the error's code is {got.code}, not {right.steps[-1].counted}")
    if any(secret in got.shown for secret in (UPSTREAM_KEY, MASTER_KEY, ACCESS)):
        found.append("the error shows a secret")
    for entry in each.entries:
        if not entry.model.endswith(":free"):
            found.append(f"{entry.model} was asked, which is not free")
        limits = (json.loads(entry.body).get("provider") or {}).get("max_price") or {}
        if not limits or any(limits.values()):
            found.append(f"max_price was {limits}")
        if row.closed and entry.fault is not None and not entry.closed_early:
            found.append(f"the upstream call to {entry.model} via {entry.via} was never closed")
    return found
