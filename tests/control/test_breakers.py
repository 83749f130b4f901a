"""A reset of breakers is written down, with what it came to where that is known."""

from __future__ import annotations

import pytest

from rollout.control.breakers import check_which, reset_breakers
from rollout.control.installation import set_cascade
from rollout.control.models import quarantine
from rollout.domain.errors import InvalidValue
from rollout.domain.flag import Path
from rollout.domain.ledger import Action
from rollout.store.door import Door
from rollout.store.ledger import AuditFilter, list_entries, read_head
from tests.databases import Database


@pytest.mark.parametrize(
    "which",
    ["litellm", "openrouter", "quota", "a/b:free", "litellm/a/b:free", "openrouter/a/b", "openrouter/auto:free"],
)
def test_what_can_have_a_breaker_can_be_named(which: str) -> None:
    assert check_which(which) == which


@pytest.mark.parametrize("which", ["all", "litellm/", "direct", "a", "a/b/c/d", "\0", "\ud800", "x" * 1000])
def test_what_cannot_have_one_is_refused(which: str, door: Door, database: Database) -> None:
    before = database.dump()
    with pytest.raises(InvalidValue, match="names no breaker"):
        reset_breakers(door, which, actor="eva")
    assert database.dump() == before


@pytest.mark.parametrize("which", ["foo/bar", "litellm/foo/bar", "foo/bar:free"])
def test_a_model_that_was_never_here_is_refused(which: str, door: Door, database: Database) -> None:
    set_cascade(door, ["a/b:free"], actor="eva")
    before = database.dump()
    with pytest.raises(InvalidValue, match="names no breaker"):
        reset_breakers(door, which, actor="eva")
    with pytest.raises(InvalidValue, match="names no breaker"):
        reset_breakers(door, which, actor="eva", reset=lambda which, revision: [])
    assert database.dump() == before


@pytest.mark.parametrize("which", ["litellm", "quota", "a/b:free", "openrouter/a/b:free", "old/one", "litellm/old/one"])
def test_a_path_the_quota_and_a_model_of_the_cascade_or_out_of_it_can_be_reset(which: str, door: Door) -> None:
    set_cascade(door, ["a/b:free"], actor="eva")
    quarantine(door, "old/one", 0.1, Path.LITELLM)
    assert reset_breakers(door, which, actor="eva") is None


def test_a_breaker_that_is_there_is_reset_although_its_model_has_left_the_cascade(door: Door) -> None:
    assert reset_breakers(door, "old/one", actor="eva", reset=lambda which, revision: ["litellm/old/one"])


@pytest.mark.parametrize("which", [None, ""])
def test_nothing_named_is_everything(which: str | None) -> None:
    assert check_which(which) is None


def test_a_reset_knows_the_entry_it_will_have(door: Door) -> None:
    heard: list[tuple[str | None, int]] = []

    def reset(which: str | None, revision: int) -> list[str]:
        heard.append((which, revision))
        return ["litellm"]

    assert reset_breakers(door, "litellm", actor="eva", reason="it is back", reset=reset) == ["litellm"]
    with door.reading() as connection:
        entry = list_entries(connection, AuditFilter(), limit=1)[0]
        assert heard == [("litellm", read_head(connection).revision)]
    assert (entry.action, entry.subject, entry.reason) == (Action.BREAKERS_RESET, "breakers", "it is back")
    assert entry.after == {"which": "litellm", "reset": ["litellm"]}


def test_a_terminal_without_breakers_asks_those_that_have_them(door: Door) -> None:
    assert reset_breakers(door, None, actor="eva") is None
    with door.reading() as connection:
        assert list_entries(connection, AuditFilter(), limit=1)[0].after == {"which": None, "reset": None}
