"""`python -m rollout.simulator` as a process."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rollout.simulator import World, running
from rollout.simulator.control import Control
from rollout.simulator.server import keep_secret

pytestmark = pytest.mark.processes


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "rollout.simulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_base_url_and_a_signal_ends_it_cleanly_even_while_a_request_hangs(
    number: signal.Signals, tmp_path: Path
) -> None:
    file = tmp_path / "data" / "the.secret"
    with started("--port", "0", "--seed", "3", "--secret-file", str(file)) as (process, base_url):
        secret = {"Authorization": f"Bearer {file.read_text().strip()}"}
        assert file.stat().st_mode & 0o777 == 0o600
        assert httpx.get(f"{base_url}/models").status_code == 200
        root = base_url.removesuffix("/api/v1")
        assert httpx.put(f"{root}/simulator/faults", json=[{"kind": "hang"}], headers=secret).json()["seed"] == 3
        body = {"model": "qwen/qwen3-coder:free", "messages": [{"role": "user", "content": "Hej!"}]}
        with httpx.Client(timeout=0.2) as client, socket.socket() as hanging:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{base_url}/chat/completions", json=body, headers={"authorization": "Bearer k"})
            host, port = root.removeprefix("http://").split(":")
            hanging.connect((host, int(port)))
            hanging.sendall(
                b"POST /api/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n"
                b'Content-Length: 33\r\n\r\n{"model": "m", "messages": [{}]} '
            )
            while httpx.get(f"{root}/simulator/counts", headers=secret).json()["requests"] < 2:
                pass
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_taken_port_is_a_clear_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started("--port", str(port)) as (process, _):
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert f"cannot listen on 127.0.0.1:{port}" in err
    assert "--port" in err


@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_that_cannot_be_is_a_clear_message(port: str) -> None:
    with started("--port", port) as (process, _):
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "cannot listen on" in err


HOSTS = [
    ("127.0.0.1:{port}", 200),
    ("LOCALHOST", 200),
    ("[::1]:{port}", 200),
    ("[::1]", 200),
    ("upstream.test:80", 200),
    ("evil.example", 421),
    ("evil.example:{port}", 421),
    ("localhost.evil.example", 421),
    ("localhost:80:80", 421),
    ("localhost:evil", 421),
    ("::1", 421),
    ("[::1]evil", 421),
    ("", 421),
]


def test_only_its_own_hosts_are_answered_on_any_route() -> None:
    world = World()
    with running(world, hosts=["Upstream.Test"]) as base_url:
        root, port = base_url.removesuffix("/api/v1"), base_url.split(":")[2].partition("/")[0]
        for host, status in HOSTS:
            for path in ("/api/v1/models", "/simulator/requests"):
                headers = {"Host": host.format(port=port), "Authorization": f"Bearer {world.secret}"}
                answer = httpx.get(root + path, headers=headers)
                assert answer.status_code == status, (host, path)


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer x", "Basic {}", "Bearer {}x", "{}", "Bearer \xe5"])
def test_without_the_secret_no_control_route_says_or_does_anything(given: str | None) -> None:
    world = World()
    said = "a prompt that nobody else may read"
    with running(world) as base_url:
        root = base_url.removesuffix("/api/v1")
        body = {"model": "qwen/qwen3-coder:free", "messages": [{"role": "user", "content": said}]}
        httpx.post(f"{base_url}/chat/completions", json=body, headers={"Authorization": "Bearer sk-or-x"})
        headers = {} if given is None else {b"Authorization": given.format(world.secret).encode("latin-1")}
        for route in Control(world).routes():
            for method in route.methods or ():
                answer = httpx.request(method, f"{root}/simulator{route.path}", headers=headers)
                assert answer.status_code == 401, (method, route.path)
                assert said not in answer.text
    assert world.record.counts()["requests"] == 1


def test_a_secret_goes_through_a_link_and_replaces_no_device(tmp_path: Path) -> None:
    null, link = tmp_path / "null", tmp_path / "link"
    null.symlink_to("/dev/null")
    link.symlink_to(tmp_path / "kept")
    (tmp_path / "kept").write_text("readable by everybody")
    (tmp_path / "kept").chmod(0o644)
    for file in (null, link):
        keep_secret(file, "s3cret")
        assert file.is_symlink()
    assert Path("/dev/null").is_char_device()
    assert (tmp_path / "kept").read_text() == "s3cret\n"
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600
