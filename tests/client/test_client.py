"""The client on real parts: a control plane over HTTP, a disk, forks and subprocesses."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.client import RolloutClient, current_user, default_client, set_default_client, user
from rollout.domain.flag import MAIN_FLAG
from rollout.wire.snapshot import encode
from tests.client.control_plane import ControlPlane, eventually


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    yield plane
    plane.stop()


@pytest.fixture
def make(plane: ControlPlane, tmp_path: Path) -> Any:
    made: list[RolloutClient] = []

    def client(environ: Mapping[str, str] | None = None, **more: Any) -> RolloutClient:
        named: dict[str, Any] = {"url": plane.url, "data_dir": tmp_path, "poll_interval": 0.02} | more
        made.append(RolloutClient(environ=environ or {}, **named))
        return made[-1]

    yield client
    for each in made:
        each.close()


def test_a_change_reaches_the_application_and_304_confirms_it(plane: ControlPlane, make: Any) -> None:
    client = make(token="secret")
    assert client.wait_until_ready(10)
    assert not client.is_on(MAIN_FLAG, "ada")
    plane.snapshot = plane.at(share=100_000, revision=2)
    eventually(lambda: client.is_on(MAIN_FLAG, "ada"))
    plane.wait_until_asked(3)
    assert plane.asked[-1] == ("Bearer secret", plane.snapshot.etag, 304)
    status = client.status()
    assert (status.state, status.source, status.installation, status.revision) == ("following", "server", "one", 2)
    assert status.age is not None
    assert status.age < 5
    assert status.problems == ()
    assert client.cascade == ("a/b:free",)
    assert client.evaluate(MAIN_FLAG, "ada").revision == 2


def test_constructing_asks_nobody_and_writes_nothing(plane: ControlPlane, make: Any, tmp_path: Path) -> None:
    client = make(data_dir=tmp_path / "none")
    assert client.status().state == "idle"
    assert plane.asked == []
    assert not (tmp_path / "none").exists()


def test_a_control_plane_that_goes_away_leaves_the_last_snapshot_in_force(plane: ControlPlane, make: Any) -> None:
    plane.snapshot = plane.at(share=100_000, revision=2)
    client = make()
    assert client.wait_until_ready(10)
    plane.status = 500
    eventually(lambda: client.status().state == "failing")
    assert client.is_on(MAIN_FLAG, "ada")
    assert "500" in client.status().problems[0]
    plane.status, plane.snapshot = 200, plane.at(share=0, revision=3)
    eventually(lambda: not client.is_on(MAIN_FLAG, "ada"))
    eventually(lambda: client.status().state == "following")
    assert client.status().problems == ()


def test_a_control_plane_that_is_not_there_blocks_nobody(make: Any) -> None:
    client = make(url="http://127.0.0.1:9")
    assert client.evaluate(MAIN_FLAG, "ada").cause == "no_snapshot"
    assert not client.wait_until_ready(0.01)
    eventually(lambda: client.status().state == "failing")
    assert "127.0.0.1:9 cannot be reached" in client.status().problems[0]


def test_the_last_snapshot_outlives_the_process_on_disk(plane: ControlPlane, make: Any, tmp_path: Path) -> None:
    plane.snapshot = plane.at(share=100_000, revision=2)
    first = make()
    assert first.wait_until_ready(10)
    eventually(lambda: list(tmp_path.glob("snapshot-*.json")))
    first.close()
    plane.status = 503
    second = make()
    assert second.is_on(MAIN_FLAG, "ada")  # the very first question
    assert second.status().source == "disk"
    assert not second.wait_until_ready(0)


def test_a_damaged_copy_on_disk_is_said_and_replaced(plane: ControlPlane, make: Any, tmp_path: Path) -> None:
    first = make()
    assert first.wait_until_ready(10)
    eventually(lambda: list(tmp_path.glob("snapshot-*.json")))
    first.close()
    (copy,) = tmp_path.glob("snapshot-*.json")
    copy.write_text("{")
    plane.status = 503
    second = make()
    assert second.evaluate(MAIN_FLAG, "ada").cause == "no_snapshot"
    assert any("damaged" in problem for problem in second.status().problems)
    plane.status = 200
    assert second.wait_until_ready(20)
    eventually(lambda: copy.read_bytes() == encode(plane.snapshot))


def test_another_installation_at_the_same_address_is_refused(plane: ControlPlane, make: Any) -> None:
    client = make()
    assert client.wait_until_ready(10)
    plane.snapshot = plane.at(share=100_000, revision=9, installation="two")
    eventually(lambda: any("'two'" in problem for problem in client.status().problems))
    assert not client.is_on(MAIN_FLAG, "ada")
    assert client.status().installation == "one"
    client.close()
    restarted = make()
    assert restarted.wait_until_ready(10)  # its disk copy is of the old one, which is a memory and no more
    assert restarted.status().installation == "two"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_access_token_is_said_without_it(plane: ControlPlane, make: Any, status: int) -> None:
    plane.status = status
    client = make(token="very-secret")
    client.start()
    eventually(lambda: client.status().state == "refused")
    (problem,) = client.status().problems
    assert "ROLLOUT_TOKEN" in problem
    assert "very-secret" not in repr(client.status())


def test_an_access_token_that_no_header_can_carry_is_never_shown(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    client = make(token="very\nsecret")
    client.start()
    eventually(lambda: client.status().state == "failing")
    assert "secret" not in repr(client.status()) + caplog.text


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[" * 100_000, b""])
def test_an_answer_that_is_no_snapshot_changes_nothing(plane: ControlPlane, make: Any, body: bytes) -> None:
    plane.snapshot = plane.at(share=100_000, revision=2)
    client = make()
    assert client.wait_until_ready(10)
    plane.body = body
    plane.snapshot = plane.at(share=0, revision=3)
    eventually(lambda: client.status().state == "failing")
    assert client.is_on(MAIN_FLAG, "ada")
    plane.body = None
    eventually(lambda: not client.is_on(MAIN_FLAG, "ada"))


def test_a_transport_of_the_test_is_used(tmp_path: Path, plane: ControlPlane) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=encode(plane.snapshot)))
    with RolloutClient("http://nowhere.invalid", environ={}, data_dir=tmp_path, transport=transport) as client:
        assert client.wait_until_ready(10)
    assert client.status().state == "closed"


def too_slow(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("slow", request=request)


def too_large(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=(bytes(1 << 20) for _ in range(65)))


def nothing_changed(request: httpx.Request) -> httpx.Response:
    return httpx.Response(304)


@pytest.mark.parametrize(
    ("answer", "said"),
    [(too_slow, "within 5 s"), (too_large, "too large"), (nothing_changed, "without a condition")],
)
def test_an_answer_that_cannot_be_used_is_said(
    answer: Callable[[httpx.Request], httpx.Response], said: str, tmp_path: Path
) -> None:
    with RolloutClient("http://x", environ={}, data_dir=tmp_path, transport=httpx.MockTransport(answer)) as client:
        client.start()
        eventually(lambda: client.status().state == "failing")
        assert said in client.status().problems[0]


def test_a_new_life_starts_with_what_was_known(plane: ControlPlane, make: Any) -> None:
    plane.snapshot = plane.at(share=100_000, revision=2)
    client = make()
    assert client.wait_until_ready(10)
    client.close()
    client.after_fork()
    assert client.status().state == "closed"
    assert client.status().source == "server"
    assert client.is_on(MAIN_FLAG, "ada")
    unused = make()
    unused.after_fork()
    assert unused.status().state == "idle"
    assert unused.wait_until_ready(10)


def test_the_environment_of_the_process_wins_and_is_read_again_on_demand(plane: ControlPlane, make: Any) -> None:
    environ = {"LITELLM_FORCE_USERS": "ada"}
    client = make(environ)
    assert client.wait_until_ready(10)
    assert client.evaluate(MAIN_FLAG, "ada").cause == "override"
    assert client.status().overridden
    environ["FORCE_DIRECT_OPENROUTER"] = "perhaps"
    client.reload_environment()
    assert client.evaluate(MAIN_FLAG, "ada").cause == "kill_switch"
    assert "FORCE_DIRECT_OPENROUTER" in client.status().problems[0]
    assert client.status().source == "server"
    environ.clear()
    client.reload_environment()
    assert not client.status().overridden


def test_a_reload_that_names_another_control_plane_follows_that_one(plane: ControlPlane, tmp_path: Path) -> None:
    environ = {"ROLLOUT_DATA_DIR": str(tmp_path)}
    with RolloutClient(environ=environ, poll_interval=0.02) as client:
        assert client.wait_until_ready(0)
        assert client.status().state == "local"
        environ["ROLLOUT_URL"] = plane.url
        client.reload_environment()
        assert client.wait_until_ready(10)
        assert client.status().installation == "one"


def test_a_reload_with_another_access_token_keeps_what_is_known(plane: ControlPlane, tmp_path: Path) -> None:
    plane.snapshot = plane.at(share=100_000, revision=2)
    environ = {"ROLLOUT_URL": plane.url, "ROLLOUT_TOKEN": "one", "ROLLOUT_DATA_DIR": str(tmp_path / "a")}
    with RolloutClient(environ=environ, poll_interval=0.02) as client:
        assert client.wait_until_ready(10)
        plane.status = 503
        environ |= {"ROLLOUT_TOKEN": "two", "ROLLOUT_DATA_DIR": str(tmp_path / "b")}
        client.reload_environment()
        assert client.is_on(MAIN_FLAG, "ada")
        plane.status = 200
        assert client.wait_until_ready(20)
        eventually(lambda: plane.asked[-1][0] == "Bearer two")
        assert list((tmp_path / "b").iterdir())


def test_the_kill_file_in_the_data_folder_acts_without_a_restart(tmp_path: Path) -> None:
    now = [0.0]
    client = RolloutClient(environ={"LITELLM_ROLLOUT_PERCENTAGE": "100"}, data_dir=tmp_path, clock=lambda: now[0])
    assert client.is_on(MAIN_FLAG, "ada")
    (tmp_path / "kill").touch()
    now[0] = 0.5
    assert not client.is_on(MAIN_FLAG, "ada")
    (tmp_path / "kill").unlink()
    now[0] = 1.0
    assert client.is_on(MAIN_FLAG, "ada")


@pytest.mark.parametrize("url", ["", "not a url", "ftp://x", "http://", "http://a:99999", "http://[", "\x00"])
def test_a_bad_address_is_a_problem_and_the_environment_decides(url: str, tmp_path: Path) -> None:
    client = RolloutClient(url, environ={"LITELLM_ROLLOUT_PERCENTAGE": "100"}, data_dir=tmp_path)
    assert client.is_on(MAIN_FLAG, "ada")
    assert client.status().state == "local"
    assert bool(client.status().problems) is bool(url)


def test_the_plans_own_two_fields(tmp_path: Path) -> None:
    client = RolloutClient(
        environ={"LITELLM_ROLLOUT_PERCENTAGE": "12.5", "LITELLM_FORCE_USERS": "ada"}, data_dir=tmp_path
    )
    flags = client.feature_flags("ada")
    assert (flags.enableLiteLLM, flags.litellmRolloutPercentage) == (True, 12.5)
    assert not client.feature_flags().enableLiteLLM
    with user("ada"):
        assert client.feature_flags().enableLiteLLM
    assert current_user() is None


def test_upstreams_and_a_cascade_of_ones_own_need_no_control_plane(tmp_path: Path) -> None:
    client = RolloutClient(environ={"LITELLM_BASE_URL": "http://g:4/v1"}, cascade=["a/b:free"], data_dir=tmp_path)
    assert client.upstreams.litellm_url == "http://g:4"
    assert client.cascade == ("a/b:free",)


def test_a_closed_client_still_answers_and_starts_nothing(plane: ControlPlane, make: Any) -> None:
    plane.snapshot = plane.at(share=100_000, revision=2)
    client = make()
    assert client.wait_until_ready(10)
    client.close()
    client.close()
    count = len(plane.asked)
    assert client.is_on(MAIN_FLAG, "ada")
    client.reload_environment()
    assert client.is_on(MAIN_FLAG, "ada")
    assert client.status().state == "closed"
    assert len(plane.asked) == count


def test_an_unused_client_ends_its_thread(plane: ControlPlane, tmp_path: Path) -> None:
    client = RolloutClient(plane.url, environ={}, data_dir=tmp_path, poll_interval=0.02)
    assert client.wait_until_ready(10)
    follower = client.follower_thread
    del client
    assert follower is not None
    follower.join(10)
    assert not follower.is_alive()


def test_problems_are_logged_once_and_not_every_second(
    plane: ControlPlane, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    plane.status = 401
    client = make({"LITELLM_ENABLED": "maybe"})
    with caplog.at_level(logging.WARNING, "rollout.client"):
        client.start()
        eventually(lambda: client.status().state == "refused")
    assert [record.message.split()[0] for record in caplog.records] == ["LITELLM_ENABLED", "the"]


async def test_asynchronous_code_asks_the_same_client(plane: ControlPlane, make: Any) -> None:
    client = make()
    client.start()
    while client.status().source != "server":  # noqa: ASYNC110 - the thread sets no asyncio event
        await asyncio.sleep(0.005)
    assert client.evaluate(MAIN_FLAG, "ada").cause == "percentage"


def test_one_default_client_per_process() -> None:
    mine = RolloutClient(environ={})
    before = set_default_client(mine)
    try:
        assert default_client() is mine
        assert set_default_client(None) is mine
        assert default_client() is default_client()
        assert default_client() is not mine
    finally:
        set_default_client(before)


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORK = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")  # forking beside threads is what is tested
from rollout.client import RolloutClient
url, folder = sys.argv[1:]
client = RolloutClient(url, environ={}, data_dir=folder, poll_interval=0.02)
assert client.wait_until_ready(10)
held = threading.Event()
def hold():
    with client._lock, client._holder._writing:   # a thread that stays behind with both locks
        held.set(); threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
for generation in range(2):
    child = os.fork()
    if child == 0:
        status = client.status()
        assert (status.state, status.source) == ("idle", "server"), status
        assert client.evaluate("enableLiteLLM", "ada").cause == "percentage"
        assert client.wait_until_ready(10)
        assert client.status().state == "following", client.status()
        if generation == 0:
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if client.wait_until_ready(10) else 1)
            assert os.waitpid(grandchild, 0)[1] == 0
        client.close()
        print("child followed", flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
assert client.status().state == "following"
os._exit(0)
"""


