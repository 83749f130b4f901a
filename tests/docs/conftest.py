"""A running installation for each page."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.installation import Installation, installed


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path) as running:
        yield running
