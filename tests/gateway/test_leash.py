"""What is on the leash never outlives who holds it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rollout.gateway import leash

pytestmark = pytest.mark.processes

LEASH = [sys.executable, "-I", leash.__file__]
# A command with a child of its own; both write their process ids.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(60)"])
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(60)
"""
HOLDER = """
import subprocess, sys, time
subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
time.sleep(60)
"""


def eventually(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    return state != "Z"


def family(path: Path) -> list[int]:
    eventually(path.exists, "the command did not start")
    return [int(pid) for pid in path.read_text().split()]


def a_family_command(path: Path) -> list[str]:
    return [*LEASH, "--", sys.executable, "-I", "-c", FAMILY, str(path)]


def all_gone(pids: list[int]) -> None:
    eventually(lambda: not any(map(is_running, pids)), f"one of {pids} is still running")


def test_a_parent_killed_with_9_takes_the_whole_group_along(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", HOLDER, *a_family_command(tmp_path / "pids")]
    with subprocess.Popen(command) as parent:
        pids = family(tmp_path / "pids")
        assert all(is_running(pid) for pid in pids)
        parent.kill()
    all_gone(pids)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_stop_it_ends_the_group_and_says_by_which_signal(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(a_family_command(tmp_path / "pids"), stdin=subprocess.PIPE) as held:
        pids = family(tmp_path / "pids")
        held.send_signal(number)
        assert held.wait(20) == 128 + signal.SIGTERM
    all_gone(pids)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends a child with its parent")
def test_a_leash_killed_with_9_takes_the_command_along(tmp_path: Path) -> None:
    with subprocess.Popen(a_family_command(tmp_path / "pids"), stdin=subprocess.PIPE) as held:
        command, child = family(tmp_path / "pids")
        held.kill()
        held.wait()
        all_gone([command])
        os.kill(child, signal.SIGKILL)  # the kernel's promise is for the command alone


def test_a_command_that_ends_leaves_no_children_behind(tmp_path: Path) -> None:
    program = FAMILY.replace("time.sleep(60)\n", "sys.exit(7)\n")
    command = [*LEASH, "--", sys.executable, "-I", "-c", program, str(tmp_path / "pids")]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as held:
        assert held.wait(20) == 7
    all_gone(family(tmp_path / "pids"))


def test_a_command_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('deaf', flush=True); time.sleep(60)"
    )
    command = [*LEASH, "--", sys.executable, "-I", "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdin is not None
        assert held.stdout is not None
        assert held.stdout.readline() == b"deaf\n"
        held.stdin.close()
        assert held.wait(leash.GRACE_SECONDS + 20) == 128 + signal.SIGKILL


def test_the_process_id_is_reported_and_the_input_is_only_a_leash(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    program = "import os, sys; print(os.getpid(), repr(sys.stdin.read()))"
    command = [*LEASH, "--report", str(write_end), "--", sys.executable, "-I", "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[write_end]) as held:
        os.close(write_end)
        assert held.stdin is not None
        assert held.stdout is not None
        held.stdin.write(b"not for the command\n")
        held.stdin.flush()
        with os.fdopen(read_end) as report:
            pid = int(report.read())
        assert held.stdout.read().decode().split() == [str(pid), "''"]
        assert held.wait(20) == 0


@pytest.mark.parametrize("arguments", [[], ["--"], ["sleep", "1"], ["--report", "x", "--", "sleep", "1"]])
def test_wrong_usage_is_told(arguments: list[str]) -> None:
    done = subprocess.run([*LEASH, *arguments], stdin=subprocess.PIPE, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"usage" in done.stderr


def test_a_command_that_is_not_there_is_named() -> None:
    done = subprocess.run([*LEASH, "--", "/nowhere/at/all"], stdin=subprocess.PIPE, capture_output=True, check=False)
    assert done.returncode == 127
    assert b"'/nowhere/at/all'" in done.stderr
