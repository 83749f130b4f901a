"""`python -m rollout.simulator` as a process."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

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
def test_it_prints_its_base_url_and_a_signal_ends_it_cleanly_even_while_a_request_hangs(number: signal.Signals) -> None:
    with started("--port", "0", "--seed", "3") as (process, base_url):
        assert httpx.get(f"{base_url}/models").status_code == 200
        root = base_url.removesuffix("/api/v1")
        assert httpx.put(f"{root}/simulator/faults", json=[{"kind": "hang"}]).json()["seed"] == 3
        body = {"model": "qwen/qwen3-coder:free", "messages": [{"role": "user", "content": "Hej!"}]}
        with httpx.Client(timeout=0.2) as client, socket.socket() as hanging:
            with pytest.raises(httpx.ReadTimeout):
                client.post(f"{base_url}/chat/completions", json=body, headers={"authorization": "Bearer k"})
            host, port = root.removeprefix("http://").split(":")
            hanging.connect((host, int(port)))
            hanging.sendall(
                b"POST /api/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
                b'Content-Length: 33\r\n\r\n{"model": "m", "messages": [{}]} '
            )
            while httpx.get(f"{root}/simulator/counts").json()["requests"] < 2:
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
