"""The one door for writes."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import text

from rollout.control.flags import FlagChange, change_flag
from rollout.domain.errors import StoreFailed
from rollout.domain.flag import MAIN_FLAG
from rollout.domain.ledger import Action
from rollout.store.door import Door
from rollout.store.flags import read_flag, update_flag
from rollout.store.ledger import read_head
from tests.databases import Database


def test_a_change_without_an_entry_is_refused_and_undone(door: Door, database: Database) -> None:
    before = database.dump()

    def forget_to_record() -> None:
        with door.writing() as writing:
            flag = read_flag(writing.connection, MAIN_FLAG)
            update_flag(writing, replace(flag, share=100_000))

    with pytest.raises(StoreFailed, match="without a ledger entry"):
        forget_to_record()
    assert database.dump() == before


def test_an_exception_undoes_the_change_and_its_entry(door: Door, database: Database) -> None:
    before = database.dump()

    class Interrupted(Exception):
        pass

    def be_interrupted() -> None:
        with door.writing() as writing:
            flag = read_flag(writing.connection, MAIN_FLAG)
            entry = writing.record("eva", Action.FLAG_ENABLE, "flag:x", before=None, after={"share": 1}, reason="why")
            update_flag(writing, replace(flag, share=100_000, revision=entry.revision))
            raise Interrupted

    with pytest.raises(Interrupted):
        be_interrupted()
    assert database.dump() == before


def test_a_transaction_that_changes_nothing_leaves_nothing(door: Door, database: Database) -> None:
    before = database.dump()
    with door.writing():
        pass
    assert database.dump() == before


def test_several_entries_of_one_transaction_follow_each_other(door: Door) -> None:
    with door.writing() as writing:
        expected = writing.next_revision
        first = writing.record("eva", Action.FLAG_ENABLE, "flag:x", before=None, after=None)
        second = writing.record("eva", Action.FLAG_DISABLE, "flag:x", before=None, after=None)
    assert (first.revision, second.revision) == (expected, expected + 1)
    assert second.previous_digest == first.digest
    with door.reading() as connection:
        assert read_head(connection).digest == second.digest


def test_a_database_without_an_installation_takes_no_entries(database: Database) -> None:
    with (
        pytest.raises(StoreFailed, match="start the server once"),
        Door(database.engine).writing() as writing,
    ):
        writing.record("eva", Action.FLAG_ENABLE, "flag:x", before=None, after=None)


def test_a_database_that_was_never_migrated_is_a_clear_error(empty: Database) -> None:
    with pytest.raises(StoreFailed, match="head"), Door(empty.engine).writing():
        pass


def test_a_writer_waits_before_it_reads_and_then_sees_what_the_other_wrote(door: Door, database: Database) -> None:
    second_door = Door(database.another_engine())
    about_to_write, inside = threading.Event(), threading.Event()
    seen: list[int] = []

    def second() -> None:
        about_to_write.set()
        with second_door.writing() as writing:
            inside.set()
            seen.append(read_flag(writing.connection, MAIN_FLAG).share)

    other = threading.Thread(target=second)
    with door.writing() as writing:
        other.start()
        assert about_to_write.wait(10)
        assert not inside.wait(0.2), "two writers were inside at once"
        flag = read_flag(writing.connection, MAIN_FLAG)
        entry = writing.record("eva", Action.FLAG_PERCENTAGE_SET, "flag:x", before=None, after=None)
        update_flag(writing, replace(flag, share=12_345, revision=entry.revision))
    other.join(10)
    assert seen == [12_345]


def test_threads_that_raise_the_share_one_by_one_lose_none(door: Door) -> None:
    def add() -> None:
        for _ in range(5):
            with door.writing() as writing:
                flag = read_flag(writing.connection, MAIN_FLAG)
                entry = writing.record("eva", Action.FLAG_PERCENTAGE_SET, "flag:x", before=None, after=None)
                update_flag(writing, replace(flag, share=flag.share + 1, revision=entry.revision))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with door.reading() as connection:
        assert read_flag(connection, MAIN_FLAG).share == 20


def test_what_one_reading_shows_belongs_together_while_others_write(door: Door) -> None:
    with door.reading() as connection:
        before = read_flag(connection, MAIN_FLAG)
        change_flag(door, MAIN_FLAG, FlagChange(share=50_000), actor="eva")  # a reader keeps no writer waiting
        assert read_flag(connection, MAIN_FLAG) == before
        assert read_head(connection).revision == 2
    with door.reading() as connection:
        assert read_flag(connection, MAIN_FLAG).share == 50_000


@pytest.mark.parametrize("kind", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True)
def test_a_writer_that_hangs_is_cut_off_so_that_a_kill_gets_through(door: Door) -> None:
    settings = ("lock_timeout", "idle_in_transaction_session_timeout")
    with door.writing() as writing:
        inside = [writing.connection.execute(text(f"SHOW {name}")).scalar_one() for name in settings]
    with door.reading() as connection:
        outside = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in settings]
    assert inside == ["15s", "15s"]
    assert outside == ["0", "0"]


def test_an_error_of_the_database_shows_no_personal_data(door: Door) -> None:
    with pytest.raises(StoreFailed) as caught, door.writing() as writing:
        writing.connection.execute(
            text("INSERT INTO overrides VALUES ('nowhere', :user, 'on', NULL, NULL, 99)"), {"user": "anna@example.org"}
        )
    shown: BaseException | None = caught.value
    while shown is not None:
        assert "anna@example.org" not in str(shown)
        shown = shown.__cause__
