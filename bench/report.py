"""What rounds of measurements amount to: medians, ratios, aims, tables. Pure.

Contenders take turns within each round, so that a machine that slows down slows all of them: ratios are taken
within a round, and their median over the rounds is what is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

BEGIN: Final = "<!-- measured: written by `make bench ARGS=--write` -->"
END: Final = "<!-- measured: end -->"
_GOOD_DIGITS: Final = 3


class CannotMeasure(Exception):
    """A benchmark could not run; the message says why and what to do."""


class Series:
    """One figure per contender and round, in the order of the rounds."""

    def __init__(self) -> None:
        self._figures: dict[str, list[float]] = {}

    def add(self, contender: str, figure: float) -> None:
        """Take down a contender's figure of the next round."""
        self._figures.setdefault(contender, []).append(figure)

    def __contains__(self, contender: str) -> bool:
        return contender in self._figures

    def median(self, contender: str) -> float:
        """Return the median over the rounds."""
        return median(self._figures[contender])

    def ratio(self, contender: str, base: str) -> float:
        """Return the median over the rounds of `contender / base`."""
        return median(one / other for one, other in self._pairs(contender, base))

    def added(self, contender: str, base: str) -> float:
        """Return the median over the rounds of `contender - base`."""
        return median(one - other for one, other in self._pairs(contender, base))

    def _pairs(self, contender: str, base: str) -> Sequence[tuple[float, float]]:
        return list(zip(self._figures[contender], self._figures[base], strict=True))


def percentile(figures: Sequence[float], percent: float) -> float:
    """Return the smallest figure that at least `percent` of them do not exceed ("nearest rank").

    Raises:
        ValueError: there are no figures.
    """
    if not figures:
        raise ValueError("no figures, so no percentile")
    ordered = sorted(figures)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should be: at least or at most `limit`."""

    what: str
    figure: float
    limit: float
    at_most: bool
    unit: str = ""

    @property
    def met(self) -> bool:
        """Say whether the figure is on the right side of the limit."""
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit

    def cells(self) -> tuple[str, str, str, str]:
        """Return the aim as a row of a table."""
        word = "at most" if self.at_most else "at least"
        return (
            self.what,
            f"{word} {number(self.limit)}{self.unit}",
            f"{number(self.figure)}{self.unit}",
            "met" if self.met else "NOT MET",
        )


def at_least(what: str, figure: float, limit: float, unit: str = "") -> Aim:
    return Aim(what, figure, limit, at_most=False, unit=unit)


def at_most(what: str, figure: float, limit: float, unit: str = "") -> Aim:
    return Aim(what, figure, limit, at_most=True, unit=unit)


@dataclass(frozen=True, slots=True)
class Part:
    """What one benchmark brought. `head` and `rows` are its table; `notes` are sentences below it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    aims: Sequence[Aim]
    notes: Sequence[str] = field(default=())

    def markdown(self) -> str:
        """Return the part as Markdown that is readable as it stands."""
        pieces = [f"## {self.title}", table(self.head, self.rows)]
        if self.notes:
            pieces.append("\n".join(self.notes))
        pieces.append(table(("Aim", "wanted", "found", ""), [aim.cells() for aim in self.aims]))
        return "\n\n".join(pieces) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with its columns in line; the first is set left, the others right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join((first, *others)) + " |"

    first, *others = widths
    rule = "|-" + "-" * first + "-|" + "".join("-" * (width + 1) + ":|" for width in others)
    return "\n".join((line(head), rule, *map(line, rows)))


def between_marks(page: str, text: str) -> str:
    """Return a page with what stands between its two marks replaced.

    Raises:
        ValueError: the page does not hold each mark once, in order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the page has to hold {BEGIN} and then {END}, once each")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"


def number(figure: float) -> str:
    """Return a figure with three digits that count, or all digits before the point."""
    if figure == 0:
        return "0"
    size = abs(figure)
    decimals = 0
    while size < 10 ** (_GOOD_DIGITS - 1) and decimals < 4:
        size *= 10
        decimals += 1
    text = f"{figure:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def times(figure: float) -> str:
    """Return a ratio as text: `12.3x`."""
    return f"{number(figure)}x"


def versions(found: Mapping[str, str]) -> str:
    """Return versions as one line."""
    return ", ".join(f"{name} {version}" for name, version in found.items())
