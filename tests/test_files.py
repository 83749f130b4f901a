"""What is written whole: regular files are replaced, links followed, and what is no file is written to."""

import os
import stat
import threading
from pathlib import Path

import pytest

from rollout.files import write_whole


def test_a_file_is_replaced_whole_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a longer content than the new one")
    before = file.stat().st_ino
    write_whole(file, b"new", forced=True)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_and_what_it_points_at_is_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link, second = tmp_path / "folder" / "target", tmp_path / "link", tmp_path / "second"
    link.symlink_to("folder/target")
    second.symlink_to(link)
    for content in (b"into a place that was empty", b"and over it"):
        write_whole(second, content)
        assert second.is_symlink()
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert list((tmp_path / "folder").iterdir()) == [target]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"x" * 200_000, wait=True)
    reader.join(60)
    assert read == [b"x" * 200_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_pipe_without_a_reader_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        write_whole(tmp_path / "pipe", b"x")


def test_a_device_stays_a_device() -> None:
    before = Path("/dev/null").stat()
    write_whole(Path("/dev/null"), b"x")
    after = Path("/dev/null").stat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)


def test_what_is_open_already_is_added_to(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.write(b"before ")
        file.flush()
        write_whole(Path(f"/dev/fd/{file.fileno()}"), b"after")
    assert (tmp_path / "file").read_bytes() == b"before after"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_folder_is_refused_and_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "folder", b"x")
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "none" / "file", b"x")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OSError, match="symbolic links"):
        write_whole(loop, b"x")
    assert {each.name for each in tmp_path.iterdir()} == {"folder", "loop"}


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    file = tmp_path / ("\N{CAT FACE}" * 63)  # 252 bytes of 255
    write_whole(file, b"new")
    assert list(tmp_path.iterdir()) == [file]
