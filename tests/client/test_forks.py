"""Processes that fork while a client starts, and that have no file or thread to spare: a kill reaches every one."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.client.control_plane import ControlPlane

pytestmark = pytest.mark.processes


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    plane.snapshot = plane.at(share=100_000, revision=1)
    yield plane
    plane.stop()


def kill(plane: ControlPlane) -> None:
    killed = plane.at(share=100_000, revision=2, killed=True)
    plane.snapshot = replace(killed, revision=2)


# What each program ends with: its line says that it follows, then it waits until it hears of the kill.
UNTIL_KILLED = """
def until(true):
    end = time.monotonic() + 30
    while not true():
        if time.monotonic() > end:
            os.write(1, f"{client.status()}\\n".encode())
            os._exit(1)
        time.sleep(0.01)
def live():
    until(lambda: client.is_on("enableLiteLLM", "ada"))
    os.write(1, b"follows\\n")
    until(lambda: client.evaluate("enableLiteLLM", "ada").cause == "kill_switch")
"""

STORM = (
    """
import os, random, sys, threading, time, warnings
warnings.simplefilter("ignore")  # forking beside threads is what is tested
from rollout.client import RolloutClient
chance = random.Random(int(sys.argv[3]))
client = RolloutClient(sys.argv[1], environ={}, data_dir=sys.argv[2], poll_interval=0.02)
"""
    + UNTIL_KILLED
    + """
# the import and the first question are made by one thread while another one forks
threading.Thread(target=client.evaluate, daemon=True).start()
children = []
for _ in range(8):
    time.sleep(chance.choice([0, 0.001, 0.01, 0.05]))
    if (child := os.fork()) == 0:
        import httpx
        httpx.Client()
        live()
        os._exit(0)
    children.append(child)
live()
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
"""
)


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_reaches_every_child_that_was_forked_while_the_client_started(
    plane: ControlPlane, tmp_path: Path, seed: int
) -> None:
    _killed_after(plane, 9, STORM, plane.url, tmp_path, seed)


FEW_FILES = (
    """
import os, resource, sys, time
from rollout.client import RolloutClient
client = RolloutClient(sys.argv[1], environ={}, data_dir=sys.argv[2], poll_interval=0.02)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
free = os.open(os.devnull, os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (free + int(sys.argv[3]), hard))  # so many may still be opened
"""
    + UNTIL_KILLED
    + """
for _ in range(20):
    assert not client.is_on("enableLiteLLM", "ada")
    time.sleep(0.01)
assert client.status().problems, client.status()
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
os.write(1, b"has files\\n")
live()
assert not client.status().problems, client.status()
"""
)


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_a_process_without_a_file_to_spare_follows_once_it_has_some(
    plane: ControlPlane, tmp_path: Path, spare: int
) -> None:
    plane.status = 503  # one file to spare is enough to connect
    _killed_after(plane, 1, FEW_FILES, plane.url, tmp_path, spare)


NO_THREADS = (
    """
import os, sys, threading, time
from rollout.client import RolloutClient
client = RolloutClient(sys.argv[1], environ={}, data_dir=sys.argv[2], poll_interval=0.02)
"""
    + UNTIL_KILLED
    + """
threading.stack_size(1 << 46)  # no system gives that: none of our threads starts
live()
assert "could not start" in " ".join(client.status().problems), client.status()
"""
)


def test_a_process_that_gets_no_thread_asks_while_somebody_is_evaluated(plane: ControlPlane, tmp_path: Path) -> None:
    _killed_after(plane, 1, NO_THREADS, plane.url, tmp_path)


LISTENER = (
    """
import os, sys, time
from rollout.client import RolloutClient
def broken(snapshot):
    raise SystemExit("a listener that wants to leave")
client = RolloutClient(sys.argv[1], environ={}, data_dir=sys.argv[2], poll_interval=0.02, on_change=broken)
"""
    + UNTIL_KILLED
    + "live()\n"
)


def test_a_listener_that_leaves_does_not_end_the_following(plane: ControlPlane, tmp_path: Path) -> None:
    _killed_after(plane, 1, LISTENER, plane.url, tmp_path)


NO_HOOKS = """
import os
del os.fork, os.register_at_fork
import rollout, rollout.dispatch.invoke
print(rollout.RolloutClient(environ={}).evaluate().cause)
"""


def test_importing_needs_no_fork_hooks() -> None:
    done = subprocess.run([sys.executable, "-c", NO_HOOKS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "no_snapshot"


def _killed_after(plane: ControlPlane, lives: int, program: str, *arguments: object) -> None:
    """Run a program, kill once each of its processes says that it follows, and expect all to end well."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        said = []
        for line in running.stdout:
            said.append(line)
            plane.status = 200
            if said.count("follows\n") == lives:
                kill(plane)
        complained = running.stderr.read()
        assert running.wait(60) == 0, complained + "".join(said)
    assert said.count("follows\n") == lives, complained
