"""The commands, each through both backends against one real installation."""

import json
import os
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from rollout.domain.roles import Role
from tests.cli.conftest import CASCADE, Server, Terminal, without

FLAG = "enableLiteLLM"


def test_a_percentage_is_set_exactly_and_said_as_a_sentence(terminal: Terminal) -> None:
    assert terminal.json("flags", "set", FLAG, "12.345")["percentage"] == 12.345
    assert "12.345 % of users go through LiteLLM" in terminal("flags", "show", FLAG).stdout


@pytest.mark.parametrize("text", ["NaN", "101", "inf", "ten", "0.0001", "", "1e400", "٣"])
def test_what_is_no_percentage_is_wrong_usage_and_changes_nothing(terminal: Terminal, text: str) -> None:
    before = terminal.json("audit", "head")
    assert "percentage" in terminal.fails("flags", "set", FLAG, text, code=2)["message"]
    assert terminal.json("audit", "head") == before


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("flags", "show", "nope"), "NotFound"),
        (("flags", "show", ".."), "InvalidValue"),
        (("flags", "set", "nope", "5"), "NotFound"),
        (("flags", "kill", "nope"), "NotFound"),
        (("flags", "override", "nope", "user-1", "on"), "NotFound"),
        (("flags", "override", FLAG, "nobody", "--remove"), "NotFound"),
        (("flags", "override", FLAG, "a\nb", "on"), "InvalidValue"),
        (("flags", "override", FLAG, "x" * 300, "on"), "InvalidValue"),
        (("flags", "override", FLAG, "u", "on", "--until", "2001-01-01T00:00:00Z"), "InvalidValue"),
        (("flags", "kill", FLAG, "--reason", "x" * 501), "InvalidValue"),
        (("cascade", "set", "not a model"), "InvalidValue"),
        (("cascade", "set", "a/b:free", "a/b:free"), "InvalidValue"),
        (("cascade", "set", "a/b:free", "--revision", "1"), "StaleChange"),
        (("flags", "set", FLAG, "5", "--revision", "1"), "StaleChange"),
        (("tokens", "revoke", "nope"), "NotFound"),
        (("tokens", "create", "", "--role", "viewer"), "InvalidValue"),
        (("sign-in", "--name", "x" * 81), "InvalidValue"),
        (("evaluate", "nope", "--user", "u"), "NotFound"),
        (("evaluate", FLAG, "--user", "x" * 1025), "InvalidValue"),
        (("evaluate", FLAG, "--user", "a\tb"), "InvalidValue"),
        (("audit", "show", "999"), "NotFound"),
    ],
)
def test_a_refusal_is_one_line_an_exit_code_and_an_error_document(
    terminal: Terminal, arguments: tuple[str, ...], kind: str
) -> None:
    before = terminal.json("audit", "head")
    error = terminal.fails(*arguments)
    assert error["type"] == kind
    said = terminal(*arguments, code=1)
    assert said.stdout == ""
    assert said.stderr.startswith("rollout: ")
    assert said.stderr.count("\n") == 1
    assert terminal.json("audit", "head") == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("flags", "set", FLAG),
        ("flags", "set", FLAG, "5", "--revision", "0"),
        ("flags", "set", FLAG, "5", "--revision", "4294967296"),
        ("flags", "override", FLAG, "u"),
        ("flags", "override", FLAG, "u", "on", "--remove"),
        ("flags", "override", FLAG, "u", "--remove", "--until", "2030-01-01T00:00:00Z"),
        ("flags", "override", FLAG, "u", "on", "--until", "tomorrow"),
        ("flags", "override", FLAG, "u", "on", "--until", "2030-01-01"),
        ("flags", "override", FLAG, "u", "maybe"),
        ("tokens", "create", "ci", "--role", "king"),
        ("tokens", "create", "ci"),
        ("evaluate", FLAG, "--attr", "novalue"),
        ("evaluate", FLAG, "--attr", "targetingKey=u"),
        ("evaluate", FLAG, "--at", "2026-01-01T00:00:00Z"),
        ("audit", "list", "--limit", "0"),
        ("audit", "list", "--since", "0001-01-01T00:00:00+14:00"),
        ("cascade", "set"),
        ("nonsense",),
    ],
)
def test_wrong_usage_ends_with_two(bare: Terminal, arguments: tuple[str, ...]) -> None:
    assert bare.fails(*arguments, code=2)["type"] == "Usage"


