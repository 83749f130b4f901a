"""The page of faults is the table that is played."""

from __future__ import annotations

import json

import pytest

from tests.faults.document import MEASURED, PAGE, page
from tests.faults.rows import Cell, way
from tests.faults.table import ROWS, cells


def test_the_page_says_what_the_table_expects() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again: python -m tests.faults.document"


def test_every_fault_was_measured_with_litellm_alone() -> None:
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    rows = [row for row in ROWS if row.name != "Nothing" and not row.leaves]
    wanted = {Cell(row, "gateway", stream, "sdk").id for row in rows for stream in (False, True)}
    assert set(measured) == wanted, "measure again: python -m tests.faults.alone"


def test_nobody_sends_more_than_three_attempts_and_one_rescue() -> None:
    for name, right in [(cell.id, right) for cell in cells() for right in cell.ways]:
        places = [step.place for step in right.steps]
        assert sum(place.startswith("g") for place in places) <= 3
        assert len(places) <= (4 if {"g1", "d1"} <= set(places) else 3), name


def test_a_way_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="is no step"):
        way("d9:ok")
