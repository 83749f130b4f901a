"""Plays the chosen cells of the fault table once, and prints what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.faults.cells import Stage
from tests.faults.judging import Seen, complaints
from tests.faults.rows import Cell
from tests.faults.table import COLUMNS, ROWS

Played = Mapping[str, Sequence[Seen]]
PLAYED = pytest.StashKey[tuple[list[Cell], Played]]()


@pytest.fixture(scope="session")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """What came of every cell whose test is to run."""
    wanted: list[Cell] = []
    for item in request.session.items:
        if isinstance(item, pytest.Function) and "played" in item.fixturenames:
            cell = item.callspec.params["cell"]
            assert isinstance(cell, Cell)
            wanted.append(cell)
    seen = Stage(tmp_path_factory.mktemp("faults"), wanted).play()
    request.config.stash[PLAYED] = wanted, seen
    return seen


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table: what the caller got, and how many calls reached the upstream for it."""
    if PLAYED not in config.stash:
        return
    wanted, seen = config.stash[PLAYED]
    by_id = {cell.id: cell for cell in wanted}
    write = terminalreporter.write_line
    terminalreporter.section("the fault table")
    write("ok served, er a typed error, pt a part and then a typed error, hf half an answer that looks whole, -- left;")
    write("the number: calls that reached the upstream; ! wrong")
    write("")
    for level in range(3):
        names = [("direct", "gateway"), ("plain", "stream"), ("sync", "async", "endp.")]
        texts = [
            str(("stream" if column[1] else "plain") if level == 1 else column[2 * (level == 2)]) for column in COLUMNS
        ]
        assert len(names) == 3
        write(f"{'':58}" + "".join(f"{text[:7]:8}" for text in texts))
    for row in ROWS:
        line = [_shown(by_id.get(cell.id), seen.get(cell.id)) for cell in (Cell(row, *column) for column in COLUMNS)]
        if any(line):
            name = f"{row.name} ({row.meets})" if row.kind else row.name
            write(f"{name[:57]:58}" + "".join(f"{text:8}" for text in line))


def _shown(cell: Cell | None, seen: Sequence[Seen] | None) -> str:
    if cell is None or seen is None:
        return ""
    answer = seen[0].got.answer
    word = {"served": "ok", "half": "hf", "left": "--"}.get(answer, "pt" if answer.startswith("part") else "er")
    return f"{word} {len(seen[0].arrivals)}{'!' if complaints(cell, seen) else ''}"