def test_a_kill_beats_an_override_and_restoring_brings_it_back(terminal: Terminal) -> None:
    terminal("flags", "override", FLAG, "user-42", "on", "--reason", "tester")
    assert terminal.json("evaluate", FLAG, "--user", "user-42")["cause"] == "override"
    assert "STOPPED" in terminal("flags", "kill", "--reason", "errors").stdout
    assert "the kill switch is on" in terminal("evaluate", FLAG, "--user", "user-42").stdout
    assert terminal.json("flags", "kill")["killed"] is True, "a kill can be repeated"
    assert terminal.json("flags", "restore")["killed"] is False
    assert "user-42 goes through LiteLLM" in terminal("evaluate", FLAG, "--user", "user-42").stdout
    assert terminal.json("flags", "override", FLAG, "user-42", "--remove")["overrides"] == {}


@pytest.mark.parametrize("user", ["..", "a/b", "a?b#c", "åäö 𝄞", "%2F", "a+b@example.com", "-x"])
def test_any_printable_user_id_can_be_forced_and_freed(terminal: Terminal, user: str) -> None:
    until = ("--until", "2100-01-01T00:00:00+02:00")
    flag = json.loads(terminal("flags", "override", "--json", *until, "--", FLAG, user, "off").stdout)
    assert flag["overrides"][user]["expires_at"] == "2099-12-31T22:00:00.000000Z"
    terminal("flags", "override", "--remove", "--", FLAG, user)
    assert terminal.json("flags", "show")["overrides"] == {}


def test_a_disabled_flag_says_so_and_is_enabled_again(terminal: Terminal) -> None:
    terminal("flags", "set", FLAG, "100", "--reason", "everybody")
    assert "disabled" in terminal("flags", "disable").stdout
    assert "the flag is disabled" in terminal("evaluate", FLAG, "--user", "u").stdout
    assert "everybody goes through LiteLLM" in terminal("flags", "enable").stdout


def test_a_rising_share_is_refused_while_the_gateway_is_unwell(terminal: Terminal, server: Server) -> None:
    terminal("flags", "set", FLAG, "50")
    server.unwell()
    error = terminal.fails("flags", "set", FLAG, "60")
    assert error["type"] == "PreflightFailed"
    assert error["problems"] == ["the gateway is not healthy (LiteLLM is being installed)"]
    assert "--skip-preflight" in error["message"]
    assert terminal.json("flags", "set", FLAG, "40")["percentage"] == 40, "lowering asks nobody"
    terminal("flags", "disable")
    assert terminal.fails("flags", "enable")["type"] == "PreflightFailed"
    assert terminal.json("flags", "enable", "--skip-preflight")["enabled"] is True


def test_a_change_from_a_stale_look_is_refused_with_what_is_there_now(terminal: Terminal) -> None:
    seen = str(terminal.json("flags", "show")["revision"])
    assert terminal.json("flags", "set", FLAG, "10", "--revision", seen)["percentage"] == 10
    error = terminal.fails("flags", "set", FLAG, "20", "--revision", seen)
    assert error["current"]["percentage"] == 10
    assert error["seen"] == int(seen)
    assert error["now"] == error["current"]["revision"]


def test_the_ledger_reads_as_sentences_with_filters_and_pages(terminal: Terminal) -> None:
    terminal("flags", "set", FLAG, "10", "--reason", "early adopters")
    terminal("flags", "override", FLAG, "user-42", "on")
    listing = terminal("audit", "list", "--limit", "2")
    assert "forced user-42 on for enableLiteLLM" in listing.stdout
    assert "set enableLiteLLM from 0 % to 10 %  “early adopters”" in listing.stdout
    assert "Z (" in listing.stdout
    assert "--before" in listing.stderr
    page = terminal.json("audit", "list", "--user", "user-42")
    assert [entry["action"] for entry in page["entries"]] == ["override:set"]
    older = terminal.json("audit", "list", "--before", str(page["entries"][0]["revision"]), "--action", "flag:perc")
    assert [entry["reason"] for entry in older["entries"]] == ["early adopters"]
    assert terminal.json("audit", "list", "--until", "2001-01-01T00:00:00Z") == {"entries": [], "next": None}
    revision = str(older["entries"][0]["revision"])
    shown = terminal("audit", "show", revision).stdout
    assert "percentage  0 %     10 %" in shown
    assert "early adopters" in shown


