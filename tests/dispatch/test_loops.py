"""Event loops that are closed by hand, in processes of their own: nothing of ours is left open, and nothing is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.dispatch import conftest as world
from tests.dispatch.test_surface import environment, run

PROGRAM = """
import asyncio, gc, json, os, rollout
def ask(): return rollout.ainvoke_llm(messages=[{"role": "user", "content": "Hej"}], model="a/b:free")
def on_a_loop_closed_by_hand(*calls):
    loop = asyncio.new_event_loop()
    for call in calls:
        loop.run_until_complete(call())
    loop.close()
    gc.collect()
def sockets(): return sum(os.readlink(f"/proc/self/fd/{each}").startswith("socket:") for each in fds())
def fds(): return [each for each in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{each}")]
"""

WITHOUT_AIOHTTP = """
import sys
sys.modules["aiohttp"] = None  # as if it were not installed
"""
SENDERS = {"aiohttp": "", "httpx": WITHOUT_AIOHTTP}


@pytest.mark.parametrize("sender", SENDERS)
def test_loops_closed_by_hand_are_let_go_of_without_a_word(
    upstream: world.Upstream, tmp_path: Path, sender: str
) -> None:
    # `run` fails where anything at all stands on standard error, and every warning is an error
    code = (
        SENDERS[sender]
        + PROGRAM
        + """
for _ in range(3):
    on_a_loop_closed_by_hand(ask)
gc.collect()
print(json.dumps(sockets()))
"""
    )
    assert run(code, **environment(upstream, tmp_path)) <= 1
    assert len(upstream.directly) == 3


def test_aclose_closes_what_a_loop_holds_open(upstream: world.Upstream, tmp_path: Path) -> None:
    code = (
        PROGRAM
        + """
on_a_loop_closed_by_hand(ask, rollout.aclose, rollout.aclose)
gc.collect()
print(json.dumps(sockets()))
"""
    )
    assert run(code, **environment(upstream, tmp_path)) == 0


def test_aclose_before_anything_was_sent_loads_and_opens_nothing() -> None:
    code = """
import asyncio, json, sys, rollout
asyncio.run(rollout.aclose())
print(json.dumps("aiohttp" in sys.modules))
"""
    assert run(code) is False


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_no_loop_of_any_kind_leaves_an_unclosed_session(
    upstream: world.Upstream, tmp_path: Path, loop: str, sender: str
) -> None:
    code = SENDERS[sender] + PROGRAM.replace("asyncio.new_event_loop()", f"__import__({loop!r}).new_event_loop()")
    code += "on_a_loop_closed_by_hand(ask)\non_a_loop_closed_by_hand(ask)\n"
    environ = environment(upstream, tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
