"""The kill file: it acts when it appears, and a path that cannot be looked at kills."""

import os
import subprocess
import sys
from pathlib import Path

from rollout.client.killfile import EVERY, KillFile


def test_a_file_that_appears_kills_and_one_that_goes_frees(tmp_path: Path) -> None:
    path = tmp_path / "kill"
    file = KillFile(path)
    assert not file.look(0.0)
    path.touch()
    assert file.look(EVERY)
    path.unlink()
    assert not file.look(2 * EVERY)
    assert file.problem is None


def test_between_two_looks_nothing_is_asked_of_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "kill"
    file = KillFile(path)
    file.look(10.0)
    path.touch()
    assert not file.look(10.0 + EVERY / 2)
    assert file.look(10.0 + EVERY)


def test_two_looks_lie_less_than_half_a_second_apart() -> None:
    assert EVERY < 0.5


def test_a_clock_set_back_does_not_stop_the_looking(tmp_path: Path) -> None:
    path = tmp_path / "kill"
    file = KillFile(path)
    file.look(1_000_000.0)
    path.touch()
    assert file.look(5.0)


def test_a_path_that_cannot_be_looked_at_kills_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "kill", tmp_path / ("k" * 5_000), Path("a\0b")):
        file = KillFile(path)
        assert file.look(0.0)
        assert file.problem
        assert "killed" in file.problem


def test_the_problem_goes_when_the_path_is_put_right(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()
    file = KillFile(tmp_path / "folder" / "kill")
    assert file.look(0.0)
    (tmp_path / "folder").unlink()
    assert not file.look(1.0)
    assert file.problem is None


def test_a_dangling_link_counts_as_there(tmp_path: Path) -> None:
    (tmp_path / "kill").symlink_to(tmp_path / "nowhere")
    assert KillFile(tmp_path / "kill").look(0.0)


def test_nowhere_never_kills() -> None:
    assert not KillFile(None).look(0.0)


def test_a_folder_in_its_place_kills_and_is_said(tmp_path: Path) -> None:
    file = KillFile(tmp_path)
    assert file.look(0.0)
    assert file.problem
    assert "folder" in file.problem


def test_a_pipe_or_a_device_in_its_place_kills_and_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        file = KillFile(path)
        assert file.look(0.0)
        assert file.problem
        assert "device" in file.problem


def test_a_named_file_whose_folder_is_not_there_is_said_until_it_is(tmp_path: Path) -> None:
    file = KillFile(tmp_path / "ops" / "kill", named=True)
    said = [(file.look(0.0), file.problem)]
    (tmp_path / "ops").mkdir()
    said.append((file.look(1.0), file.problem))
    assert [killed for killed, _ in said] == [False, False]
    assert "ROLLOUT_KILL_FILE" in (said[0][1] or "")
    assert said[1][1] is None
    (tmp_path / "ops" / "kill").touch()
    assert file.look(2.0)


def test_the_folder_of_the_default_place_may_be_made_later(tmp_path: Path) -> None:
    file = KillFile(tmp_path / "data" / "kill")
    assert not file.look(0.0)
    assert file.problem is None


def test_a_place_that_depends_on_a_working_folder_that_is_gone_kills(tmp_path: Path) -> None:
    program = f"""
import os
from pathlib import Path
from rollout.client.killfile import KillFile
os.mkdir({str(tmp_path / "gone")!r}); os.chdir({str(tmp_path / "gone")!r}); os.rmdir({str(tmp_path / "gone")!r})
file = KillFile(Path("kill"))
print(file.look(0.0), file.problem)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("True"), done.stdout
    assert "working folder" in done.stdout