def test_the_export_holds_every_entry_in_order_and_ends_with_the_head(terminal: Terminal) -> None:
    for percent in ("1", "2", "3"):
        terminal("flags", "set", FLAG, percent)
    *entries, last = map(json.loads, terminal("audit", "export").stdout.splitlines())
    assert [entry["revision"] for entry in entries] == list(range(1, len(entries) + 1))
    assert last == {"head": {"revision": len(entries), "digest": entries[-1]["digest"]}}
    assert terminal.json("audit", "head") == last["head"]
    assert terminal.json("audit", "verify") == {
        "ok": True,
        "entries": len(entries),
        "head": entries[-1]["digest"],
        "first_break": None,
    }


def test_a_broken_ledger_is_named_by_its_first_revision(terminal: Terminal, server: Server) -> None:
    terminal("flags", "set", FLAG, "10")
    with server.door.engine.connect() as connection, connection.begin():
        for (trigger,) in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").all():
            connection.exec_driver_sql(f"DROP TRIGGER {trigger}")
        connection.exec_driver_sql("UPDATE ledger SET text = replace(text, 'flag', 'flog') WHERE revision = 2")
    assert "BROKEN at revision 2" in terminal("audit", "verify", code=1).stdout
    assert terminal.json("audit", "verify", code=1)["first_break"]["revision"] == 2


def test_an_access_token_is_shown_once_and_stops_working_when_revoked(terminal: Terminal, server: Server) -> None:
    made = terminal.json("tokens", "create", "ci", "--role", "viewer")
    assert set(made) == {"id", "name", "role", "access_token"}
    client = Terminal({"ROLLOUT_URL": server.url, "ROLLOUT_TOKEN": made["access_token"]})
    server.notice()
    client("flags", "list")
    assert client.fails("flags", "kill")["type"] == "NotAllowed"
    listing = terminal("tokens", "list")
    assert made["id"] in listing.stdout
    assert made["access_token"] not in listing.stdout + listing.stderr
    terminal("tokens", "revoke", "ci")
    server.notice()
    assert client.fails("flags", "list")["type"] == "NotSignedIn"
    assert "revoked 20" in terminal("tokens", "list").stdout


def test_a_sign_in_link_leads_to_the_server_and_works_once(terminal: Terminal, server: Server) -> None:
    from rollout.control.access import redeem
    from rollout.domain.errors import NotSignedIn

    result = terminal("sign-in", "--name", "anna", "--role", "operator")
    address, _, code = result.stdout.strip().partition("/sign-in#code=")
    assert address == server.url
    session = redeem(server.door, code).session
    assert (session.name, session.role) == ("anna", Role.OPERATOR)
    with pytest.raises(NotSignedIn):
        redeem(server.door, code)


def test_the_cascade_is_replaced_in_order(terminal: Terminal) -> None:
    assert terminal.json("cascade", "show")["models"] == list(CASCADE)
    assert terminal.json("cascade", "set", "a/b:free", "c/d:free")["models"] == ["a/b:free", "c/d:free"]
    assert "  1  a/b:free" in terminal("cascade", "show").stdout


def test_the_gateways_configuration_follows_the_cascade(terminal: Terminal) -> None:
    made = terminal.json("gateway", "config")
    assert [entry["litellm_params"]["model"] for entry in made["model_list"]][:2] == [
        f"openrouter/{m}" for m in CASCADE
    ]
    assert "os.environ/LITELLM_MASTER_KEY" in terminal("gateway", "config").stdout
    assert "not free" in terminal.fails("cascade", "set", "a/paid")["message"]


def test_the_gateways_state_is_asked_from_the_server(terminal: Terminal, server: Server) -> None:
    status = terminal.json("gateway", "status")
    assert (status["source"], status["gateway"]["phase"]) == ("server", "healthy")
    server.unwell()
    assert "in the way of raising the share" in terminal("gateway", "status").stdout


def test_what_is_exported_can_be_imported_and_nothing_differs(terminal: Terminal, tmp_path: Path) -> None:
    terminal("flags", "set", FLAG, "10")
    terminal("flags", "override", FLAG, "user-42", "on", "--until", "2100-01-01T00:00:00Z")
    file = tmp_path / "flags.json"
    terminal("flags", "export", str(file))
    assert json.loads(file.read_text()) == json.loads(terminal("flags", "export").stdout)
    assert file.stat().st_mode & 0o077 == 0
    head = terminal.json("audit", "head")
    assert terminal.json("flags", "import", str(file)) == {"dry_run": False, "changes": [], "left_alone": []}
    assert terminal.json("audit", "head") == head


