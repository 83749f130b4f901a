"""The command where containers and supervisors run it: odd streams, odd volumes, and as process 1."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx

from rollout.gateway.place import ensure_master_key
from rollout.store.engine import URL, open_engine
from rollout.store.migrate import upgrade
from tests.cli.conftest import Terminal

COMMAND = [sys.executable, "-m", "rollout"]


def read_only(folder: Path, script: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script in a namespace of its own where a folder is mounted so that nothing of it can be changed."""
    mounted = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && {script}"
    command = ["unshare", "-rm", "sh", "-c", mounted]
    return subprocess.run(
        command, env={"PATH": os.environ["PATH"], **environ}, capture_output=True, text=True, check=False
    )


def serving(terminal: Terminal) -> dict[str, str]:
    away = {"OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1", "LITELLM_BASE_URL": "http://127.0.0.1:9"}
    return {"PATH": os.environ["PATH"], **terminal.environ, **away}


def until_it_answers(environ: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    url, until = f"http://127.0.0.1:{environ['ROLLOUT_PORT']}/livez", time.monotonic() + 60
    while True:
        try:
            assert httpx.get(url, trust_env=False).status_code == 200
        except httpx.HTTPError:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        else:
            return


def test_a_reader_of_the_first_lines_that_leaves_does_not_end_the_server(bare: Terminal) -> None:
    environ = serving(bare)
    reading, writing = os.pipe()
    os.close(reading)
    with closing(os.fdopen(writing, "wb")) as out:
        process = subprocess.Popen([*COMMAND, "serve"], env=environ, stdout=out, stderr=subprocess.PIPE)
    until_it_answers(environ, process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b"Traceback" not in err
    assert b"standard output cannot be written to" in err


def test_a_reader_of_a_command_that_leaves_ends_it_without_a_word(alone: Terminal) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with closing(os.fdopen(writing, "wb")) as out:
        environ = {"PATH": os.environ["PATH"], **alone.environ}
        done = subprocess.run([*COMMAND, "audit", "list"], env=environ, stdout=out, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) in [(0, b""), (1, b"")]


def test_without_standard_error_nothing_is_written_into_another_file(bare: Terminal) -> None:
    environ = serving(bare)
    process = subprocess.Popen(["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *COMMAND, "serve"], env=environ)
    until_it_answers(environ, process)
    streams = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in (0, 1, 2)]
    process.terminate()
    assert process.wait(60) == 0
    assert streams == ["/dev/null"] * 3


def test_sigterm_during_the_start_ends_process_one(bare: Terminal) -> None:
    inside = "import os, sys; os.kill(1, 15)"  # a child tells process 1, which is us, as soon as we began
    program = (
        "import subprocess, sys, rollout.cli as cli\n"
        "begin = cli._end_on_sigterm\n"
        "sys.argv = ['rollout', 'serve']\n"
        f"import threading; threading.Timer(0.3, lambda: subprocess.run([sys.executable, '-c', {inside!r}])).start()\n"
        "sys.exit(cli.main())\n"
    )
    command = ["unshare", "-rpf", "--kill-child", sys.executable, "-c", program]
    done = subprocess.run(command, env=serving(bare), capture_output=True, timeout=60, check=False)
    assert done.returncode in {0, 128 + signal.SIGTERM}, done.stderr
    assert b"Traceback" not in done.stderr


def test_ten_first_connections_to_a_fresh_file_at_once_all_work(tmp_path: Path) -> None:
    def first(_: int) -> str:
        engine = open_engine(URL.create("sqlite", database=str(tmp_path / "fresh.db")))
        try:
            return upgrade(engine).newest
        finally:
            engine.dispose()

    with ThreadPoolExecutor(10) as pool:
        assert len(set(pool.map(first, range(10)))) == 1


def test_a_folder_that_cannot_be_used_is_said_in_one_sentence(bare: Terminal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    environ = {**serving(bare), "ROLLOUT_DATA_DIR": str(tmp_path / "file" / "data")}
    done = subprocess.run([*COMMAND, "serve"], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("rollout: the data folder ")
    assert done.stderr.count("\n") == 1


def test_a_server_with_a_database_elsewhere_does_without_a_data_folder(bare: Terminal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    environ = {
        **serving(bare),
        "ROLLOUT_DATA_DIR": str(tmp_path / "file" / "data"),
        "ROLLOUT_DATABASE_URL": f"sqlite:///{tmp_path}/elsewhere.db",
    }
    process = subprocess.Popen([*COMMAND, "serve"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until_it_answers(environ, process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert b"Traceback" not in err


def test_a_key_that_cannot_be_given_a_mode_is_used_all_the_same(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    known = ensure_master_key(secrets / "litellm.key")
    read = (
        "import sys, pathlib; from rollout.gateway.place import ensure_master_key; "
        "print(ensure_master_key(pathlib.Path(sys.argv[1])))"
    )
    assert (
        read_only(secrets, f"{sys.executable} -c {shlex.quote(read)} {secrets}/litellm.key", {}).stdout == f"{known}\n"
    )


def test_a_backup_on_read_only_media_can_be_read_and_not_changed(alone: Terminal, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    alone("db", "backup", str(media / "backup.db"))
    script = (
        f"{sys.executable} -m rollout db status && {sys.executable} -m rollout audit verify --json && "
        f"! {sys.executable} -m rollout flags disable enableLiteLLM"
    )
    done = read_only(media, script, {**alone.environ, "ROLLOUT_DATABASE_URL": f"sqlite:///{media}/backup.db"})
    assert done.returncode == 0, done.stderr
    assert "is up to date" in done.stdout
    assert json.loads(done.stdout[done.stdout.index("{") :])["ok"] is True
    assert "readonly" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(each.name for each in media.iterdir()) == ["backup.db"]


def test_a_server_listens_on_every_address_of_both_kinds(bare: Terminal) -> None:
    environ = {**serving(bare), "ROLLOUT_HOST": "[::]"}
    process = subprocess.Popen([*COMMAND, "serve", "--json"], env=environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    port = environ["ROLLOUT_PORT"]
    assert said["completions"] == f"http://[::1]:{port}/v1"
    for host in ("127.0.0.1", "[::1]", "[0:0:0:0:0:0:0:1]"):
        assert httpx.get(f"http://{host}:{port}/health", trust_env=False).status_code == 200
    with socket.create_connection(("::1", int(port)), 10):
        process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
