"""The command as a real process: streams, exit codes, signals, closed pipes, races; and the world around it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from rollout.cli.server import address_left
from rollout.cli.words import ago
from rollout.domain.roles import Role
from rollout.simulator import World, running
from tests.cli.conftest import Server, Terminal

FLAG = "enableLiteLLM"
PROCESSES = pytest.mark.processes


def a_free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def finished(process: subprocess.Popen[str], code: int) -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, f"{process.returncode}\n{out}\n{err}"
    assert "Traceback" not in err
    return out or "", err


@PROCESSES
def test_standard_output_is_for_the_machine_and_standard_error_for_people(alone: Terminal) -> None:
    out, err = finished(alone.process("flags", "show", "--json"), 0)
    assert json.loads(out)["key"] == FLAG
    assert err == ""
    out, err = finished(alone.process("flags", "show", "nope", "--json"), 1)
    assert out == ""
    assert err.startswith("rollout: there is no flag 'nope'")
    _, err = finished(alone.process("flags", "set", FLAG, "NaN"), 2)
    assert "percentage must be a number" in err


@PROCESSES
def test_help_and_small_commands_load_no_server(alone: Terminal) -> None:
    probe = (
        "import sys, rollout.cli\n"
        "sys.argv = ['rollout', *sys.argv[1:]]\n"
        "code = rollout.cli.main()\n"
        "loaded = {'fastapi', 'uvicorn', 'starlette', 'sqlalchemy', 'aiohttp'} & set(sys.modules)\n"
        "print(code, sorted(loaded), file=sys.stderr)"
    )
    for arguments, loaded in ((["--help"], []), (["flags", "--help"], []), (["flags", "show"], ["sqlalchemy"])):
        done = subprocess.run(
            [sys.executable, "-c", probe, *arguments],
            env=dict(alone.environ),
            capture_output=True,
            text=True,
            check=True,
            cwd=Path.cwd(),
        )
        assert done.stderr.strip() == f"0 {loaded}"


@PROCESSES
def test_without_its_parts_the_command_says_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError('no click here', name='click')")
    done = subprocess.run(
        [sys.executable, "-m", "rollout", "flags", "list"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'llm-rollout[server]'" in done.stderr


@PROCESSES
def test_a_reader_that_leaves_early_is_no_fault(alone: Terminal) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = alone.process("audit", "export", stdout=writing)
    os.close(writing)
    _, err = finished(process, 1)
    assert err == ""


@PROCESSES
def test_what_a_terminal_cannot_show_is_escaped(alone: Terminal) -> None:
    alone("flags", "override", FLAG, "żaba", "on")
    out, _ = finished(alone.with_(PYTHONIOENCODING="latin-1").process("flags", "show"), 0)
    assert "\\u017caba" in out


@PROCESSES
def test_ctrl_c_ends_a_simulated_upstream_with_130_and_no_traceback(bare: Terminal) -> None:
    process = bare.process("simulate", "upstream", "--port", "0")
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert httpx.get(f"{url}/models", trust_env=False).status_code == 200
    process.send_signal(signal.SIGINT)
    finished(process, 130)


@PROCESSES
def test_a_simulated_upstream_that_is_asked_to_end_ends_well(bare: Terminal) -> None:
    process = bare.process("simulate", "upstream", "--port", "0", "--json")
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    while lines[-1].strip() != "}":
        lines.append(process.stdout.readline())
    said = json.loads("".join(lines))
    file = Path(said["secret_file"])
    secret = file.read_text(encoding="ascii").strip()
    assert file.stat().st_mode & 0o777 == 0o600
    asked, known = f"{said['control_url']}/requests", {"Authorization": f"Bearer {secret}"}
    assert httpx.get(asked, trust_env=False).status_code == 401
    assert httpx.get(asked, headers=known, trust_env=False).json()["requests"] == []
    process.terminate()
    out, err = finished(process, 0)
    assert secret not in "".join(lines) + out + err
    assert str(file) in err
    assert not file.exists()


@PROCESSES
def test_a_gateway_alone_stops_cleanly_while_it_installs(alone: Terminal) -> None:
    port = a_free_port()
    # an index that is not there: the installation goes on trying until it is told to stop
    terminal = alone.with_(
        OPENROUTER_API_KEY="sk-or-nobody-may-read-this", LITELLM_PORT=port, PIP_INDEX_URL="http://127.0.0.1:9/simple"
    )
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 0)):
        process = terminal.process("gateway", "run")
        assert process.stderr is not None
        assert "installing" in process.stderr.readline()
        process.send_signal(number)
        out, err = finished(process, code)
        assert "sk-or-nobody" not in out + err


@PROCESSES
def test_two_commands_at_once_both_stand_in_the_ledger(alone: Terminal) -> None:
    racing = [alone.process("flags", "override", FLAG, f"user-{number}", "on") for number in range(3)]
    for process in racing:
        finished(process, 0)
    assert len(alone.json("flags", "show")["overrides"]) == 3
    assert alone.json("audit", "verify")["ok"] is True


@PROCESSES
def test_of_two_changes_from_the_same_look_one_is_refused(beside: Terminal) -> None:
    seen = str(beside.json("flags", "show")["revision"])
    racing = [beside.process("flags", "set", FLAG, percent, "--revision", seen) for percent in ("10", "20")]
    for process in racing:
        process.communicate(timeout=60)
    assert sorted(process.returncode for process in racing) == [0, 1]


def test_without_a_database_nothing_is_made_and_the_way_on_is_said(bare: Terminal) -> None:
    for arguments in (("flags", "list"), ("db", "status"), ("db", "backup"), ("audit", "verify"), ("sign-in",)):
        assert "rollout db upgrade" in bare.fails(*arguments)["message"]
    assert not Path(bare.environ["ROLLOUT_DATA_DIR"]).exists()


def test_upgrading_makes_a_database_once(bare: Terminal) -> None:
    assert bare.json("db", "upgrade")["established"] is True
    again = bare.json("db", "upgrade")
    assert (again["established"], again["from"]) == (False, again["to"])
    status = bare.json("db", "status")
    assert status["up_to_date"] is True
    assert len(status["installation"]) == 16


def test_a_database_of_a_newer_program_is_left_alone(alone: Terminal) -> None:
    file = Path(alone.environ["ROLLOUT_DATA_DIR"]) / "rollout.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    for arguments in (("flags", "list"), ("db", "upgrade"), ("db", "status")):
        error = alone.fails(*arguments)
        assert error["type"] == "StoreNewer"
        assert "newer version" in error["message"]
    findings = alone.json("doctor", code=1)["findings"]
    assert any(each["check"] == "database" and each["level"] == "fail" for each in findings)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("mysql://u:secret@h/db", "mysql"),
        ("nonsense", "no database URL"),
        ("sqlite://", "in memory"),
        ("postgresql://u:secret@127.0.0.1:1/db", "cannot be used"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_without_its_password(bare: Terminal, url: str, word: str) -> None:
    result = bare.with_(ROLLOUT_DATABASE_URL=url)("flags", "list", code=1)
    assert word in result.stderr
    assert "secret" not in result.stderr


def test_a_file_that_is_no_database_is_said(bare: Terminal) -> None:
    folder = Path(bare.environ["ROLLOUT_DATA_DIR"])
    folder.mkdir()
    (folder / "rollout.db").write_text("no database at all, but long enough to look at" * 50)
    assert "not a database" in bare.fails("flags", "list")["message"]


def test_a_backup_is_a_database_and_never_overwrites(alone: Terminal, tmp_path: Path) -> None:
    file = str(tmp_path / "copy.db")
    assert alone.json("db", "backup", file) == {"file": file}
    assert "never overwrites" in alone.fails("db", "backup", file)["message"]
    copy = alone.with_(ROLLOUT_DATABASE_URL=f"sqlite:///{file}")
    assert copy.json("audit", "head") == alone.json("audit", "head")
    assert Path(alone.json("db", "backup")["file"]).exists()


def test_a_share_does_not_rise_when_nobody_knows_how_the_gateway_is(alone: Terminal) -> None:
    error = alone.fails("flags", "set", FLAG, "10")
    assert "no server of this installation answers" in error["message"]
    assert alone.json("flags", "set", FLAG, "10", "--skip-preflight")["percentage"] == 10
    assert alone.json("flags", "set", FLAG, "5")["percentage"] == 5


def test_another_installations_server_is_not_asked(beside: Terminal, tmp_path: Path) -> None:
    other = beside.with_(ROLLOUT_DATA_DIR=str(tmp_path / "other"))
    other("db", "upgrade")
    assert "another installation" in other.fails("flags", "set", FLAG, "10")["message"]


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"ROLLOUT_URL": "http://127.0.0.1:1", "ROLLOUT_TOKEN": "rollout_secret"}, "does not answer"),
        ({"ROLLOUT_URL": "http://u:secret@127.0.0.1:1", "ROLLOUT_TOKEN": "rollout_x"}, "ROLLOUT_URL cannot be read"),
        ({"ROLLOUT_URL": "http://127.0.0.1:1"}, "ROLLOUT_TOKEN is not"),
        ({"ROLLOUT_URL": "http://127.0.0.1:1", "ROLLOUT_TOKEN": "åäö"}, "ROLLOUT_TOKEN holds"),
        ({"ROLLOUT_URL": "127.0.0.1:8080"}, "ROLLOUT_URL cannot be read"),
    ],
)
def test_an_api_that_cannot_be_reached_never_means_the_database(
    alone: Terminal, variables: dict[str, str], word: str
) -> None:
    result = alone.with_(**variables)("flags", "kill", code=1)
    assert word in result.stderr
    assert "secret" not in result.stderr
    assert alone.json("flags", "show")["killed"] is False


def test_what_answers_and_is_not_our_server_is_named(bare: Terminal) -> None:
    with running(World()) as url:
        elsewhere = bare.with_(ROLLOUT_URL=url.removesuffix("/api/v1"), ROLLOUT_TOKEN="rollout_x")
        assert "404" in elsewhere.fails("flags", "list")["message"]


def test_a_role_that_does_not_reach_is_refused(bare: Terminal, server: Server) -> None:
    viewer = bare.with_(ROLLOUT_URL=server.url, ROLLOUT_TOKEN=server.token(Role.VIEWER))
    viewer("flags", "list")
    assert viewer.fails("flags", "kill")["type"] == "NotAllowed"
    assert viewer.fails("tokens", "list")["type"] == "NotAllowed"


def test_the_environment_of_this_terminal_decides_beside_the_database(alone: Terminal) -> None:
    forced = alone.with_(LITELLM_FORCE_USERS="user-1")
    assert forced.json("evaluate", FLAG, "--user", "user-1")["cause"] == "override"
    killed = alone.with_(FORCE_DIRECT_OPENROUTER="maybe")
    assert killed.json("evaluate", FLAG, "--user", "user-1")["cause"] == "kill_switch"


def test_a_gateway_that_nobody_runs_is_looked_for_on_disk(alone: Terminal) -> None:
    status = alone.json("gateway", "status")
    assert (status["source"], status["installed"], status["stamp"]) == ("disk", False, False)
    assert "not installed yet" in alone("gateway", "status").stdout


def test_a_gateway_alone_needs_a_key_and_a_free_port(alone: Terminal) -> None:
    assert "OPENROUTER_API_KEY" in alone.fails("gateway", "run")["message"]
    assert "somebody else's" in alone.with_(LITELLM_BASE_URL="http://h").fails("gateway", "run")["message"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = alone.with_(OPENROUTER_API_KEY="sk-or-x", LITELLM_PORT=str(taken.getsockname()[1]))
        assert "LITELLM_PORT" in busy.fails("gateway", "run")["message"]
        upstream = ("simulate", "upstream", "--port", str(taken.getsockname()[1]))
        assert "choose another" in busy.fails(*upstream)["message"]


def levels(terminal: Terminal, code: int) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in terminal.json("doctor", code=code)["findings"]:
        found.setdefault(finding["check"], set()).add(finding["level"])
    return found


def test_the_doctor_finds_a_fresh_machine_sound(bare: Terminal) -> None:
    port = a_free_port()
    found = levels(bare.with_(LITELLM_PORT=port), 0)
    assert found["database"] == {"warn"}
    assert found["litellm"] == {"warn"}
    assert found["python"] == found["clock"] == found["settings"] == found["port"] == {"ok"}


def test_the_doctor_asks_the_upstream_for_models_and_the_key_alone(alone: Terminal, tmp_path: Path) -> None:
    world = World()
    with running(world) as url:
        ill = alone.with_(OPENROUTER_BASE_URL=url, OPENROUTER_API_KEY="sk-or-x", LITELLM_PORT=a_free_port())
        found = levels(ill, 0)
        assert found["upstream"] == {"ok"}
        assert found["cascade"] == {"warn"}, "one of its models is no longer listed"
        assert dict(world.record.lookups) == {"models": 1, "key": 1}
        assert levels(alone.with_(OPENROUTER_BASE_URL=url), 1)["upstream"] == {"fail"}, "no key"
    assert levels(ill, 1)["upstream"] == {"fail"}, "not there any more"


def test_the_doctor_names_what_is_set_here_and_what_is_taken(alone: Terminal, tmp_path: Path) -> None:
    (tmp_path / "kill").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ill = alone.with_(
            ROLLOUT_KILL_FILE=str(tmp_path / "kill"),
            LITELLM_ROLLOUT_PERCENTAGE="many",
            LITELLM_FORCE_USERS="a,b",
            FORCE_DIRECT_OPENROUTER="yes",
            ROLLOUT_TOTAL_TIMEOUT="soon",
            ROLLOUT_PORT=port,
            LITELLM_PORT=port,
        )
        found = levels(ill, 1)
    assert found["kill file"] == {"warn"}
    assert found["overrides"] == {"warn", "fail"}
    assert found["settings"] == found["port"] == found["gateway port"] == {"fail"}


def test_the_doctor_names_the_release_of_a_gateway_that_is_not_ours(alone: Terminal) -> None:
    class Foreign(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == "Bearer sk-theirs"
            self.send_response(200 if known or not self.path.endswith("details") else 401)
            self.end_headers()
            self.wfile.write(b'{"litellm_version": "1.84.0"}')

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            there = alone.with_(LITELLM_BASE_URL=f"http://127.0.0.1:{server.server_address[1]}")
            known = said_by_the_doctor(there.with_(LITELLM_MASTER_KEY="sk-theirs"), "litellm")
            unknown = said_by_the_doctor(there.with_(LITELLM_MASTER_KEY="sk-another"), "litellm")
        finally:
            server.shutdown()
            thread.join()
    assert "LiteLLM 1.84.0, whose streams do not say what they cost" in known
    assert "does not say which LiteLLM it is; check LITELLM_MASTER_KEY" in unknown


def said_by_the_doctor(terminal: Terminal, check: str) -> str:
    (found,) = [each["message"] for each in terminal.json("doctor")["findings"] if each["check"] == check]
    return str(found)


def without_a_port(terminal: Terminal) -> Terminal:
    return Terminal({name: value for name, value in terminal.environ.items() if name != "ROLLOUT_PORT"})


def test_a_command_without_a_port_finds_the_server_of_its_folder(beside: Terminal, server: Server) -> None:
    folder, other = Path(beside.environ["ROLLOUT_DATA_DIR"]), without_a_port(beside)
    with address_left(folder, server.url):
        assert (folder / "server.json").stat().st_mode & 0o777 == 0o600
        assert other.json("sign-in")["link"].startswith(f"{server.url}/sign-in#code=")
        assert other.json("gateway", "status")["source"] == "server"
        assert f"a server answers at {server.url}" in other.with_(LITELLM_PORT=a_free_port())("doctor").stdout
        other("flags", "set", FLAG, "10", "--reason", "its preflight is asked there")
        elsewhere = other.with_(ROLLOUT_PORT=a_free_port())
        assert server.url not in elsewhere.json("sign-in")["link"], "what is set is what is meant"
    assert not (folder / "server.json").exists()
    assert "http://127.0.0.1:8080/" in other.json("sign-in")["link"]


def test_an_address_that_nobody_listens_at_is_no_address(alone: Terminal) -> None:
    folder, other = Path(alone.environ["ROLLOUT_DATA_DIR"]), without_a_port(alone)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    for left in (
        {"address": f"http://127.0.0.1:{a_free_port()}", "pid": os.getpid()},
        {"address": "http://127.0.0.1:1", "pid": gone.pid},
        {"address": 8080, "pid": True},
        ["no address"],
    ):
        (folder / "server.json").write_text(json.dumps(left))
        assert "http://127.0.0.1:8080/" in other.json("sign-in")["link"]


def test_a_server_that_ends_leaves_the_address_of_the_one_that_came_after(tmp_path: Path) -> None:
    later = {"address": "http://127.0.0.1:2", "pid": 1}
    with address_left(tmp_path, "http://127.0.0.1:1"):
        (tmp_path / "server.json").write_text(json.dumps(later))
    assert json.loads((tmp_path / "server.json").read_text()) == later
    with address_left(tmp_path / "not there", "http://127.0.0.1:1"):
        pass


@PROCESSES
def test_a_server_leaves_its_address_while_it_runs(bare: Terminal) -> None:
    file = Path(bare.environ["ROLLOUT_DATA_DIR"]) / "server.json"
    process = bare.with_(LITELLM_BASE_URL="http://127.0.0.1:9").process("serve", "--json")
    assert process.stdout is not None
    started = json.loads(process.stdout.readline())
    left = json.loads(file.read_text())
    assert left["pid"] == process.pid
    assert started["sign_in"].startswith(f"{left['address']}/sign-in#")
    process.terminate()
    finished(process, 0)
    assert not file.exists()


@PROCESSES
def test_two_programs_are_never_told_to_listen_on_one_port(bare: Terminal) -> None:
    _, err = finished(bare.with_(LITELLM_PORT=bare.environ["ROLLOUT_PORT"]).process("up"), 1)
    assert "ROLLOUT_PORT and LITELLM_PORT are both" in err


def test_the_doctor_looks_through_the_api_where_there_is_one(remote: Terminal) -> None:
    found = levels(remote.with_(LITELLM_PORT=a_free_port()), 0)
    assert found["control plane"] == {"ok"}
    assert "database" not in found
    assert levels(remote.with_(ROLLOUT_TOKEN="rollout_wrong", LITELLM_PORT=a_free_port()), 1)["control plane"] == {
        "fail"
    }


def test_colour_is_for_terminals_alone(alone: Terminal) -> None:
    from click.testing import CliRunner

    from rollout.cli.root import rollout

    alone("flags", "kill")
    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        environ = {**alone.environ, **variables}
        shown = CliRunner().invoke(rollout, ["flags", "show"], obj=environ, color=True).stdout
        assert ("\x1b[" in shown) is coloured


def test_moments_are_said_as_people_count() -> None:
    now = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
    assert ago(now, now) == "just now"
    assert ago(now - timedelta(minutes=3, seconds=5), now) == "3 minutes ago"
    assert ago(now - timedelta(days=1, hours=3), now) == "1 day ago"
    assert ago(now + timedelta(hours=2), now) == "in 2 hours"