def test_an_export_follows_a_link_and_never_replaces_what_is_no_file(terminal: Terminal, tmp_path: Path) -> None:
    link, pipe, read = tmp_path / "link", tmp_path / "pipe", list[str]()
    link.symlink_to(tmp_path / "flags.json")
    terminal("flags", "export", str(link))
    assert link.is_symlink()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    terminal("flags", "export", str(pipe))
    reader.join(60)
    assert json.loads(read[0]) == json.loads((tmp_path / "flags.json").read_text())
    assert pipe.is_fifo()


def test_an_import_makes_each_difference_one_entry_and_a_dry_run_none(terminal: Terminal) -> None:
    document = json.loads(terminal("flags", "export").stdout)
    flag = document["flags"][0]
    flag |= {"percentage": 25, "enabled": False, "killed": True, "description": "changed"}
    flag["overrides"] = {
        "new": {"variant": "on", "reason": "tester", "expires_at": None},
        "past": {"variant": "on", "reason": None, "expires_at": "2001-01-01T00:00:00Z"},
    }
    document["cascade"] = ["a/b:free"]
    terminal("flags", "override", FLAG, "gone", "off")
    head, text = terminal.json("audit", "head"), json.dumps(document)

    planned = terminal.json("flags", "import", "-", "--dry-run", stdin=text)
    assert terminal.json("audit", "head") == head
    assert [change["subject"] for change in planned["changes"]] == [
        "cascade",
        f"override:{FLAG}",
        f"override:{FLAG}",
        f"flag:{FLAG}",
    ]
    assert not any(change["applied"] for change in planned["changes"])
    assert len(planned["left_alone"]) == 2

    done = terminal.json("flags", "import", "-", "--reason", "promoted", stdin=text)
    assert all(change["applied"] for change in done["changes"])
    assert terminal.json("audit", "head")["revision"] == head["revision"] + 4
    after = terminal.json("flags", "show")
    assert (after["percentage"], after["enabled"], after["killed"]) == (25, False, False)
    assert list(after["overrides"]) == ["new"]
    assert terminal.json("flags", "import", "-", stdin=text)["changes"] == []


def test_thousands_of_forced_users_are_imported_in_few_transactions(terminal: Terminal) -> None:
    document = json.loads(terminal("flags", "export").stdout)
    users = {f"user-{number}": {"variant": "on", "reason": "ramp", "expires_at": None} for number in range(1_200)}
    document["flags"][0]["overrides"] = users
    head = terminal.json("audit", "head")["revision"]
    done = terminal.json("flags", "import", "-", stdin=json.dumps(document))
    assert all(change["applied"] for change in done["changes"])
    assert terminal.json("audit", "head")["revision"] == head + 1_200
    assert terminal.json("flags", "show")["overrides"] == users
    assert terminal.json("flags", "override", FLAG, "user-7", "--remove")["overrides"] == {}  # an answer lists few
    assert terminal.json("audit", "verify")["ok"]


def test_an_import_that_may_not_raise_the_share_says_how_far_it_came(terminal: Terminal, server: Server) -> None:
    document = json.loads(terminal("flags", "export").stdout)
    document["flags"][0]["percentage"] = 50
    document["cascade"] = ["a/b:free"]
    server.unwell()
    result = terminal("flags", "import", "-", code=1, stdin=json.dumps(document))
    # beside the database it is one transaction, through the API each change is one
    made = "set" if "ROLLOUT_URL" in terminal.environ else "did not set"
    assert f"{made} the cascade to a/b:free" in result.stdout
    assert f"did not set {FLAG} from 0 % to 50 %" in result.stdout
    assert "the gateway is not healthy" in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": "rollout-flags/2", "flags": []}',
        '{"format": "rollout-flags/1", "flags": {}}',
        '{"format": "rollout-flags/1", "flags": [1]}',
        '{"format": "rollout-flags/1", "flags": [{"key": "nope", "enabled": true, "percentage": 1}]}',
        '{"format": "rollout-flags/1", "flags": [{"key": "enableLiteLLM", "enabled": 1, "percentage": 1}]}',
        '{"format": "rollout-flags/1", "flags": [{"key": "enableLiteLLM", "enabled": true, "percentage": NaN}]}',
        '{"format": "rollout-flags/1", "flags": [{"key": "enableLiteLLM", "enabled": true, "percentage": "5"}]}',
        '{"format": "rollout-flags/1", "flags": [{"key": "enableLiteLLM", "enabled": true, "percentage": 1,'
        ' "overrides": {"u": {"variant": "maybe"}}}]}',
        '{"format": "rollout-flags/1", "flags": [{"key": "enableLiteLLM", "enabled": true, "percentage": 1,'
        ' "overrides": {"u": {"variant": "on", "expires_at": "soon"}}}]}',
        '{"format": "rollout-flags/1", "flags": [], "cascade": ["no model"]}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_export_changes_nothing(beside: Terminal, text: str) -> None:
    head = beside.json("audit", "head")
    assert beside("flags", "import", "-", code=1, stdin=text).stderr.startswith("rollout: ")
    assert beside.json("audit", "head") == head


