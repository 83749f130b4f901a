"""Entries as sentences for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from rollout.domain.ledger import ERASED, GENESIS, Action, Entry
from rollout.domain.sentences import FieldChange, field_changes, sentence

FLAG = {"description": "", "enabled": True, "killed": False, "share": 10_000, "salt": "s", "hash_version": 1}
ANNA = {"user": "anna", "variant": "on", "expires_at": None}


def an_entry(action: Action, subject: str = "flag:enableLiteLLM", *, before: Any = None, after: Any = None) -> Entry:
    at = datetime(2026, 11, 22, tzinfo=UTC)
    return Entry(1, at, "eva", action, subject, before, after, None, GENESIS, GENESIS)


SENTENCES: dict[Action, tuple[Entry, str]] = {
    Action.INSTALLATION_CREATE: (
        an_entry(Action.INSTALLATION_CREATE, "installation", after={"id": "1"}),
        "created this installation",
    ),
    Action.FLAG_CREATE: (an_entry(Action.FLAG_CREATE, after=FLAG), "created the flag enableLiteLLM at 10 %"),
    Action.FLAG_PERCENTAGE_SET: (
        an_entry(Action.FLAG_PERCENTAGE_SET, before=FLAG, after={**FLAG, "share": 12_500}),
        "set enableLiteLLM from 10 % to 12.5 %",
    ),
    Action.FLAG_ENABLE: (
        an_entry(Action.FLAG_ENABLE, before={**FLAG, "enabled": False}, after=FLAG),
        "enabled enableLiteLLM at 10 %",
    ),
    Action.FLAG_DISABLE: (
        an_entry(Action.FLAG_DISABLE, before=FLAG, after={**FLAG, "enabled": False}),
        "disabled enableLiteLLM, which stood at 10 %",
    ),
    Action.FLAG_DESCRIBE: (
        an_entry(Action.FLAG_DESCRIBE, before=FLAG, after={**FLAG, "description": "new"}),
        "described enableLiteLLM",
    ),
    Action.FLAG_UPDATE: (
        an_entry(Action.FLAG_UPDATE, before=FLAG, after={**FLAG, "enabled": False, "share": 0, "description": "new"}),
        "changed enableLiteLLM: description from - to new, enabled from yes to no, percentage from 10 % to 0 %",
    ),
    Action.FLAG_KILL: (
        an_entry(Action.FLAG_KILL, before=FLAG, after={**FLAG, "killed": True}),
        "STOPPED enableLiteLLM: everybody direct",
    ),
    Action.FLAG_RESTORE: (
        an_entry(Action.FLAG_RESTORE, before={**FLAG, "killed": True}, after=FLAG),
        "restored enableLiteLLM: back to 10 %",
    ),
    Action.OVERRIDE_SET: (
        an_entry(Action.OVERRIDE_SET, "override:enableLiteLLM", after=ANNA),
        "forced anna on for enableLiteLLM",
    ),
    Action.OVERRIDE_REMOVE: (
        an_entry(Action.OVERRIDE_REMOVE, "override:enableLiteLLM", before=ANNA),
        "removed anna (forced on) from enableLiteLLM",
    ),
    Action.CASCADE_SET: (
        an_entry(Action.CASCADE_SET, "cascade", after={"models": ["a/b:free", "c/d"]}),
        "set the cascade to a/b:free, c/d",
    ),
    Action.MODEL_WITHDRAW: (
        an_entry(Action.MODEL_WITHDRAW, "model:a/b:free", after={"why": "withdrawn", "detail": "no longer listed"}),
        "took a/b:free out of the live order: no longer listed",
    ),
    Action.MODEL_QUARANTINE: (
        an_entry(Action.MODEL_QUARANTINE, "model:a/b:free", after={"why": "cost", "detail": "an answer cost $0.01"}),
        "QUARANTINED a/b:free: an answer cost $0.01",
    ),
    Action.MODEL_LIFT: (
        an_entry(Action.MODEL_LIFT, "model:a/b:free", before={"why": "cost", "detail": "an answer cost $0.01"}),
        "put a/b:free back into the live order; it was out: an answer cost $0.01",
    ),
    Action.BREAKERS_RESET: (
        an_entry(Action.BREAKERS_RESET, "breakers", after={"which": None, "reset": ["litellm", "quota"]}),
        "reset every breaker and the remembered caps (forgotten: litellm, quota)",
    ),
    Action.ACCESS_TOKEN_CREATE: (
        an_entry(Action.ACCESS_TOKEN_CREATE, "access_token:1", after={"name": "ci", "role": "operator"}),
        "created the access token ci (operator)",
    ),
    Action.ACCESS_TOKEN_REVOKE: (
        an_entry(Action.ACCESS_TOKEN_REVOKE, "access_token:1", before={"name": "ci", "role": "operator"}),
        "revoked the access token ci (operator)",
    ),
    Action.SESSION_INVITE: (
        an_entry(Action.SESSION_INVITE, "session:1", after={"name": "eva", "role": "admin"}),
        "made a sign-in link for eva (admin)",
    ),
    Action.SESSION_OPEN: (
        an_entry(Action.SESSION_OPEN, "session:1", after={"name": "eva", "role": "admin"}),
        "signed in as admin",
    ),
    Action.SESSION_CLOSE: (
        an_entry(Action.SESSION_CLOSE, "session:1", before={"name": "eva", "role": "admin"}),
        "signed out",
    ),
    Action.SESSION_END: (
        an_entry(Action.SESSION_END, "session:1", before={"name": "eva", "role": "admin", "opened": True}),
        "ended the session of eva (admin)",
    ),
}


@pytest.mark.parametrize("action", Action)
def test_every_action_has_its_sentence(action: Action) -> None:
    entry, expected = SENTENCES[action]
    assert entry.action is action
    assert sentence(entry) == expected


def test_a_restore_of_a_disabled_flag_says_so() -> None:
    disabled = {**FLAG, "enabled": False}
    entry = an_entry(Action.FLAG_RESTORE, before={**disabled, "killed": True}, after=disabled)
    assert sentence(entry) == "restored enableLiteLLM: back to disabled"


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (None, "asked the running servers to reset quota"),
        ([], "reset quota: nothing had to be"),
        (["quota"], "reset quota"),  # what was asked for is not said twice
    ],
)
def test_a_reset_says_what_it_came_to(done: list[str] | None, said: str) -> None:
    entry = an_entry(Action.BREAKERS_RESET, "breakers", after={"which": "quota", "reset": done})
    assert sentence(entry) == said


def test_an_override_says_until_when() -> None:
    after = {**ANNA, "expires_at": "2026-12-24T18:00:00.000000Z"}
    entry = an_entry(Action.OVERRIDE_SET, "override:enableLiteLLM", after=after)
    assert sentence(entry) == "forced anna on for enableLiteLLM until 2026-12-24T18:00:00.000000Z"


@pytest.mark.parametrize("action", Action)
def test_an_entry_with_nothing_in_it_still_has_a_sentence(action: Action) -> None:
    assert sentence(an_entry(action))


def test_erased_personal_data_is_said_to_be_erased() -> None:
    entry = an_entry(Action.OVERRIDE_SET, "override:enableLiteLLM", after={**ANNA, "user": ERASED})
    assert sentence(entry) == "forced (erased) on for enableLiteLLM"


def test_only_fields_that_differ_are_listed_in_a_stable_order() -> None:
    entry = an_entry(Action.FLAG_UPDATE, before=FLAG, after={**FLAG, "share": 0, "killed": True})
    assert field_changes(entry) == (FieldChange("killed", "no", "yes"), FieldChange("percentage", "10 %", "0 %"))


def test_what_was_not_there_is_a_dash() -> None:
    assert field_changes(an_entry(Action.OVERRIDE_SET, after={"user": "anna", "models": ["a", "b"]})) == (
        FieldChange("models", "-", "a, b"),
        FieldChange("user", "-", "anna"),
    )
    assert field_changes(an_entry(Action.OVERRIDE_REMOVE)) == ()
