"""Starting again, and knowing when. The process is a stand-in of a few lines; the real one is in test_litellm."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rollout.gateway.install import InstallCancelled, InstallError
from rollout.gateway.plan import GatewayPlan, Pace, litellm_command, litellm_environment
from rollout.gateway.progress import InstallPhase, InstallProgress, Report
from rollout.gateway.state import TRANSITIONS, GatewayPhase, GatewayState
from rollout.gateway.supervise import Supervisor, pause_before_restart
from rollout.gateway.watch import ExternalGateway

pytestmark = pytest.mark.processes

P = GatewayPhase
SECRETS = ("sk-or-v1-hush-hush-hush-hush", "sk-master-hush-hush-hush")
PACE = Pace(
    look_while_starting=0.02, look=0.02, answer_within=1.0, start_within=20.0, first_pause=0.05, longest_pause=0.2
)
# Lives, says what it was given, and stops answering while a file called `dumb` lies beside it.
STAND_IN = """
import http.server, os, sys
print("started with", os.environ["OPENROUTER_API_KEY"], sorted(os.environ), flush=True)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists("dumb") or self.path != "/health/liveliness" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


def installs_nothing(plan: GatewayPlan, environ: Mapping[str, str], report: Report, stop: threading.Event) -> None:
    report(InstallProgress(InstallPhase.DONE, line="nothing to install"))


def stand_in(plan: GatewayPlan) -> Sequence[str]:
    return [sys.executable, "-I", "-c", STAND_IN, str(plan.port)]