@pytest.mark.processes
def test_a_forked_child_follows_by_itself_even_where_locks_were_held(plane: ControlPlane, tmp_path: Path) -> None:
    assert run(FORK, plane.url, str(tmp_path)).count("child followed") == 2


@pytest.mark.processes
def test_every_process_computes_the_same_buckets() -> None:
    code = """
from rollout.client import RolloutClient
client = RolloutClient(environ={"LITELLM_ROLLOUT_PERCENTAGE": "50"})
print([client.evaluate("enableLiteLLM", f"user-{n}\\u00e6").bucket for n in range(200)])
"""
    client = RolloutClient(environ={"LITELLM_ROLLOUT_PERCENTAGE": "50"})
    here = [client.evaluate(MAIN_FLAG, f"user-{n}æ").bucket for n in range(200)]
    assert run(code).strip() == str(here) == run(code).strip()


@pytest.mark.processes
def test_importing_the_client_loads_no_http_client_and_nothing_of_the_server() -> None:
    code = """
import sys, rollout.client, rollout.middleware
heavy = {"httpx", "httpx2", "fastapi", "starlette", "sqlalchemy", "aiohttp", "asyncio", "click", "pydantic"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run(code).strip() == "[]"


@pytest.mark.processes
def test_a_process_without_a_control_plane_starts_no_thread() -> None:
    code = """
