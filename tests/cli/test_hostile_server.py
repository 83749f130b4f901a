"""What a server that means ill answers is never written to the terminal as it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rollout.cli.words import on_one_line
from tests.cli.conftest import Terminal

NASTY = "\x1b]0;owned\x07\x1b[2J\r\n\u202egnp.exe\x9b31m\x7f\x00\u2066\u200b\ud800\u2028"
AT = "2026-11-25T12:00:00.000000Z"

ENTRY = {
    "revision": 7,
    "at": AT,
    "actor": NASTY,
    "actor_kind": NASTY,
    "action": NASTY,
    "subject": NASTY,
    "before": {NASTY: NASTY},
    "after": {NASTY: "b"},
    "reason": NASTY,
    "previous_digest": NASTY,
    "digest": NASTY,
    "sentence": NASTY,
}
FLAG = {
    "key": NASTY,
    "description": NASTY,
    "enabled": True,
    "killed": True,
    "percentage": 10,
    "salt": NASTY,
    "revision": NASTY,
    "overrides": {NASTY: {"variant": NASTY, "reason": NASTY, "expires_at": None}},
}
TOKEN = {
    "id": NASTY,
    "name": NASTY,
    "role": NASTY,
    "created_at": AT,
    "revoked_at": None,
    "access_token": NASTY,
    "expires_at": AT,
    "last_used_at": AT,
}
SESSION = {
    "id": NASTY,
    "name": NASTY,
    "role": NASTY,
    "state": NASTY,
    "own": False,
    "created_at": AT,
    "opened_at": AT,
    "expires_at": AT,
    "last_used_at": AT,
}
EVALUATION = {
    "flag": NASTY,
    "path": NASTY,
    "variant": NASTY,
    "value": True,
    "reason": NASTY,
    "cause": NASTY,
    "bucket": 1,
    "share": 10_000,
    "revision": NASTY,
}
ANYTHING: dict[str, Any] = {
    **FLAG,
    **TOKEN,
    **EVALUATION,
    **ENTRY,
    "flags": [FLAG, {**FLAG, "killed": False}],
    "tokens": [TOKEN],
    "sessions": [SESSION],
    "entries": [ENTRY],
    "next": None,
    "models": [NASTY],
    "live": [NASTY],
    "out": {NASTY: {"why": NASTY, "detail": NASTY, "at": AT}},
    "code": NASTY,
    "reset": [NASTY],
    "ok": False,
    "head": NASTY,
    "first_break": {"revision": NASTY, "why": NASTY},
    "gateway": {"phase": NASTY, "detail": NASTY},
    "upstream": {"phase": NASTY, "detail": NASTY},
    "preflight": [NASTY],
    "breakers": [],
    "quota": None,
}


class Hostile(BaseHTTPRequestHandler):
    """Answers every request with everything, or with an error that says the same."""

    status = 200

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        anything = ANYTHING | ({"models": {NASTY: NASTY}} if self.path.startswith("/health") else {})
        document = anything if self.status == 200 else {"detail": NASTY, "problems": [NASTY], "current": {NASTY: NASTY}}
        body = json.dumps(document).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the base class's names

    def log_message(self, format: str, *_: Any) -> None: ...  # noqa: A002 - as above


@pytest.fixture
def hostile() -> Iterator[Terminal]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    yield Terminal({"ROLLOUT_URL": url, "ROLLOUT_TOKEN": "rollout_x", "ROLLOUT_DATA_DIR": "/nowhere"})
    Hostile.status = 200
    server.shutdown()
    server.server_close()


COMMANDS = [
    ("flags", "list"),
    ("flags", "show"),
    ("flags", "kill"),
    ("flags", "set", "enableLiteLLM", "5"),
    ("flags", "override", "enableLiteLLM", "u", "on"),
    ("flags", "export"),
    ("evaluate", "enableLiteLLM", "--user", "u"),
    ("audit", "list"),
    ("audit", "show", "7"),
    ("audit", "head"),
    ("audit", "verify"),
    ("cascade", "show"),
    ("cascade", "set", "a/b:free"),
    ("tokens", "create", "n", "--role", "viewer"),
    ("tokens", "list"),
    ("tokens", "revoke", "n"),
    ("sessions", "list"),
    ("sessions", "end", "x"),
    ("sign-in",),
    ("gateway", "status"),
    ("gateway", "reset"),
]


def steering(text: str) -> list[str]:
    """Return what in a text could steer a terminal."""
    return [character for character in text if not character.isprintable() and character != "\n"]


@pytest.mark.parametrize("status", [200, 409, 412, 422, 500])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_a_server_says_steers_the_terminal(hostile: Terminal, command: tuple[str, ...], status: int) -> None:
    Hostile.status = status
    for more in ((), ("--json",)):
        result = hostile.ends(*command, *more)
        said = result.stdout + result.stderr
        assert steering(said) == [], said
        if more and result.exit_code == 0:
            json.loads(result.stdout)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ÅÄÖ 日本 🙂", "plain ÅÄÖ 日本 🙂"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\u202eb", "a\\u202eb"),
        ("a\x9bb", "a\\x9bb"),
        ("a\x7fb\x00", "a\\x7fb\\x00"),
        ("two\r\nlines\tand a\u2028third", "two  lines and a third"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert on_one_line(text) == shown
    assert on_one_line(on_one_line(text)) == shown
