"""What was written around the door hurts only itself."""

from __future__ import annotations

import pytest

from rollout.control.access import create_token
from rollout.control.flags import kill, set_override
from rollout.domain.access import hash_secret
from rollout.domain.errors import StoreFailed
from rollout.domain.flag import MAIN_FLAG, BrokenFlag, Flag, Variant
from rollout.domain.roles import Role
from rollout.store.access import tokens_by_hash
from rollout.store.door import Door
from rollout.store.flags import read_cascade, read_flag
from rollout.store.snapshots import read_snapshot
from tests.databases import Database


@pytest.mark.parametrize(
    "breaking",
    [
        "UPDATE flags SET share = 100001",
        "UPDATE overrides SET variant = 'maybe'",
        "UPDATE overrides SET expires_at = 'soon'",
    ],
)
def test_a_flag_with_a_broken_row_is_a_broken_flag_in_the_snapshot(
    door: Door, database: Database, breaking: str
) -> None:
    set_override(door, MAIN_FLAG, "user-42", Variant.ON, actor="eva")
    database.raw(breaking)
    with door.reading() as connection:
        assert isinstance(read_snapshot(connection).flags[MAIN_FLAG], BrokenFlag)
        with pytest.raises(StoreFailed, match="cannot be read"):
            read_flag(connection, MAIN_FLAG)


def test_a_kill_arrives_although_the_stored_cascade_is_broken(door: Door, database: Database) -> None:
    kill(door, MAIN_FLAG, actor="eva")
    database.raw("INSERT INTO cascade (one, models, revision) VALUES (1, 'no list', 3)")
    with door.reading() as connection:
        assert read_cascade(connection).models == ()
        flag = read_snapshot(connection).flags[MAIN_FLAG]
    assert isinstance(flag, Flag)
    assert flag.killed


def test_a_broken_access_token_lets_nobody_in_and_keeps_nobody_out(door: Door, database: Database) -> None:
    broken = create_token(door, "broken", Role.ADMIN, actor="eva")
    whole = create_token(door, "whole", Role.EVALUATE, actor="eva")
    database.raw("UPDATE access_tokens SET role = 'emperor' WHERE name = 'broken'")
    with door.reading() as connection:
        known = tokens_by_hash(connection)
    assert hash_secret(broken.secret) not in known
    assert known[hash_secret(whole.secret)].name == "whole"
