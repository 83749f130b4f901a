"""What an operator can do to a flag, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rollout.control.flags import FlagChange, change_flag, kill, restore, set_override, unset_override
from rollout.domain.errors import InvalidValue, NotFound, PreflightFailed, RolloutError, StaleChange
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT, Flag, Override, Variant
from rollout.domain.ledger import Action, Entry
from rollout.store.door import Door
from rollout.store.flags import read_flag, read_flags
from rollout.store.ledger import AuditFilter, list_entries, read_head, verify_ledger
from rollout.store.snapshots import read_snapshot
from tests.databases import INSTALLATION, START, Clock, Database

ANNA = "anna@example.org"


def stored(door: Door) -> Flag:
    with door.reading() as connection:
        return read_flag(connection, MAIN_FLAG)


def newest(door: Door) -> Entry:
    with door.reading() as connection:
        return list_entries(connection, AuditFilter(), limit=1)[0]


def revision(door: Door) -> int:
    with door.reading() as connection:
        return read_head(connection).revision


def refuse_everything() -> tuple[str, ...]:
    return ("the gateway is not healthy",)


def test_the_first_flag_is_off_for_everybody_and_on_record(door: Door) -> None:
    flag = stored(door)
    assert (flag.key, flag.salt, flag.share, flag.enabled, flag.killed) == (MAIN_FLAG, PUBLISHED_SALT, 0, True, False)
    assert flag.revision == revision(door) == 2


@pytest.mark.parametrize(
    ("change", "action"),
    [
        (FlagChange(share=10_000), Action.FLAG_PERCENTAGE_SET),
        (FlagChange(enabled=False), Action.FLAG_DISABLE),
        (FlagChange(description="another"), Action.FLAG_DESCRIBE),
        (FlagChange(share=10_000, enabled=False), Action.FLAG_UPDATE),
        (FlagChange(share=10_000, enabled=True), Action.FLAG_PERCENTAGE_SET),
    ],
)
def test_a_change_is_stored_and_recorded_as_what_it_is(change: FlagChange, action: Action, door: Door) -> None:
    after = change_flag(door, MAIN_FLAG, change, actor="eva", reason=" why ")
    entry = newest(door)
    assert after == stored(door)
    assert (entry.action, entry.actor, entry.subject, entry.reason) == (action, "eva", f"flag:{MAIN_FLAG}", "why")
    assert entry.revision == after.revision == 3
    assert entry.after["share"] == after.share
    assert entry.after["enabled"] is after.enabled


def test_enabling_again_is_recorded_as_enabling(door: Door) -> None:
    change_flag(door, MAIN_FLAG, FlagChange(enabled=False), actor="eva")
    change_flag(door, MAIN_FLAG, FlagChange(enabled=True), actor="eva")
    assert newest(door).action == Action.FLAG_ENABLE


def test_a_change_that_changes_nothing_writes_nothing(door: Door, database: Database) -> None:
    change_flag(door, MAIN_FLAG, FlagChange(share=10_000), actor="eva")
    before = database.dump()
    for change in (FlagChange(), FlagChange(share=10_000), FlagChange(enabled=True, share=10_000)):
        assert change_flag(door, MAIN_FLAG, change, actor="jan", reason="no reason", preflight=refuse_everything)
    assert database.dump() == before


def test_a_change_from_a_stale_view_is_refused_with_what_is_there_now(door: Door, database: Database) -> None:
    seen = stored(door).revision
    now = change_flag(door, MAIN_FLAG, FlagChange(share=10_000), actor="eva", seen=seen)
    before = database.dump()
    with pytest.raises(StaleChange, match=r"you looked at revision 2, it is at 3") as caught:
        change_flag(door, MAIN_FLAG, FlagChange(share=50_000), actor="jan", seen=seen)
    assert (caught.value.current, caught.value.seen, caught.value.now) == (now, 2, 3)
    assert database.dump() == before


def test_an_override_does_not_make_a_view_of_the_flag_stale(door: Door) -> None:
    seen = stored(door).revision
    set_override(door, MAIN_FLAG, ANNA, Variant.ON, actor="eva")
    assert stored(door).revision == seen
    assert change_flag(door, MAIN_FLAG, FlagChange(share=10_000), actor="eva", seen=seen).share == 10_000


def test_a_kill_is_never_stale_and_happens_once(door: Door) -> None:
    change_flag(door, MAIN_FLAG, FlagChange(share=10_000), actor="eva")
    killed = kill(door, MAIN_FLAG, actor="jan", reason="it burns")
    assert (killed.killed, killed.share) == (True, 10_000)
    entry = newest(door)
    assert (entry.action, entry.actor, entry.reason) == (Action.FLAG_KILL, "jan", "it burns")
    assert kill(door, MAIN_FLAG, actor="eva", reason="again") == killed
    assert revision(door) == entry.revision


def test_a_restore_brings_back_what_stood_and_happens_once(door: Door) -> None:
    change_flag(door, MAIN_FLAG, FlagChange(share=10_000), actor="eva")
    kill(door, MAIN_FLAG, actor="jan")
    restored = restore(door, MAIN_FLAG, actor="eva", reason="put out")
    assert (restored.killed, restored.share, restored.enabled) == (False, 10_000, True)
    assert newest(door).action == Action.FLAG_RESTORE
    before = revision(door)
    assert restore(door, MAIN_FLAG, actor="eva") == restored
    assert revision(door) == before


def test_a_killed_flag_can_still_be_set_and_stays_killed(door: Door) -> None:
    kill(door, MAIN_FLAG, actor="jan")
    assert change_flag(door, MAIN_FLAG, FlagChange(share=10_000), actor="eva").killed


@pytest.mark.parametrize(
    ("start", "change", "rises"),
    [
        (FlagChange(share=10_000), FlagChange(share=10_001), True),
        (FlagChange(share=10_000), FlagChange(share=9_999), False),
        (FlagChange(share=10_000), FlagChange(enabled=False), False),
        (FlagChange(share=10_000, enabled=False), FlagChange(enabled=True), True),
        (FlagChange(share=10_000, enabled=False), FlagChange(share=100_000), False),
        (FlagChange(enabled=False), FlagChange(enabled=True), False),
        (FlagChange(share=10_000), FlagChange(share=50_000, enabled=False), False),
        (FlagChange(share=10_000), FlagChange(description="another"), False),
    ],
)
def test_the_preflight_is_asked_only_when_more_users_would_go_through(
    start: FlagChange, change: FlagChange, rises: bool, door: Door, database: Database
) -> None:
    change_flag(door, MAIN_FLAG, start, actor="eva")
    before = database.dump()
    if not rises:
        change_flag(door, MAIN_FLAG, change, actor="eva", preflight=refuse_everything)
        assert database.dump() != before
        return
    with pytest.raises(PreflightFailed, match="the gateway is not healthy") as caught:
        change_flag(door, MAIN_FLAG, change, actor="eva", preflight=refuse_everything)
    assert caught.value.problems == ("the gateway is not healthy",)
    assert database.dump() == before
    change_flag(door, MAIN_FLAG, change, actor="eva")
    assert database.dump() != before


def test_a_kill_and_a_fall_never_ask_the_preflight(door: Door) -> None:
    asked: list[bool] = []

    def preflight() -> tuple[str, ...]:
        asked.append(True)
        return ()

    change_flag(door, MAIN_FLAG, FlagChange(share=10_000), actor="eva", preflight=preflight)
    assert asked == [True]
    change_flag(door, MAIN_FLAG, FlagChange(share=0), actor="eva", preflight=preflight)
    assert asked == [True]


def test_a_user_is_forced_until_the_override_is_removed(door: Door) -> None:
    until = START + timedelta(days=1)
    flag = set_override(door, MAIN_FLAG, ANNA, Variant.ON, actor="eva", reason="tester", expires_at=until)
    assert flag.overrides == {ANNA: Override(Variant.ON, "tester", until)} == stored(door).overrides
    entry = newest(door)
    assert (entry.action, entry.subject, entry.reason) == (Action.OVERRIDE_SET, f"override:{MAIN_FLAG}", "tester")
    assert (entry.before, entry.after["user"], entry.after["variant"]) == (None, ANNA, "on")

    assert unset_override(door, MAIN_FLAG, ANNA, actor="jan").overrides == {}
    entry = newest(door)
    assert (entry.action, entry.before["user"], entry.after) == (Action.OVERRIDE_REMOVE, ANNA, None)
    with pytest.raises(NotFound, match="is not forced"):
        unset_override(door, MAIN_FLAG, ANNA, actor="jan")


def test_setting_the_same_override_again_writes_nothing(door: Door, clock: Clock) -> None:
    set_override(door, MAIN_FLAG, ANNA, Variant.ON, actor="eva", reason="tester")
    before = revision(door)
    clock.move(timedelta(hours=1))
    set_override(door, MAIN_FLAG, ANNA, Variant.ON, actor="jan", reason="tester")
    assert revision(door) == before
    flag = set_override(door, MAIN_FLAG, ANNA, Variant.OFF, actor="jan", reason="tester")
    assert flag.overrides[ANNA].variant is Variant.OFF
    assert newest(door).before["variant"] == "on"


def test_an_override_holds_up_to_its_end_and_not_at_it(door: Door, clock: Clock) -> None:
    until = START + timedelta(hours=1)
    override = set_override(door, MAIN_FLAG, ANNA, Variant.ON, actor="eva", expires_at=until).overrides[ANNA]
    assert override.holds(until - timedelta(microseconds=1))
    assert not override.holds(until)
    clock.now = until
    with pytest.raises(InvalidValue, match="in the past") as caught:
        set_override(door, MAIN_FLAG, "otto", Variant.ON, actor="eva", expires_at=until)
    assert caught.value.field == "expires_at"


@pytest.mark.parametrize("user", ["åsa", "用户-42", "👩‍🚀", "a b", "'; DROP TABLE flags; --", "%", "x" * 256])
def test_any_printable_user_id_is_kept_exactly(user: str, door: Door) -> None:
    set_override(door, MAIN_FLAG, user, Variant.ON, actor="eva", reason=user)
    assert list(stored(door).overrides) == [user]
    assert newest(door).after["user"] == user
    with door.reading() as connection:
        assert [entry.revision for entry in list_entries(connection, AuditFilter(user=user))] == [3]
        assert verify_ledger(connection).ok


CHANGES: tuple[Callable[[Door, Any], object], ...] = (
    lambda door, text: change_flag(door, MAIN_FLAG, FlagChange(share=1), actor="eva", reason=text),
    lambda door, text: change_flag(door, MAIN_FLAG, FlagChange(description=text), actor="eva"),
    lambda door, text: kill(door, MAIN_FLAG, actor="eva", reason=text),
    lambda door, text: restore(door, MAIN_FLAG, actor="eva", reason=text),
    lambda door, text: set_override(door, MAIN_FLAG, text, Variant.ON, actor="eva"),
    lambda door, text: set_override(door, MAIN_FLAG, ANNA, Variant.ON, actor="eva", reason=text),
    lambda door, text: unset_override(door, MAIN_FLAG, ANNA, actor="eva", reason=text),
)


@pytest.mark.parametrize("text", ["nul\0", "two\nlines", "\ud800", "\x1b[31m", "\u2028", "x" * 501, 17])
def test_text_that_cannot_be_shown_on_one_line_changes_nothing(text: Any, door: Door, database: Database) -> None:
    before = database.dump()
    for change in CHANGES:
        with pytest.raises(InvalidValue):
            change(door, text)
    assert database.dump() == before


def test_an_unknown_flag_is_not_found_and_the_known_are_named(door: Door, database: Database) -> None:
    before = database.dump()
    attempts: tuple[Callable[[], object], ...] = (
        lambda: change_flag(door, "other", FlagChange(share=1), actor="eva"),
        lambda: kill(door, "other", actor="eva"),
        lambda: restore(door, "other", actor="eva"),
        lambda: set_override(door, "other", ANNA, Variant.ON, actor="eva"),
        lambda: unset_override(door, "other", ANNA, actor="eva"),
    )
    for attempt in attempts:
        with pytest.raises(NotFound, match=f"no flag 'other'; there is {MAIN_FLAG}"):
            attempt()
    assert database.dump() == before


def test_a_snapshot_holds_everything_of_one_moment(door: Door) -> None:
    set_override(door, MAIN_FLAG, ANNA, Variant.ON, actor="eva")
    change_flag(door, MAIN_FLAG, FlagChange(share=10_000), actor="eva")
    with door.reading() as connection:
        snapshot = read_snapshot(connection)
        head = read_head(connection)
        flags = read_flags(connection)
    assert (snapshot.installation, snapshot.revision, snapshot.digest) == (INSTALLATION, head.revision, head.digest)
    assert snapshot.flags == flags == {MAIN_FLAG: stored(door)}
    assert snapshot.cascade == ()


def test_every_error_of_a_change_is_of_one_tree(door: Door) -> None:
    with pytest.raises(RolloutError):
        kill(door, "other", actor="eva")
    assert replace(stored(door)) == stored(door)
