"""A process on a leash leaves the server's own files alone, on the event loop that serves and on Python's."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from rollout.gateway.child import Child

pytestmark = pytest.mark.processes

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def a_child(folder: Path, said: list[bytes], *command: str) -> Child:
    return Child([sys.executable, "-I", "-c", *command], environ=dict(os.environ), folder=folder, output=said.append)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_file_opened_once_a_child_runs_is_not_closed_by_its_start(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    nothing = Path(os.devnull).stat().st_ino

    async def scenario() -> None:
        async with a_child(tmp_path, [], "import time; time.sleep(60)") as child:
            # as a connection that is accepted now: they get the numbers of whatever the start has just closed
            opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
            await asyncio.sleep(0.1)
            try:
                assert child.pid is not None
                assert [os.fstat(each).st_ino for each in opened] == [nothing] * 8
            finally:
                for each in opened:
                    os.close(each)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_children_that_come_and_go_leave_no_file_open(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    async def scenario() -> None:
        said: list[bytes] = []

        async def once() -> None:
            async with a_child(tmp_path, said, "print('here')") as child:
                await child.ended
            await asyncio.sleep(0)

        await once()
        before = open_files()
        for _ in range(3):
            await once()
        assert open_files() == before
        assert b"".join(said).count(b"here") == 4

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
