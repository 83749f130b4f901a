"""Models that are out, and breakers, in the terminal: through both backends against one real installation."""

import time

from rollout.control.models import quarantine, withdraw
from rollout.domain.cascade import OutReason
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.resilience.permit import Permit, Refusal
from tests.cli.conftest import CASCADE, Server, Terminal

FIRST, SECOND = CASCADE


def test_the_cascade_shows_what_is_out_and_since_when(terminal: Terminal, server: Server) -> None:
    withdraw(server.door, FIRST, OutReason.WITHDRAWN, "no longer listed by the upstream")
    quarantine(server.door, "old/model:free", 0.5, Path.LITELLM)
    server.notice()
    found = terminal.json("cascade", "show")
    assert (found["models"], found["live"]) == (list(CASCADE), [SECOND])
    assert found["out"][FIRST]["why"] == "withdrawn"
    said = terminal("cascade", "show").stdout
    assert f"OUT  {FIRST}" in said
    assert "no longer listed by the upstream, 20" in said
    assert f"  1  {SECOND}" in said
    assert "not in the cascade, and out: old/model:free: an answer through litellm cost $0.5" in said
    assert "rollout cascade lift" in said
    names = [entry["litellm_params"]["model"] for entry in terminal.json("gateway", "config")["model_list"]]
    assert f"openrouter/{FIRST}" not in names, "the gateway's other clients are not sent to it either"


def test_a_lift_brings_a_model_back_and_says_the_order(terminal: Terminal, server: Server) -> None:
    for model in CASCADE:
        quarantine(server.door, model, 0.5, Path.LITELLM)
    assert "no model is asked" in terminal("cascade", "show").stdout
    lifted = terminal("cascade", "lift", FIRST, "--reason", "refunded").stdout
    assert f"  1  {FIRST}" in lifted
    assert terminal.json("cascade", "lift", SECOND)["live"] == list(CASCADE)
    assert terminal.json("cascade", "lift", SECOND)["live"] == list(CASCADE), "a lift can be repeated"
    entries = terminal.json("audit", "list", "--action", "model:lift")["entries"]
    assert [entry["reason"] for entry in entries] == [None, "refunded"]
    assert terminal.fails("cascade", "lift", "no/model:free")["type"] == "NotFound"


def test_setting_the_cascade_lifts_nobody(terminal: Terminal, server: Server) -> None:
    withdraw(server.door, FIRST, OutReason.NOT_FREE, "no longer free")
    assert terminal.json("cascade", "set", SECOND, FIRST)["live"] == [SECOND]


def _until_let_through(server: Server) -> None:
    until = time.monotonic() + 10
    while isinstance(server.gate.admit(Path.LITELLM, FIRST), Refusal):
        assert time.monotonic() < until
        time.sleep(0.02)


def _trip(server: Server) -> None:
    for _ in range(10):
        permit = server.gate.admit(Path.LITELLM, FIRST)
        if isinstance(permit, Refusal):
            return
        server.gate.settle(permit, FailureKind.UNREACHABLE)


def test_breakers_are_said_and_reset_from_the_terminal(terminal: Terminal, server: Server) -> None:
    _trip(server)
    said = terminal("gateway", "status").stdout
    assert "breaker litellm, every model: open (unreachable); tries again in" in said
    assert "46 of 50 left" in said
    terminal("gateway", "reset", "litellm", "--reason", "it is back")
    _until_let_through(server)
    assert terminal.json("audit", "list", "--limit", "1")["entries"][0]["reason"] == "it is back"
    _trip(server)
    terminal("gateway", "reset")
    _until_let_through(server)


def test_a_daily_cap_is_said_loudly_and_can_be_forgotten(terminal: Terminal, server: Server) -> None:
    permit = server.gate.admit(Path.OPENROUTER, FIRST)
    assert isinstance(permit, Permit)
    server.gate.settle(permit, FailureKind.DAY_CAP)
    said = terminal("gateway", "status").stdout
    assert "NOTHING IS SENT until" in said
    assert "(the cap of the day)" in said
    assert "in the way of raising the share: nothing is sent until 00:00 UTC" in said
    terminal("gateway", "reset", "quota")
    _until_let_through(server)


def test_a_minute_that_the_upstream_refuses_and_an_empty_retry_budget_are_said(
    terminal: Terminal, server: Server
) -> None:
    permit = server.gate.admit(Path.OPENROUTER, FIRST)
    assert isinstance(permit, Permit)
    server.gate.settle(permit, FailureKind.MINUTE_CAP, 60.0)
    assert "retries:" not in terminal("gateway", "status").stdout
    while server.gate.may_retry():
        pass
    said = terminal("gateway", "status").stdout
    assert "(the cap of the minute)" in said
    assert "retries: too many are made just now, so a model that failed is not asked again; other models are" in said
    assert "in the way" not in said


def test_what_was_reset_is_known_where_the_server_does_it(beside: Terminal, remote: Terminal, server: Server) -> None:
    _trip(server)
    assert remote.json("gateway", "reset", "litellm") == {"reset": ["litellm"]}
    assert "nothing had to be reset" in remote("gateway", "reset", "litellm").stdout
    assert beside.json("gateway", "reset", "litellm") == {"reset": None}
    assert "a running server of this database resets it" in beside("gateway", "reset").stdout
    for terminal in (beside, remote):
        for nothing in ("everything", "foo/bar"):
            failed = terminal.fails("gateway", "reset", nothing)
            assert failed["type"] == "InvalidValue"
            assert "names no breaker" in failed["message"]


def test_the_doctor_names_what_is_out(alone: Terminal, beside: Terminal, server: Server) -> None:
    withdraw(server.door, FIRST, OutReason.WITHDRAWN, "no longer listed by the upstream")
    quarantine(server.door, SECOND, 0.5, Path.LITELLM)
    said = alone("doctor", code=1).stdout
    assert f"{FIRST} is out: no longer listed by the upstream" in said
    assert f"{SECOND} is out: an answer through litellm cost $0.5" in said