class Watched:
    """A supervisor, its states in order, and a way to wait for one."""

    def __init__(self, folder: Path, port: int, **changes: Any) -> None:
        self.states: list[GatewayState] = []
        self.changed = asyncio.Event()
        self.plan = GatewayPlan(
            environment=folder / "env",
            lock=folder / "lock.txt",
            folder=folder / "data",
            port=port,
            upstream_base_url="http://127.0.0.1:9/api/v1",
            upstream_key=SECRETS[0],
            master_key=SECRETS[1],
        )
        arguments: dict[str, Any] = {
            "cascade": ["a/b:free"],
            "environ": {**os.environ, "DATABASE_URL": "hush", "AWS_SECRET_ACCESS_KEY": "hush"},
            "clock": time.time,
            "sleep": asyncio.sleep,
            "random": lambda: 0.5,
            "on_change": self.note,
            "command": stand_in,
            "install": installs_nothing,
            "pace": PACE,
        }
        self.supervisor = Supervisor(self.plan, **{**arguments, **changes})

    @property
    def phases(self) -> list[GatewayPhase]:
        seen = [state.phase for state in self.states]
        return [phase for place, phase in enumerate(seen) if place == 0 or seen[place - 1] is not phase]

    async def becomes(self, phase: GatewayPhase, *, after: int = 0) -> GatewayState:
        async with asyncio.timeout(30):
            return await self.until(
                lambda: next((state for state in self.states[after:] if state.phase is phase), None)
            )

    async def until(self, found: Callable[[], GatewayState | None]) -> GatewayState:
        """Look at every change until something is found."""
        while (state := found()) is None:
            self.changed.clear()
            await self.changed.wait()
        return state

    def note(self, state: GatewayState) -> None:
        self.states.append(state)
        self.changed.set()

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator["Watched"]:
        task = asyncio.ensure_future(self.supervisor.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()


def all_written(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_it_installs_starts_answers_and_is_gone_when_we_stop(tmp_path: Path, free_port: int) -> None:
    it = Watched(tmp_path, free_port)
    assert it.supervisor.state.phase is P.WAITING
    async with it.run():
        state = await it.becomes(P.HEALTHY)
        assert state.answering
        assert state.pid is not None
        assert is_running(state.pid)
        assert state.install == InstallProgress(InstallPhase.DONE, line="nothing to install")
    assert it.phases == [P.INSTALLING, P.STARTING, P.HEALTHY, P.STOPPED]
    assert not it.supervisor.state.answering
    assert not is_running(state.pid)


async def test_a_killed_process_is_started_again(tmp_path: Path, free_port: int) -> None:
    it = Watched(tmp_path, free_port)
    async with it.run():
        first = await it.becomes(P.HEALTHY)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        broken = await it.becomes(P.RESTARTING)
        assert "SIGKILL" in broken.detail
        assert (broken.pid, broken.answering, broken.restarts) == (None, False, 1)
        again = await it.becomes(P.STARTING, after=it.states.index(broken))
        assert "SIGKILL" in again.detail, "a start after a crash must not look like the first one"
        second = await it.becomes(P.HEALTHY, after=it.states.index(broken))
        assert second.pid != first.pid
        assert "SIGKILL" in str(second.last_error)


async def test_a_process_that_stops_answering_is_unwell_then_ended_then_well_again(
    tmp_path: Path, free_port: int
) -> None:
    it = Watched(tmp_path, free_port)
    async with it.run():
        first = await it.becomes(P.HEALTHY)
        (it.plan.folder / "dumb").touch()
        ended = await it.becomes(P.RESTARTING)
        assert "unanswered" in ended.detail
        late = next(state for state in it.states if state.phase is P.HEALTHY and not state.answering)
        assert "left 1 question for its health unanswered" in late.detail
        assert late.last_error_at is not None
        assert late.last_error_at >= first.since
        assert first.pid is not None
        assert not is_running(first.pid)
        (it.plan.folder / "dumb").unlink()
        await it.becomes(P.HEALTHY, after=it.states.index(ended))
    assert it.phases == [P.INSTALLING, P.STARTING, P.HEALTHY, P.UNWELL, P.RESTARTING, P.STARTING, P.HEALTHY, P.STOPPED]


async def test_a_process_that_dies_at_once_is_tried_again_ever_more_rarely(tmp_path: Path, free_port: int) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds != 1000.0:
            pauses.append(seconds)
            await asyncio.sleep(0)
        else:
            await asyncio.sleep(60)  # never the first to end: the process is

    it = Watched(
        tmp_path,
        free_port,
        command=lambda _: [sys.executable, "-I", "-S", "-c", "raise SystemExit(3)"],
        sleep=sleep,
        pace=Pace(look_while_starting=1000.0, first_pause=1.0, longest_pause=6.0),
    )
    async with it.run():
        async with asyncio.timeout(30):
            await it.until(lambda: it.supervisor.state if it.supervisor.state.restarts >= 5 else None)
    assert pauses[:4] == [0.75, 1.5, 3.0, 4.5]
    assert "exit code 3" in str(it.supervisor.state.last_error)


async def test_a_taken_port_names_the_variable_and_blames_nobody(tmp_path: Path, free_port: int) -> None:
    it = Watched(tmp_path, free_port)
    with socket.create_server(("127.0.0.1", free_port)):
        async with it.run():
            state = await it.becomes(P.FAILED)
            assert f"port {free_port} on 127.0.0.1" in state.detail
            assert "LITELLM_PORT" in state.detail
            assert "neither LiteLLM nor rollout is at fault" in state.detail
            assert state.pid is None
    assert P.STARTING not in it.phases


async def test_it_starts_as_soon_as_the_port_is_given_up(tmp_path: Path, free_port: int) -> None:
    it = Watched(tmp_path, free_port)
    with socket.create_server(("127.0.0.1", free_port)) as other:
        async with it.run():
            await it.becomes(P.FAILED)
            other.close()
            assert (await it.becomes(P.HEALTHY)).answering


async def test_an_install_that_fails_is_shown_and_tried_again(tmp_path: Path, free_port: int) -> None:
    tries = iter([InstallError("no network"), InstallError("no network"), None])

    def install(plan: GatewayPlan, environ: Mapping[str, str], report: Report, cancelled: threading.Event) -> None:
        problem = next(tries)
        if problem:
            raise problem

    it = Watched(tmp_path, free_port, install=install)
    async with it.run():
        assert (await it.becomes(P.FAILED)).last_error == "no network"
        await it.becomes(P.HEALTHY)
    assert it.phases[:6] == [P.INSTALLING, P.FAILED, P.INSTALLING, P.FAILED, P.INSTALLING, P.STARTING]


async def test_stopping_while_it_installs_ends_the_install(tmp_path: Path, free_port: int) -> None:
    began, ended = threading.Event(), threading.Event()

    def install(plan: GatewayPlan, environ: Mapping[str, str], report: Report, cancelled: threading.Event) -> None:
        began.set()
        assert cancelled.wait(30)
        ended.set()
        raise InstallCancelled("stopped")

    it = Watched(tmp_path, free_port, install=install)
    async with it.run():
        await asyncio.to_thread(began.wait, 30)
    assert ended.is_set()
    assert it.phases == [P.INSTALLING, P.STOPPED]


async def test_a_command_that_is_not_there_is_a_failed_start(tmp_path: Path, free_port: int) -> None:
    it = Watched(tmp_path, free_port, command=lambda _: ["/nowhere/litellm"])
    async with it.run():
        state = await it.becomes(P.RESTARTING)
        assert "exit code 127" in state.detail
    assert "/nowhere/litellm" in it.plan.log.read_text()


async def test_a_process_that_never_answers_is_given_up(tmp_path: Path, free_port: int) -> None:
    pace = Pace(look_while_starting=0.02, start_within=0.3, first_pause=0.05)
    command = [sys.executable, "-I", "-c", "import time; time.sleep(60)"]
    it = Watched(tmp_path, free_port, command=lambda _: command, pace=pace)
    async with it.run():
        assert "did not answer within" in (await it.becomes(P.RESTARTING)).detail


async def test_it_gets_its_keys_and_nothing_else_of_ours_and_no_secret_is_written(
    tmp_path: Path, free_port: int
) -> None:
    it = Watched(tmp_path, free_port)
    async with it.run():
        await it.becomes(P.HEALTHY)
    log = it.plan.log.read_text()
    assert "started with ***" in log
    assert "DATABASE_URL" not in log
    assert "AWS_" not in log
    written = all_written(tmp_path)
    shown = repr(it.states) + repr(it.plan)
    assert not any(secret in text for secret in SECRETS for text in (written, shown))


async def test_a_changed_cascade_is_in_the_file_and_a_bad_one_leaves_it_alone(tmp_path: Path, free_port: int) -> None:
    it = Watched(tmp_path, free_port)
    async with it.run():
        first = await it.becomes(P.HEALTHY)
        assert it.supervisor.set_cascade(["c/d:free"])
        assert "openrouter/c/d:free" in it.plan.config.read_text()
        with pytest.raises(ValueError, match="ROLLOUT_ALLOW_PAID"):
            it.supervisor.set_cascade(["c/d"])
        assert "openrouter/c/d:free" in it.plan.config.read_text()
        assert it.supervisor.state.pid == first.pid


async def test_a_half_written_configuration_of_before_does_no_harm(tmp_path: Path, free_port: int) -> None:
    it = Watched(tmp_path, free_port)
    it.plan.folder.mkdir()
    it.plan.config.write_text("model_list: [{")
    async with it.run():
        await it.becomes(P.HEALTHY)
    assert "openrouter/a/b:free" in it.plan.config.read_text()


async def test_a_configuration_that_cannot_be_written_is_a_clear_failure(tmp_path: Path, free_port: int) -> None:
    it = Watched(tmp_path, free_port)
    it.plan.config.mkdir(parents=True)
    async with it.run():
        assert "cannot be written" in (await it.becomes(P.FAILED)).detail


async def test_a_foreign_gateway_is_only_asked(tmp_path: Path, free_port: int) -> None:
    seen: list[GatewayState] = []
    dumb, answering = asyncio.Event(), asyncio.Event()

    def note(state: GatewayState) -> None:
        seen.append(state)
        if state.answering:
            answering.set()
            dumb.clear()
        elif "LITELLM_BASE_URL" in state.detail:
            dumb.set()

    external = ExternalGateway(
        f"http://127.0.0.1:{free_port}", clock=time.time, sleep=asyncio.sleep, on_change=note, pace=PACE
    )
    assert not external.set_cascade(["a/b:free"])
    task = asyncio.ensure_future(external.run())
    try:
        async with asyncio.timeout(30):
            await dumb.wait()
            it = Watched(tmp_path, free_port)
            async with it.run():
                await answering.wait()
                assert external.state.pid is None
            await dumb.wait()
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert {state.phase for state in seen} == {P.EXTERNAL, P.STOPPED}


def test_pauses_double_up_to_a_cap_and_are_never_less_than_half_of_it() -> None:
    pace = Pace(first_pause=1.0, longest_pause=60.0)
    assert [pause_before_restart(n, pace=pace, random=lambda: 0.0) for n in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert pause_before_restart(10_000, pace=pace, random=lambda: 0.999) < 60.0


def test_every_phase_is_in_the_table_and_every_running_gateway_can_be_stopped() -> None:
    assert set(TRANSITIONS) == set(P)
    assert all(P.STOPPED in after for phase, after in TRANSITIONS.items() if phase is not P.STOPPED)
    assert {phase for after in TRANSITIONS.values() for phase in after} | {P.WAITING} == set(P)


def test_litellm_is_told_to_read_no_env_file_no_database_and_no_proxy_for_loopback(tmp_path: Path) -> None:
    plan = Watched(tmp_path, 4000).plan
    environ = litellm_environment(plan, {"HOME": "/h", "NO_PROXY": "intern.example", "DATABASE_URL": "x", "FOO": "y"})
    assert environ["LITELLM_MODE"] == "PRODUCTION"
    assert environ["NO_PROXY"] == "intern.example,127.0.0.1,localhost,::1"
    assert environ["HOME"] == "/h"
    assert not {"DATABASE_URL", "FOO"} & set(environ)
    assert not any(secret in word for secret in SECRETS for word in litellm_command(plan))
