"""The first start, and the cascade."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from rollout.control.installation import establish, set_cascade
from rollout.domain.actor import SYSTEM
from rollout.domain.cascade import Cascade
from rollout.domain.errors import InvalidValue, StaleChange
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT
from rollout.domain.ledger import Action
from rollout.store.door import Door
from rollout.store.flags import read_cascade, read_flag
from rollout.store.ledger import AuditFilter, list_entries, verify_ledger
from tests.databases import Database

ONE, TWO = "z-ai/glm-4.5-air:free", "minimax/minimax-m2:free"


def cascade(door: Door) -> Cascade:
    with door.reading() as connection:
        return read_cascade(connection)


def test_an_installation_is_made_once_by_whoever_comes_first(database: Database) -> None:
    door = Door(database.engine)
    made: list[bool] = []
    starts = [
        threading.Thread(
            target=lambda number=number: made.append(
                establish(Door(database.another_engine()), new_id=lambda: f"installation-{number}")
            )
        )
        for number in range(4)
    ]
    for start in starts:
        start.start()
    for start in starts:
        start.join(30)
    assert sorted(made) == [False, False, False, True]
    with door.reading() as connection:
        entries = list_entries(connection, AuditFilter())
        assert verify_ledger(connection).ok
    assert [entry.action for entry in entries] == [Action.FLAG_CREATE, Action.INSTALLATION_CREATE]
    assert {entry.actor for entry in entries} == {SYSTEM}


@pytest.mark.parametrize(("given", "stored"), [(None, PUBLISHED_SALT), ("", PUBLISHED_SALT), ("pepper", "pepper")])
def test_the_flag_takes_the_salt_it_is_given(given: str | None, stored: str, database: Database) -> None:
    door = Door(database.engine)
    assert establish(door, new_id=lambda: "one", salt=given)
    assert not establish(door, new_id=lambda: "two", salt="another")
    with door.reading() as connection:
        assert read_flag(connection, MAIN_FLAG).salt == stored


def test_the_cascade_is_empty_until_it_is_set(door: Door) -> None:
    assert cascade(door) == Cascade((), 0)
    assert set_cascade(door, [ONE, TWO], actor="eva", reason="first") == Cascade((ONE, TWO), 3) == cascade(door)
    with door.reading() as connection:
        entry = list_entries(connection, AuditFilter(), limit=1)[0]
    assert (entry.action, entry.subject, entry.reason) == (Action.CASCADE_SET, "cascade", "first")
    assert (entry.before, entry.after) == (None, {"models": [ONE, TWO]})


def test_order_matters_and_sameness_writes_nothing(door: Door, database: Database) -> None:
    set_cascade(door, [ONE, TWO], actor="eva")
    before = database.dump()
    set_cascade(door, (ONE, TWO), actor="jan")
    assert database.dump() == before
    assert set_cascade(door, [TWO, ONE], actor="jan").models == (TWO, ONE)


def test_a_cascade_changed_meanwhile_is_not_overwritten(door: Door, database: Database) -> None:
    first = set_cascade(door, [ONE], actor="eva", seen=0)
    second = set_cascade(door, [TWO], actor="jan", seen=first.revision)
    before = database.dump()
    with pytest.raises(StaleChange, match="looked at revision 3, it is at 4") as caught:
        set_cascade(door, [ONE, TWO], actor="eva", seen=first.revision)
    assert caught.value.current == second
    assert database.dump() == before


@pytest.mark.parametrize("models", [[], "a/b", None, [ONE, ONE], ["nonsense"], [17], [f"a/b{n}" for n in range(21)]])
def test_a_cascade_that_could_not_answer_is_refused(models: Any, door: Door, database: Database) -> None:
    before = database.dump()
    with pytest.raises(InvalidValue):
        set_cascade(door, models, actor="eva")
    assert database.dump() == before
