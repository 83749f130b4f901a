"""The copy on disk: private, whole, and harmless when it is not."""

import stat
from pathlib import Path

import pytest

from rollout.client.disk import DiskCopy
from rollout.domain.flag import Flag
from rollout.domain.snapshot import Snapshot
from rollout.wire.snapshot import encode

SNAPSHOT = Snapshot("one", 3, "d", {"f": Flag("f", "s")}, ())


def test_what_was_saved_is_loaded_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    copy = DiskCopy(tmp_path / "new" / "folder", "http://a")
    copy.save(encode(SNAPSHOT))
    loaded = copy.load()
    assert loaded is not None
    assert loaded[0] == SNAPSHOT
    assert loaded[1] == copy.path.stat().st_mtime
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(copy.path.parent.stat().st_mode) == 0o700
    assert list(copy.path.parent.iterdir()) == [copy.path]
    assert copy.problem is None


def test_two_control_planes_never_share_a_copy(tmp_path: Path) -> None:
    DiskCopy(tmp_path, "http://a").save(encode(SNAPSHOT))
    assert DiskCopy(tmp_path, "http://b").load() is None


def test_no_copy_is_no_problem(tmp_path: Path) -> None:
    copy = DiskCopy(tmp_path, "http://a")
    assert copy.load() is None
    assert copy.problem is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b"[]", encode(SNAPSHOT)[:-9], b"[" * 100_000])
def test_a_damaged_copy_is_left_aside_and_said(tmp_path: Path, content: bytes) -> None:
    copy = DiskCopy(tmp_path, "http://a")
    copy.path.write_bytes(content)
    assert copy.load() is None
    assert copy.problem
    assert "left aside" in copy.problem
    copy.save(encode(SNAPSHOT))
    assert copy.load() is not None
    assert DiskCopy(tmp_path, "http://a").load() is not None


def test_a_folder_in_place_of_the_copy_is_a_problem_and_no_more(tmp_path: Path) -> None:
    copy = DiskCopy(tmp_path, "http://a")
    copy.path.mkdir()
    assert copy.load() is None
    assert copy.problem
    copy.save(encode(SNAPSHOT))
    assert copy.problem
    assert list(tmp_path.iterdir()) == [copy.path]


def test_a_place_that_cannot_be_written_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    copy = DiskCopy(tmp_path / "file", "http://a")
    copy.save(encode(SNAPSHOT))
    assert copy.problem
    assert "ROLLOUT_DATA_DIR" in copy.problem
    assert copy.load() is None
