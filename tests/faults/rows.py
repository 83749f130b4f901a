"""A row of the fault table, and the ways that requests take.

A way says everything that was sent, in order, and what the caller got:

    g1:server_error d2:server_error d3:ok            the gateway, the rescue, the next model; the caller is served
    (g1:unreachable) d1:ok                           in brackets: it never arrived at the upstream
    d1:payment_required -> UpstreamRejected          a typed error
    d1:interrupted -> part, UpstreamUnavailable      something was delivered, then the typed error in the stream
    g1:ok -> half                                    half an answer that nobody could tell from a whole one
    d1:cancelled -> left                             the caller left by itself

Where two are right, by chance alone, they stand with "or" between them.

`g` is the gateway path, `d` the direct one, the number a place in the cascade of three, the word what was counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from rollout.simulator import Kind

FIRST, ALL, ONCE, ONLY, GATEWAY_ONLY = "first model", "every model", "once, only model", "only model", "gateway's calls"


class Step(NamedTuple):
    """One attempt: `place` such as g1, what was counted ("ok" or a failure kind), whether the upstream saw it."""

    place: str
    counted: str
    arrived: bool


@dataclass(frozen=True, slots=True)
class Way:
    """What was sent, and what the caller got of it.

    Attributes:
        steps: the attempts, in order.
        error: the error's class, None where the caller was served.
        part: whether something was delivered before the error.
        otherwise: "half" or "left", where that is what came of it; "" else.
    """

    steps: tuple[Step, ...]
    error: str | None = None
    part: bool = False
    otherwise: str = ""

    @property
    def arrivals(self) -> tuple[str, ...]:
        """Return what the upstream has to see."""
        return tuple(step.place for step in self.steps if step.arrived)

    @property
    def counted(self) -> tuple[str, ...]:
        """Return what has to stand in the decision's attempts."""
        return tuple(f"{step.place}:{step.counted}" for step in self.steps)

    @property
    def reserved(self) -> int:
        """Return how many requests the quota has to have lost: not where nobody could be connected to."""
        return sum(step.arrived or step.counted != "unreachable" for step in self.steps)

    @property
    def answer(self) -> str:
        """Return what the caller gets."""
        if self.otherwise:
            return self.otherwise
        return "served" if self.error is None else f"part, {self.error}" if self.part else self.error


_STEP: Final = re.compile(r"(\()?([gd][1-3]):([a-z_]+)(\))?")


def way(text: str) -> Way:
    """Read a way."""
    sent, _, got = text.partition("->")
    steps = []
    for each in sent.split():
        found = _STEP.fullmatch(each)
        if found is None:
            raise ValueError(f"{each!r} in {text!r} is no step such as g1:ok")
        steps.append(Step(found[2], found[3], found[1] is None))
    if got.strip() in ("half", "left"):
        return Way(tuple(steps), otherwise=got.strip())
    part, _, error = got.strip().rpartition(", ")
    return Way(tuple(steps), error or None, part == "part")


def ways(text: str) -> tuple[Way, ...]:
    """Read ways that are equally right."""
    return tuple(way(each) for each in text.split(" or "))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault, and the ways that are right.

    Attributes:
        name: the fault, for people.
        kind: what the simulated upstream plays; None where it behaves.
        meets: who meets it: the FIRST model, ALL, the ONLY one (ONCE: its first call), or LiteLLM's calls
            (GATEWAY_ONLY).
        direct: a plain request's way on the direct path; None where the row is about the gateway alone.
        gateway: a plain request's way on the gateway path; None where it is not played there.
        direct_stream: a stream's way, where it is another.
        gateway_stream: a stream's way, where it is another.
        parameters: of the fault.
        then: what a second request through the same process sends, by path; None where none is made.
        asks: "text", or "schema" for an answer in JSON, or "impossible" for what the upstream refuses.
        gateway_is: "real", "refusing" (nobody listens), "cooling" (its own breaker is open), "strange" (another
            key than ours), "killed" (-9 while it holds the request).
        limits: deadlines other than the usual ones, which are longer than any answer here.
        within: seconds the cell may take at the most, generous: the sum of its deadlines and slack.
        retry_after: the seconds a caller is told, from and to; None where it is told nothing.
        waits: the least seconds between the first call at the upstream and the second, by path.
        closed: whether every upstream call has to be seen closed by us.
        spent: whether the process has no retry left in its budget.
        note: for the page.
        limit: what of it cannot be seen behind the gateway; for the page.
        leaves: whether the caller leaves: after the first piece of a stream, else after a moment.
        apart: whether it is played when nothing else is, because it keeps the gateway busy.
    """

    name: str
    kind: Kind | None = None
    meets: str = FIRST
    direct: str | None = None
    gateway: str | None = None
    direct_stream: str | None = None
    gateway_stream: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    then: tuple[str, str] | None = None
    asks: str = "text"
    gateway_is: str = "real"
    limits: Mapping[str, float] = field(default_factory=dict)
    within: float = 20.0
    retry_after: tuple[float, float] | None = None
    waits: tuple[float, float] = (0.0, 0.0)
    closed: bool = False
    spent: bool = False
    note: str = ""
    limit: str = ""
    leaves: bool = False
    apart: bool = False

    @property
    def id(self) -> str:
        """Return a name for test ids."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.name} {self.meets if self.kind else ''}".lower()).strip("-")

    def way(self, path: str, *, stream: bool) -> str | None:
        """Return the way on a path, "direct" or "gateway"; None where the row is not played there."""
        plain, streamed = (self.direct, self.direct_stream) if path == "direct" else (self.gateway, self.gateway_stream)
        return streamed or plain if stream else plain


class Cell(NamedTuple):
    """One fault, on one path, asked for in one way, by one caller."""

    row: Row
    path: str
    stream: bool
    caller: str

    @property
    def id(self) -> str:
        """Return the test's id, and the user by which the cell's requests are told apart at the upstream."""
        return f"{self.row.id}-{self.path}-{'stream' if self.stream else 'plain'}-{self.caller}"

    @property
    def ways(self) -> tuple[Way, ...]:
        """Return what is right: one way, or several where chance decides."""
        return ways(self.row.way(self.path, stream=self.stream) or "")
