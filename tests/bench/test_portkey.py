"""Portkey's gateway is a guest: where it cannot run, the benchmarks say so and go on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench import portkey
from bench.processes import ROOT

NODE = "#!/bin/sh\n"


def a_tool(folder: Path, name: str, text: str = NODE) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    (folder / name).chmod(0o755)


def an_installation(folder: Path, version: str) -> None:
    home = folder / "node_modules" / "@portkey-ai" / "gateway"
    home.mkdir(parents=True)
    (home / "package.json").write_text(json.dumps({"version": version}), encoding="utf-8")


def test_without_npm_nothing_is_installed_and_the_reason_is_said(tmp_path: Path) -> None:
    assert portkey.install(tmp_path / "into", str(tmp_path)) == "no npm"
    assert portkey.why_not(tmp_path / "into", str(tmp_path)) == "no npm"
    assert not (tmp_path / "into").exists()


def test_without_node_it_does_not_run_though_npm_is_there(tmp_path: Path) -> None:
    a_tool(tmp_path / "bin", "npm")
    assert portkey.why_not(tmp_path / "into", str(tmp_path / "bin")) == "no node"


def test_the_program_ends_well_where_npm_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.portkey"]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "Portkey's gateway will be left out: no npm\n")


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    a_tool(tmp_path / "bin", "node")
    a_tool(tmp_path / "bin", "npm", "#!/bin/sh\nexit 1\n")
    an_installation(tmp_path / "into", portkey.RELEASE)
    assert portkey.install(tmp_path / "into", str(tmp_path / "bin")) is None
    assert portkey.why_not(tmp_path / "into", str(tmp_path / "bin")) is None


def test_another_release_is_not_taken_for_the_pinned_one(tmp_path: Path) -> None:
    a_tool(tmp_path / "bin", "node")
    a_tool(tmp_path / "bin", "npm", "#!/bin/sh\nexit 1\n")
    an_installation(tmp_path / "into", "1.0.0")
    assert portkey.install(tmp_path / "into", str(tmp_path / "bin")) == "npm could not install it"
    assert portkey.why_not(tmp_path / "into", str(tmp_path / "bin")) == "not installed; run `make bench`"


def test_npm_is_asked_for_the_pinned_release_without_its_scripts(tmp_path: Path) -> None:
    a_tool(tmp_path / "bin", "node")
    a_tool(tmp_path / "bin", "npm", f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    assert portkey.install(tmp_path / "into", f"{tmp_path / 'bin'}{os.pathsep}{os.defpath}") is None
    asked = (tmp_path / "asked").read_text(encoding="utf-8").split()
    assert f"@portkey-ai/gateway@{portkey.RELEASE}" in asked
    assert "--ignore-scripts" in asked


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n{"content":"the end"}', True),
        (b'HTTP/1.1 200 OK\r\n\r\n{"content":"something else"}', False),
        (b'HTTP/1.1 500 Internal Server Error\r\n\r\n{"content":"the end"}', False),
        (b"", False),
    ],
)
def test_only_the_stubs_own_answer_counts_as_one(answer: bytes, *, whole: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert portkey.answers(listening.getsockname()[1], b"GET / HTTP/1.1\r\n\r\n", b'end"') is whole
        thread.join()