def test_a_file_that_is_no_text_is_refused(beside: Terminal) -> None:
    assert "UTF-8" in beside("flags", "import", "-", code=1, stdin=b"\xff\xfe").stderr


def test_both_backends_answer_the_same_documents(beside: Terminal, remote: Terminal, server: Server) -> None:
    beside("flags", "set", FLAG, "10", "--reason", "both")
    beside("flags", "override", FLAG, "user-1", "on", "--until", "2100-01-01T00:00:00Z")
    server.notice()
    for arguments in (
        ("flags", "list"),
        ("flags", "show"),
        ("cascade", "show"),
        ("audit", "list"),
        ("audit", "show", "3"),
        ("audit", "head"),
        ("audit", "verify"),
        ("tokens", "list"),
        ("gateway", "config"),
    ):
        assert beside.json(*arguments) == remote.json(*arguments), arguments
    for user in ("user-1", "user-2", "user-3"):
        ours, theirs = (each.json("evaluate", FLAG, "--user", user) for each in (beside, remote))
        assert without(ours, "snapshot_age") == without(theirs, "snapshot_age")


def test_an_access_token_may_end_by_itself(terminal: Terminal) -> None:
    made = terminal.json("tokens", "create", "ci", "--role", "viewer", "--expires", "30d")
    terminal("tokens", "create", "job", "--role", "viewer", "--expires", "2099-01-01T00:00:00+02:00")
    found = {token["name"]: token for token in terminal.json("tokens", "list")["tokens"]}
    lasts = datetime.fromisoformat(found["ci"]["expires_at"]) - datetime.fromisoformat(found["ci"]["created_at"])
    assert made["name"] == "ci"
    assert timedelta(days=29, hours=23) < lasts < timedelta(days=30, hours=1)
    assert found["job"]["expires_at"] == "2098-12-31T22:00:00.000000Z"
    assert "valid until 2098-12-31 22:00:00Z" in terminal("tokens", "list").stdout


@pytest.mark.parametrize("ending", ["30", "0d", "d", "-1d", "1y", "soon", "2099-01-01", "999999d", ""])
def test_an_ending_that_cannot_be_read_is_wrong_usage(alone: Terminal, ending: str) -> None:
    alone("tokens", "create", "ci", "--role", "viewer", "--expires", ending, code=2)


def test_sessions_and_unused_links_are_listed_and_ended(terminal: Terminal) -> None:
    terminal("sign-in", "--name", "anna", "--role", "viewer")
    (link,) = [each for each in terminal.json("sessions", "list")["sessions"] if each["name"] == "anna"]
    assert (link["state"], link["role"], link["own"]) == ("unused", "viewer", False)
    assert "link not used yet" in terminal("sessions", "list").stdout
    assert "is ended" in terminal("sessions", "end", link["id"]).stdout
    assert terminal.json("sessions", "list")["sessions"] == []
    assert terminal.fails("sessions", "end", "nope")["type"] == "NotFound"
    newest = terminal.json("audit", "list", "--limit", "1")["entries"][0]
    assert newest["sentence"] == "ended the unused sign-in link of anna (viewer)"


def test_the_kind_of_actor_is_shown_beside_what_was_done(remote: Terminal, beside: Terminal) -> None:
    remote("flags", "kill")
    beside("flags", "restore")
    restored, killed = remote.json("audit", "list", "--limit", "2")["entries"]
    assert (killed["actor_kind"], restored["actor_kind"]) == ("token", "person")
    lines = remote("audit", "list", "--limit", "50").stdout.splitlines()
    assert lines[0].endswith("[person]")
    assert lines[1].endswith("[token]")
    assert lines[-1].endswith("[system]")
    assert f"actor: {killed['actor']} [token]" in remote("audit", "show", str(killed["revision"])).stdout
