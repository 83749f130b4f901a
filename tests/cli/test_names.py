"""What one interface lets somebody make, every interface can address and remove."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from rollout.domain.roles import Role
from tests.cli.conftest import Server, Terminal

FLAG = "enableLiteLLM"
NAMES = [
    "a/b",
    "/etc/passwd",
    "a//b/",
    ".",
    "..",
    "a/../b",
    "50%",
    "%2F",
    "%zz",
    "a b",
    "a?b#c",
    "å/ø",
    "a&b=c",
    "-x",
    "a;b",
]
INVISIBLE = "\ufeff \u200b"


def test_any_user_is_forced_and_let_go_by_every_interface(beside: Terminal, remote: Terminal, server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.token(Role.OPERATOR)}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as api:
        for name in NAMES:
            path = f"/api/v1/flags/{FLAG}/overrides/{quote(name, safe='').replace('.', '%2E')}"
            for maker, remover in ((beside, remote), (remote, None), (None, beside)):
                if maker is None:
                    assert api.put(path, json={"variant": "on"}).status_code == 200
                else:
                    maker("flags", "override", FLAG, "--", name, "on")
                assert list(beside.json("flags", "show", FLAG)["overrides"]) == [name]
                if remover is None:
                    assert api.delete(path).status_code == 200
                else:
                    remover("flags", "override", "--remove", FLAG, "--", name)
                assert beside.json("flags", "show", FLAG)["overrides"] == {}


def test_any_access_token_is_revoked_by_its_name(terminal: Terminal) -> None:
    for name in NAMES:
        terminal("tokens", "create", "--role", "evaluate", "--", name)
        terminal("tokens", "revoke", "--", name)
    holding = [token["name"] for token in terminal.json("tokens", "list")["tokens"] if token["revoked_at"] is None]
    assert not set(holding) & set(NAMES)


def test_what_cannot_be_seen_around_an_id_is_no_part_of_it_anywhere(terminal: Terminal) -> None:
    terminal("flags", "override", FLAG, f"{INVISIBLE}anna\u2060", "on")
    assert list(terminal.json("flags", "show", FLAG)["overrides"]) == ["anna"]
    assert terminal.json("evaluate", FLAG, "--user", f" anna{INVISIBLE}")["cause"] == "override"
    assert len(terminal.json("audit", "list", "--user", f" anna{INVISIBLE}")["entries"]) == 1
    terminal("flags", "override", "--remove", FLAG, f"anna{INVISIBLE}")
    assert terminal.json("flags", "show", FLAG)["overrides"] == {}


@pytest.mark.parametrize(("user", "says"), [("x" * 257, "256 is the most"), ("a\x07b", "control character")])
def test_an_id_that_cannot_be_kept_is_refused_with_the_reason(terminal: Terminal, user: str, says: str) -> None:
    for command in (["flags", "override", FLAG, user, "on"], ["evaluate", FLAG, "--user", user]):
        assert says in terminal.fails(*command)["message"]


@pytest.mark.parametrize(
    "moment",
    ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z"],
)
def test_a_date_beyond_the_calendar_is_refused(beside: Terminal, server: Server, moment: str) -> None:
    assert beside("flags", "override", FLAG, "anna", "on", "--until", moment, code=2).exit_code == 2
    headers = {"Authorization": f"Bearer {server.token(Role.OPERATOR)}"}
    path = f"{server.url}/api/v1/flags/{FLAG}/overrides/anna"
    answer = httpx.put(path, json={"variant": "on", "expires_at": moment}, headers=headers, trust_env=False)
    assert answer.status_code == 422
