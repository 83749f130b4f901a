"""Each fault on each path, plain and streaming, by each caller: the answer, the calls, the time, what was counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.faults.judging import Seen, complaints
from tests.faults.rows import Cell
from tests.faults.table import cells

pytestmark = [pytest.mark.litellm, pytest.mark.processes]


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: cell.id)
def test_a_fault_comes_out_as_the_table_says(cell: Cell, played: Mapping[str, Sequence[Seen]]) -> None:
    found = complaints(cell, played[cell.id])
    assert not found, "; ".join(found)
