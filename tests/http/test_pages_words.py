"""How the pages say numbers, times and errors."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import Request
from starlette.exceptions import HTTPException

from rollout.domain.bucketing import HASH_VERSION
from rollout.domain.errors import InvalidValue
from rollout.domain.evaluate import Cause, Evaluation, Reason
from rollout.domain.flag import MAIN_FLAG, Flag, Variant
from rollout.domain.flag import Path as Where
from rollout.http.pages import is_page, page_error
from rollout.http.pages.words import (
    enabled_change,
    full,
    lasting,
    parse_moment,
    relative,
    share_change,
    users,
    why,
)
from rollout.http.problems import Problem
from tests.http.api_support import World, a_world
from tests.http.pages_support import a_browser, is_whole, words

NOW = datetime(2026, 11, 22, 14, 3, 7, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0, "no user but the forced ones"),
        (1, "about 1 in 100,000 users"),
        (500, "about 1 in 200 users"),
        (10_000, "about 1 in 10 users"),
        (12_500, "about 1 in 8 users"),
        (33_333, "about 1 in 3 users"),
        (50_000, "about 1 in 2 users"),
        (75_000, "about 3 in 4 users"),
        (90_000, "about 9 in 10 users"),
        (95_000, "all users but about 1 in 20"),
        (99_999, "all users but about 1 in 100,000"),
        (100_000, "every user"),
    ],
)
def test_a_share_is_said_as_people_count(share: int, said: str) -> None:
    assert users(share) == said


@pytest.mark.parametrize(
    ("seconds", "said", "lasted"),
    [
        (0, "just now", "a moment"),
        (12, "12 s ago", "12 s"),
        (-90, "in 1 min", "a moment"),
        (3 * 3600, "3 h ago", "3 h"),
        (-9 * 86_400, "in 9 d", "a moment"),
        (31 * 86_400, "22 Oct 2026", "31 d"),
    ],
)
def test_a_moment_is_said_from_now(seconds: int, said: str, lasted: str) -> None:
    at = NOW - timedelta(seconds=seconds)
    assert relative(at, NOW) == said
    assert lasting(at, NOW) == lasted


def test_a_moment_is_read_as_utc_unless_it_says_otherwise() -> None:
    assert parse_moment(" ", field="until") is None
    assert parse_moment("2026-12-01T09:00", field="until") == datetime(2026, 12, 1, 9, tzinfo=UTC)
    assert parse_moment("2026-12-01T09:00+02:00", field="until") == datetime(2026, 12, 1, 7, tzinfo=UTC)
    with pytest.raises(InvalidValue, match="needs a date and time"):
        parse_moment("tomorrow", field="until")


def test_moving_the_share_says_what_stays_and_what_stands_in_the_way() -> None:
    flag = Flag(MAIN_FLAG, "salt", share=10_000)
    assert "Who is on the gateway now stays there." in share_change(flag, 20_000, on=0, off=0)
    assert "Exactly those who were added last go back to direct." in share_change(flag, 5_000, on=0, off=0)
    assert share_change(flag, 10_000, on=0, off=0)[0] == "The share is 10\u00a0% already."
    assert share_change(flag, 0, on=2, off=1) == [
        "No user goes through LiteLLM by the share any more, instead of about 1 in 10 users.",
        "3 forced users (2 on, 1 off) unaffected.",
    ]
    assert "kill switch is on" in share_change(Flag(MAIN_FLAG, "salt", killed=True), 5, on=0, off=0)[-1]
    assert "disabled" in share_change(Flag(MAIN_FLAG, "salt", enabled=False), 5, on=0, off=0)[-1]
    assert enabled_change(Flag(MAIN_FLAG, "salt", share=100_000), enabled=True, on=0, off=0) == [
        "Every user goes through LiteLLM (100\u00a0%).",
        "No user is forced on or off.",
    ]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (14_000, 15_000, "15 % of users go through LiteLLM instead of 14 %: about 1 in 100 users more."),
        (15_000, 14_000, "14 % of users go through LiteLLM instead of 15 %: about 1 in 100 users fewer."),
        (95_000, 95_001, "95.001 % of users go through LiteLLM instead of 95 %: about 1 in 100,000 users more."),
    ],
)
def test_a_small_step_is_never_said_as_no_step(before: int, after: int, said: str) -> None:
    first = share_change(Flag(MAIN_FLAG, "salt", share=before), after, on=0, off=0)[0]
    assert first.replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("message", "said"),
    [("no such thing", "No such thing."), ("Nothing was changed.", "Nothing was changed."), ("", "")],
)
def test_a_message_becomes_a_sentence(message: str, said: str) -> None:
    assert full(message) == said


@pytest.mark.parametrize("cause", list(Cause))
def test_every_cause_has_words(cause: Cause) -> None:
    evaluation = Evaluation(
        MAIN_FLAG, Where.OPENROUTER, Variant.OFF, False, Reason.DEFAULT, cause, 7, 5, 1, None, HASH_VERSION
    )
    assert len(why(evaluation)) > 10


def _request(path: str, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": raw}
    return Request(scope | {"scheme": "http", "server": ("127.0.0.1", 80)})


@pytest.mark.parametrize("path", ["/api/v1/flags", "/v1/models", "/ofrep/v1/x", "/health", "/livez", "/static/x.css"])
def test_a_programs_route_never_answers_a_page(path: str) -> None:
    assert not is_page(_request(path, accept="text/html"))


@pytest.mark.parametrize("path", ["/", "/flags/x", "/audit", "/sign-in"])
def test_a_pages_route_answers_a_page_whatever_was_asked_for(path: str) -> None:
    assert is_page(_request(path, accept="application/json"))


def test_elsewhere_it_depends_on_what_was_asked_for() -> None:
    assert is_page(_request("/nothing", accept="text/html,*/*"))
    assert not is_page(_request("/nothing", accept="application/json"))


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (HTTPException(405), 405, "takes no such request"),
        (HTTPException(418), 418, "cannot be served"),
        (Problem(428, "Name what you saw", "send If-Match"), 428, "Send If-Match"),
        (RuntimeError("a secret"), 500, "The server's log says more"),
    ],
)
def test_every_error_has_a_page_and_a_notice(error: Exception, status: int, says: str) -> None:
    whole = page_error(_request("/audit"), error)
    piece = page_error(_request("/audit", hx_request="true"), error)
    assert whole.status_code == piece.status_code == status
    assert says in words(bytes(whole.body).decode())
    assert piece.headers["hx-retarget"] == "#notice"
    assert b"a secret" not in bytes(whole.body) + bytes(piece.body)


async def test_a_query_of_the_wrong_shape_is_said_on_a_page(world: World) -> None:
    answer = await a_browser(world).get(f"/flags/{MAIN_FLAG}/overrides?q={'x' * 301}")
    assert answer.status_code == 422
    assert "That form cannot be read" in words(answer.text)
    assert is_whole(answer)


async def test_a_broken_chain_is_said_with_where_it_breaks(world: World) -> None:
    with closing(sqlite3.connect(world.path)) as connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f'DROP TRIGGER "{trigger}"')
        connection.execute("UPDATE ledger SET text = replace(text, 'test', 'tset') WHERE revision = 4")
        connection.commit()
    said = words((await a_browser(world).get("/audit/verify")).text)
    assert "Broken at entry 4:" in said
    assert "the text was altered" in said
