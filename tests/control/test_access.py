"""Who may come in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from rollout.control.access import (
    CODE_LIFETIME,
    SESSION_LIFETIME,
    TOKEN_PREFIX,
    create_token,
    end_session,
    invite,
    redeem,
    revoke,
    session_of,
    sign_out,
)
from rollout.control.flags import set_override
from rollout.domain.access import hash_secret
from rollout.domain.errors import InvalidValue, NotFound, NotSignedIn
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.domain.ledger import Action
from rollout.domain.roles import Role
from rollout.domain.sentences import sentence
from rollout.store.access import list_sessions, list_tokens, note_uses, tokens_by_hash, unused_codes
from rollout.store.door import Door
from rollout.store.ledger import AuditFilter, list_entries, read_head, verify_ledger
from tests.databases import Clock, Database


def actions(door: Door) -> list[str]:
    with door.reading() as connection:
        assert verify_ledger(connection).ok
        return [entry.action for entry in reversed(list_entries(connection, AuditFilter(), after=2))]


def test_an_access_token_is_known_by_its_hash_until_it_is_revoked(door: Door) -> None:
    new = create_token(door, " ci ", Role.OPERATOR, actor="eva", reason="the pipeline")
    assert new.secret.startswith(TOKEN_PREFIX)
    assert (new.token.name, new.token.role) == ("ci", Role.OPERATOR)
    with door.reading() as connection:
        assert tokens_by_hash(connection) == {hash_secret(new.secret): new.token}
    revoked = revoke(door, new.token.id, actor="eva")
    assert revoked.id == new.token.id
    with door.reading() as connection:
        assert tokens_by_hash(connection) == {}
        assert [token.revoked_at is not None for token in list_tokens(connection)] == [True]
    revoke(door, new.token.id, actor="jan")  # once is enough
    assert actions(door) == [Action.ACCESS_TOKEN_CREATE, Action.ACCESS_TOKEN_REVOKE]


def test_a_token_can_be_revoked_by_a_name_that_is_its_own(door: Door) -> None:
    create_token(door, "ci", Role.EVALUATE, actor="eva")
    revoke(door, " ci ", actor="eva")  # as it may have been given when it was made
    first = create_token(door, "ci", Role.EVALUATE, actor="eva")
    second = create_token(door, "ci", Role.VIEWER, actor="eva")
    with pytest.raises(NotFound, match="2 access tokens are called 'ci'"):
        revoke(door, "ci", actor="eva")
    revoke(door, first.token.id, actor="eva")
    assert revoke(door, "ci", actor="eva").id == second.token.id
    with pytest.raises(NotFound, match="no access token 'nobody'"):
        revoke(door, "nobody", actor="eva")


def test_a_sign_in_code_opens_one_session_once(door: Door) -> None:
    code = invite(door, "eva", Role.ADMIN, actor="rollout")
    opened = redeem(door, f"  {code}\n")
    session = session_of(door, opened.secret)
    assert (session.name, session.role, session.opened) == ("eva", Role.ADMIN, True)
    with pytest.raises(NotSignedIn, match="used already"):
        redeem(door, code)
    assert actions(door) == [Action.SESSION_INVITE, Action.SESSION_OPEN]


def test_a_sign_in_code_runs_out(door: Door, clock: Clock) -> None:
    kept, late = (invite(door, "eva", Role.ADMIN, actor="rollout") for _ in range(2))
    clock.move(CODE_LIFETIME - timedelta(microseconds=1))
    redeem(door, kept)
    clock.move(timedelta(microseconds=1))
    with pytest.raises(NotSignedIn, match="ran out"):
        redeem(door, late)


@pytest.mark.parametrize("wrong", ["", "nonsense", "\ud800", "\0", "x" * 10_000])
def test_a_wrong_code_opens_nothing(wrong: str, door: Door, database: Database) -> None:
    invite(door, "eva", Role.ADMIN, actor="rollout")
    before = database.dump()
    with pytest.raises(NotSignedIn):
        redeem(door, wrong)
    with pytest.raises(NotSignedIn):
        session_of(door, wrong)
    sign_out(door, wrong)
    assert database.dump() == before


def test_a_session_ends_by_itself_and_by_signing_out(door: Door, clock: Clock) -> None:
    first, second = (redeem(door, invite(door, "eva", Role.VIEWER, actor="rollout")) for _ in range(2))
    sign_out(door, first.secret)
    sign_out(door, first.secret)
    with pytest.raises(NotSignedIn, match="sign in again"):
        session_of(door, first.secret)
    clock.move(SESSION_LIFETIME - timedelta(microseconds=1))
    assert session_of(door, second.secret).name == "eva"
    clock.move(timedelta(microseconds=1))
    with pytest.raises(NotSignedIn, match="sign in again"):
        session_of(door, second.secret)
    assert actions(door).count(Action.SESSION_CLOSE) == 1


def test_a_closed_session_is_not_opened_again_by_its_code(door: Door) -> None:
    code = invite(door, "eva", Role.VIEWER, actor="rollout")
    sign_out(door, redeem(door, code).secret)
    with pytest.raises(NotSignedIn):
        redeem(door, code)


def test_sessions_long_past_are_dropped_and_the_rest_kept(door: Door, clock: Clock, database: Database) -> None:
    redeem(door, invite(door, "gone", Role.VIEWER, actor="rollout"))
    invite(door, "never came", Role.VIEWER, actor="rollout")
    clock.move(SESSION_LIFETIME - timedelta(hours=1))
    kept = redeem(door, invite(door, "kept", Role.VIEWER, actor="rollout"))
    clock.move(timedelta(hours=2))
    invite(door, "new", Role.VIEWER, actor="rollout")
    assert {name for (name,) in database.raw("SELECT name FROM sessions")} == {"kept", "new"}
    assert session_of(door, kept.secret).name == "kept"


def test_secrets_are_stored_as_hashes_alone(door: Door, database: Database) -> None:
    token = create_token(door, "ci", Role.EVALUATE, actor="eva")
    code = invite(door, "eva", Role.ADMIN, actor="rollout")
    opened = redeem(door, code)
    everything = repr(database.dump())
    for secret in (token.secret, code, opened.secret):
        assert secret not in everything
        assert hash_secret(secret) in everything
        assert hash_secret(secret) not in repr(database.dump()["ledger"])
    assert token.secret not in repr(token)
    assert opened.secret not in repr(opened)


@pytest.mark.parametrize("text", ["nul\0", "two\nlines", "\ud800", "x" * 501, 17])
def test_names_and_reasons_that_cannot_be_shown_change_nothing(text: Any, door: Door, database: Database) -> None:
    token = create_token(door, "ci", Role.EVALUATE, actor="eva")
    before = database.dump()
    with pytest.raises(InvalidValue):
        create_token(door, text, Role.EVALUATE, actor="eva")
    with pytest.raises(InvalidValue):
        create_token(door, "name", Role.EVALUATE, actor="eva", reason=text)
    with pytest.raises(InvalidValue):
        revoke(door, token.token.id, actor="eva", reason=text)
    with pytest.raises(InvalidValue):
        invite(door, text, Role.EVALUATE, actor="eva")
    assert database.dump() == before


def test_an_access_token_that_ends_says_so_in_the_ledger(door: Door, clock: Clock) -> None:
    ends = clock() + timedelta(days=30)
    made = create_token(door, "ci", Role.VIEWER, actor="eva", expires_at=ends)
    assert made.token.holds(ends - timedelta(microseconds=1))
    assert not made.token.holds(ends)
    with door.reading() as connection:
        (entry,) = list_entries(connection, AuditFilter(action=Action.ACCESS_TOKEN_CREATE))
    assert entry.after == {"name": "ci", "role": "viewer", "expires_at": "2026-12-22T14:03:00.000000Z"}


@pytest.mark.parametrize("early", [timedelta(0), timedelta(microseconds=1), timedelta(days=400)])
def test_an_access_token_that_would_have_ended_already_is_not_made(
    early: timedelta, door: Door, clock: Clock, database: Database
) -> None:
    before = database.dump()
    with pytest.raises(InvalidValue, match="past"):
        create_token(door, "ci", Role.VIEWER, actor="eva", expires_at=clock() - early)
    assert database.dump() == before


def test_a_session_and_an_unused_link_can_be_ended_by_their_ids_once(door: Door) -> None:
    opened, waiting = (
        redeem(door, invite(door, "ben", Role.VIEWER, actor="eva")),
        invite(door, "jan", Role.ADMIN, actor="eva"),
    )
    with door.reading() as connection:
        ids = {each.name: each.id for each in list_sessions(connection, door.clock())}
    for name in ("ben", "jan", "ben", "jan"):
        assert end_session(door, ids[name], actor="eva", reason="over").name == name
    with pytest.raises(NotSignedIn):
        session_of(door, opened.secret)
    with pytest.raises(NotSignedIn):
        redeem(door, waiting)
    with door.reading() as connection:
        assert list_sessions(connection, door.clock()) == []
        assert unused_codes(connection) == frozenset()
        ends = list_entries(connection, AuditFilter(action=Action.SESSION_END))
    assert [sentence(entry) for entry in ends] == [
        "ended the unused sign-in link of jan (admin)",
        "ended the session of ben (viewer)",
    ]


@pytest.mark.parametrize("wrong", ["", "nix", "\0", "\ud800", "x" * 10_000, "0" * 16])
def test_what_is_no_session_is_not_ended(wrong: str, door: Door, database: Database) -> None:
    redeem(door, invite(door, "ben", Role.VIEWER, actor="eva"))
    before = database.dump()
    with pytest.raises(NotFound, match="rollout sessions list"):
        end_session(door, wrong, actor="eva")
    assert database.dump() == before


def test_what_was_used_is_noted_without_an_entry(door: Door, clock: Clock) -> None:
    token = create_token(door, "ci", Role.VIEWER, actor="eva").token
    session = redeem(door, invite(door, "ben", Role.VIEWER, actor="eva")).session
    with door.reading() as connection:
        before = read_head(connection)
    clock.move(timedelta(minutes=1))
    with door.noting() as connection:
        note_uses(connection, [token.id, "gone"], [session.id], clock())
    with door.reading() as connection:
        assert read_head(connection) == before
        assert [each.last_used_at for each in list_tokens(connection)] == [clock()]
        assert [each.last_used_at for each in list_sessions(connection, clock())] == [clock()]


def test_a_wrong_code_does_not_wait_for_a_writer(door: Door) -> None:
    with door.writing(), pytest.raises(NotSignedIn):
        redeem(door, "a guess")


def test_a_clock_that_was_ahead_once_is_not_latched(door: Door, clock: Clock) -> None:
    right = clock.now
    clock.move(timedelta(days=400))
    invite(door, "eva", Role.ADMIN, actor="cli:eva")
    clock.now = right
    code = invite(door, "jan", Role.ADMIN, actor="cli:jan")
    opened = redeem(door, code)
    assert opened.session.code_expires_at == right + CODE_LIFETIME
    assert opened.expires_at == right + SESSION_LIFETIME
    soon = right + timedelta(days=30)
    set_override(door, MAIN_FLAG, "ada", Variant.ON, actor="jan", expires_at=soon)
    with pytest.raises(InvalidValue, match="past"):
        set_override(door, MAIN_FLAG, "bob", Variant.ON, actor="jan", expires_at=right - timedelta(days=1))
    with door.reading() as connection:
        moments = [entry.at for entry in list_entries(connection, AuditFilter(), limit=50)]
        assert moments == sorted(moments, reverse=True)  # the ledger's own order stays that of its revisions
        assert verify_ledger(connection).ok
    clock.move(CODE_LIFETIME)
    with pytest.raises(NotSignedIn):
        redeem(door, code)
