"""Models that leave the live order, by whom and why, and the one way back."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

import pytest

from rollout.control.installation import set_cascade
from rollout.control.models import lift, quarantine, watch_models, withdraw
from rollout.domain.actor import SYSTEM
from rollout.domain.cascade import Cascade, ListedModel, ModelOut, OutReason
from rollout.domain.errors import InvalidValue, NotFound
from rollout.domain.flag import Path
from rollout.domain.ledger import Action, Entry
from rollout.store.door import Door
from rollout.store.flags import read_cascade
from rollout.store.ledger import AuditFilter, list_entries, verify_ledger
from rollout.store.snapshots import read_snapshot
from tests.databases import START, Clock, Database

ONE, TWO, THREE = "one/a:free", "two/b:free", "three/c:free"
ALL = [ListedModel(model, free=True) for model in (ONE, TWO, THREE)]


@pytest.fixture
def cascade(door: Door) -> Door:
    """The door of an installation with three models."""
    set_cascade(door, [ONE, TWO, THREE], actor="eva")
    return door


def stored(door: Door) -> Cascade:
    with door.reading() as connection:
        assert verify_ledger(connection).ok
        return read_cascade(connection)


def last_entry(door: Door) -> Entry:
    with door.reading() as connection:
        return list_entries(connection, AuditFilter(), limit=1)[0]


def test_a_withdrawn_model_leaves_the_live_order_and_stays_in_the_cascade(cascade: Door) -> None:
    answered = withdraw(cascade, TWO, OutReason.WITHDRAWN, "no longer listed", actor="rollout")
    assert answered == stored(cascade)
    assert (answered.models, answered.live) == ((ONE, TWO, THREE), (ONE, THREE))
    assert answered.out == {TWO: ModelOut(OutReason.WITHDRAWN, "no longer listed", START)}
    entry = last_entry(cascade)
    assert (entry.action, entry.subject, entry.actor) == (Action.MODEL_WITHDRAW, f"model:{TWO}", SYSTEM)
    assert (entry.before, entry.after) == (None, {"why": "withdrawn", "detail": "no longer listed"})
    with cascade.reading() as connection:
        assert read_snapshot(connection).cascade == (ONE, THREE), "what clients follow"


def test_taking_out_what_is_out_writes_nothing(cascade: Door, database: Database, clock: Clock) -> None:
    withdraw(cascade, TWO, OutReason.WITHDRAWN, "no longer listed")
    quarantine(cascade, THREE, 0.1, Path.LITELLM)
    before = database.dump()
    clock.move(timedelta(hours=1))
    withdraw(cascade, TWO, OutReason.NOT_FREE, "no longer free")
    withdraw(cascade, THREE, OutReason.WITHDRAWN, "no longer listed")
    quarantine(cascade, THREE, 0.2, Path.OPENROUTER)
    lift(cascade, ONE, actor="eva")
    assert database.dump() == before


def test_a_cost_outranks_every_other_reason(cascade: Door) -> None:
    withdraw(cascade, TWO, OutReason.NOT_FREE, "no longer free")
    found = quarantine(cascade, TWO, 0.00012, Path.LITELLM)
    assert found.quarantined == {TWO}
    entry = last_entry(cascade)
    assert entry.action == Action.MODEL_QUARANTINE
    assert entry.before == {"why": "not_free", "detail": "no longer free"}
    assert entry.after == {"why": "cost", "detail": "an answer through litellm cost $0.00012"}


@pytest.mark.parametrize(
    ("cost", "said"),
    [(1, "$1"), (10.0, "$10"), (0.1, "$0.1"), (1e-9, "$0.000000001"), (1e-15, "$1e-15"), (1.23e3, "$1230")],
)
def test_what_an_answer_cost_is_written_out(cost: float, said: str, cascade: Door) -> None:
    assert (
        quarantine(cascade, ONE, cost, Path.OPENROUTER).out[ONE].detail == f"an answer through openrouter cost {said}"
    )


def test_only_a_lift_brings_a_model_back(cascade: Door) -> None:
    quarantine(cascade, TWO, 0.1, Path.LITELLM)
    set_cascade(cascade, [ONE, THREE], actor="jan")
    again = set_cascade(cascade, [TWO, ONE], actor="jan")
    assert (again.models, again.live) == ((TWO, ONE), (ONE,)), "setting a cascade lifts nobody"
    lifted = lift(cascade, TWO, actor="eva", reason="the upstream paid it back")
    assert lifted == stored(cascade)
    assert (lifted.live, lifted.out, lifted.revision) == ((TWO, ONE), {}, again.revision)
    entry = last_entry(cascade)
    assert (entry.action, entry.actor, entry.reason) == (Action.MODEL_LIFT, "eva", "the upstream paid it back")
    assert (entry.before, entry.after) == ({"why": "cost", "detail": "an answer through litellm cost $0.1"}, None)


def test_a_model_nobody_knows_is_said_to_be_unknown(cascade: Door, database: Database) -> None:
    before = database.dump()
    with pytest.raises(NotFound, match="'no/model:free' is out, nor in the cascade"):
        lift(cascade, "no/model:free", actor="eva")
    for odd in ("", "\0", "\ud800", "x" * 10_000):
        with pytest.raises(NotFound):
            lift(cascade, odd, actor="eva")
        with pytest.raises(InvalidValue):
            withdraw(cascade, odd, OutReason.WITHDRAWN, "gone")
    with pytest.raises(InvalidValue):
        lift(cascade, ONE, actor="eva", reason="x" * 501)
    assert database.dump() == before


def test_what_an_upstream_says_stands_on_one_line(cascade: Door) -> None:
    found = withdraw(cascade, ONE, OutReason.WITHDRAWN, "gone\r\n\x1b[2J\0" + "x" * 900)
    assert found.out[ONE].detail.isprintable()
    assert len(found.out[ONE].detail) == 500
    assert stored(cascade) == found


def test_of_many_who_see_a_cost_at_once_one_writes_it_down(cascade: Door, database: Database) -> None:
    others = [Door(database.another_engine()) for _ in range(4)]
    threads = [threading.Thread(target=quarantine, args=(door, TWO, 0.1, Path.LITELLM)) for door in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with cascade.reading() as connection:
        assert len(list_entries(connection, AuditFilter(action=Action.MODEL_QUARANTINE))) == 1
    assert stored(cascade).live == (ONE, THREE)


def test_a_row_that_cannot_be_read_keeps_its_model_out(cascade: Door, database: Database) -> None:
    withdraw(cascade, TWO, OutReason.WITHDRAWN, "gone")
    database.tamper("UPDATE models_out SET why = 'whim', at = 'then'")
    assert stored(cascade).live == (ONE, THREE)
    assert lift(cascade, TWO, actor="eva").live == (ONE, TWO, THREE)


def test_the_watcher_writes_nothing_while_all_is_well(cascade: Door, database: Database) -> None:
    before = database.dump()
    assert watch_models(cascade, ALL) == frozenset()
    assert watch_models(cascade, [], {ONE}) == {ONE}
    assert watch_models(cascade, ALL[:2]) == {THREE}
    assert watch_models(cascade, ALL, {THREE}) == frozenset()
    assert database.dump() == before


def test_the_watcher_takes_out_what_is_gone_and_says_so_aloud_once(
    cascade: Door, caplog: pytest.LogCaptureFixture
) -> None:
    listed = [ALL[0], ListedModel(TWO, free=False)]
    missing: frozenset[str] = frozenset()
    for _ in range(4):
        missing = watch_models(cascade, listed, missing)
    assert {model: out.why for model, out in stored(cascade).out.items()} == {
        TWO: OutReason.NOT_FREE,
        THREE: OutReason.WITHDRAWN,
    }
    alerts = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.split(" ")[0] for line in alerts] == [TWO, THREE]
    assert "rollout cascade lift" in alerts[0]


def test_a_model_that_is_listed_again_comes_back_by_nobody_but_a_person(cascade: Door) -> None:
    withdraw(cascade, TWO, OutReason.WITHDRAWN, "gone")
    for _ in range(3):
        assert watch_models(cascade, ALL) == frozenset()
    assert stored(cascade).live == (ONE, THREE)


def test_a_list_that_is_not_believed_is_said_and_changes_nothing(
    cascade: Door, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    before = database.dump()
    other = [ListedModel("other/x:free", free=True)]
    assert watch_models(cascade, other, watch_models(cascade, other)) == {ONE, TWO, THREE}
    assert database.dump() == before
    assert "lists none of the cascade's models" in caplog.text


def test_where_models_may_cost_a_price_is_no_reason(cascade: Door) -> None:
    listed = [ListedModel(model, free=False) for model in (ONE, TWO, THREE)]
    assert watch_models(cascade, listed, allow_paid=True) == frozenset()
    assert stored(cascade).live == (ONE, TWO, THREE)


def test_an_installation_without_a_cascade_has_nothing_to_watch(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    assert watch_models(door, []) == frozenset()
    assert caplog.text == ""