import threading
from rollout.client import RolloutClient
client = RolloutClient(environ={})
client.evaluate("enableLiteLLM", "ada"), client.wait_until_ready(0)
print(threading.active_count())
"""
    assert run(code).strip() == "1"


def test_a_follower_that_does_not_run_is_a_problem_and_sends_everybody_direct_until_it_runs(
    plane: ControlPlane, tmp_path: Path
) -> None:
    now, hanging, answered = [1000.0], threading.Event(), threading.Event()
    asked: list[httpx.Request] = []

    def stuck(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) > 1:
            hanging.set()
            answered.wait(60)
        return httpx.Response(200, content=encode(plane.at(share=100_000, revision=1)))

    with RolloutClient(
        "http://x",
        environ={},
        data_dir=tmp_path,
        transport=httpx.MockTransport(stuck),
        poll_interval=0.01,
        clock=lambda: now[0],
        monotonic=lambda: now[0],
    ) as client:
        assert client.wait_until_ready(10)
        assert client.is_on(MAIN_FLAG, "ada")
        assert hanging.wait(60)
        now[0] += 100.0
        assert client.evaluate(MAIN_FLAG, "ada").cause == "kill_switch"
        (problem,) = client.status().problems
        assert "--enable-threads" in problem
        answered.set()

        def again() -> bool:
            now[0] += 0.3
            return client.is_on(MAIN_FLAG, "ada")

        eventually(again)
        assert client.status().problems == ()


def test_a_fork_that_runs_no_hooks_is_noticed(plane: ControlPlane, make: Any) -> None:
    now = [0.0]
    client = make(clock=lambda: now[0])
    assert client.wait_until_ready(10)
    parents = client.follower_thread
    client._pid -= 1  # as a child sees it whose parent forked in C
    now[0] += 1.0
    client.is_on(MAIN_FLAG, "ada")
    assert client.follower_thread is not parents
    assert client.wait_until_ready(10)


def test_a_follower_that_died_is_followed_by_another(plane: ControlPlane, make: Any) -> None:
    now = [0.0]
    client = make(clock=lambda: now[0], monotonic=lambda: now[0])
    assert client.wait_until_ready(10)
    dead = client.follower_thread
    client._follower._pid -= 1  # it ends by itself, as one does that finds itself in a forked child
    dead.join(10)
    plane.snapshot = plane.at(share=100_000, revision=2, killed=True)
    now[0] += 10.0
    client.is_on(MAIN_FLAG, "ada")
    eventually(lambda: client.evaluate(MAIN_FLAG, "ada").cause == "kill_switch")
