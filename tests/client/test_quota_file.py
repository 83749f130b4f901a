"""What was spent today outlives a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.client.quota_file import QuotaFile
from rollout.resilience.quota import QuotaRecord


def test_a_record_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    record = QuotaRecord(20_000, 17, (1.5, 2.5), 3.0)
    QuotaFile(tmp_path / "quota.json").save(record)
    assert QuotaFile(tmp_path / "quota.json").load() == record


def test_nothing_is_known_before_the_first_record(tmp_path: Path) -> None:
    assert QuotaFile(tmp_path / "quota.json").load() is None


def kept(day: str = "1", used: str = "1", moments: str = "[]", blocked_until: str = "0") -> str:
    return f'{{"day":{day},"used":{used},"moments":{moments},"blocked_until":{blocked_until}}}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"day": "x"}',
        "[" * 100_000,
        kept(moments="3"),
        kept(moments="[1, NaN]"),
        kept(moments="[1e999]"),
        kept(moments="[1" + "0" * 400 + "]"),
        kept(day="1e999"),
        kept(day="-1"),
        kept(used="Infinity"),
        kept(used="-500"),
        kept(blocked_until="NaN"),
        kept(blocked_until="1e999"),
    ],
)
def test_a_damaged_record_is_left_aside_and_said_once(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "quota.json").write_text(text)
    file = QuotaFile(tmp_path / "quota.json")
    assert (file.load(), file.load()) == (None, None)
    assert len(caplog.records) == 1
    assert "cannot be read" in caplog.text
    assert "counting anew" in caplog.text


def test_a_folder_that_cannot_be_written_to_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    QuotaFile(tmp_path / "gone" / "quota.json").save(QuotaRecord(1, 1))
    assert "a restart forgets it" in caplog.text
