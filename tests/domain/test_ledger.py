"""Entries, their chain, and how a break in it is found."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.actor import SYSTEM, Actor, ActorKind
from rollout.domain.ledger import (
    ERASED,
    GENESIS,
    Action,
    Personal,
    PersonalRow,
    SealedEntry,
    canonical,
    commitment,
    digest_of,
    instant,
    parse_instant,
    seal,
    unseal,
)
from rollout.domain.verification import Break, verify

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
AT = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
INSTALLATION = "an-installation"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
any_text = st.text(max_size=30)  # lone surrogates too: they are escaped, never an error
names = st.text(st.characters(exclude_characters="."), min_size=1, max_size=12).filter(
    lambda name: name != "commitment"
)
scalars = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | any_text
leaves = scalars | st.lists(scalars, max_size=3) | st.builds(Personal, any_text)
documents = st.none() | st.dictionaries(
    names, st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6), max_size=5
)
moments = st.integers(0, 4 * 10**15).map(lambda microseconds: EPOCH + timedelta(microseconds=microseconds))


def an_entry(
    revision: int = 1,
    previous: str = GENESIS,
    *,
    before: Any = None,
    after: Any = None,
    reason: str | None = None,
    actor: str = "eva",
    at: datetime = AT,
) -> SealedEntry:
    salts = count(revision * 1_000)
    return seal(
        installation=INSTALLATION,
        revision=revision,
        at=at,
        actor=actor,
        action=Action.FLAG_PERCENTAGE_SET,
        subject="flag:enableLiteLLM",
        before=before,
        after=after,
        reason=reason,
        previous_digest=previous,
        new_salt=lambda: f"{next(salts):032x}",
    )


def a_chain(length: int) -> list[SealedEntry]:
    entries: list[SealedEntry] = []
    previous = GENESIS
    for revision in range(1, length + 1):
        after = {"share": revision, "user": Personal(f"user-{revision}")}
        entries.append(an_entry(revision, previous, after=after, reason=f"reason {revision}"))
        previous = entries[-1].digest
    return entries


def first_break(
    entries: list[SealedEntry], *, revision: int, digest: str, installation: str = INSTALLATION
) -> Break | None:
    found = verify(entries, head_revision=revision, head_digest=digest, installation=installation)
    assert found.ok is (found.first_break is None)
    assert found.head == digest
    return found.first_break


def plain(value: Any) -> Any:
    """Return a document as it reads once it is unsealed."""
    if isinstance(value, Personal):
        return value.value
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return value


def erased(value: Any) -> Any:
    """Return a document as it reads once its personal data is gone."""
    if isinstance(value, Personal):
        return ERASED
    if isinstance(value, dict):
        return {name: erased(inner) for name, inner in value.items()}
    return value


@given(documents, documents, st.none() | any_text, any_text, moments)
def test_what_was_sealed_is_unsealed_as_it_was(
    before: Any, after: Any, reason: str | None, actor: str, at: datetime
) -> None:
    sealed = an_entry(before=before, after=after, reason=reason, actor=actor, at=at)
    entry = unseal(sealed)
    assert (entry.before, entry.after, entry.reason) == (plain(before), plain(after), reason)
    assert (entry.actor, entry.at, entry.action) == (actor, at, Action.FLAG_PERCENTAGE_SET)
    assert (entry.previous_digest, entry.digest) == (GENESIS, digest_of(sealed.text))
    assert sealed.text.isascii()
    assert json.loads(sealed.text)["revision"] == 1
    assert first_break([sealed], revision=1, digest=sealed.digest) is None


@given(documents, documents, st.none() | texts)
def test_erasing_keeps_the_chain_and_leaves_nothing_to_read(before: Any, after: Any, reason: str | None) -> None:
    sealed = an_entry(before=before, after=after, reason=reason)
    gone = replace(sealed, personal=tuple(replace(row, salt=None, value=None) for row in sealed.personal))
    assert first_break([gone], revision=1, digest=gone.digest) is None
    entry = unseal(gone)
    assert (entry.before, entry.after) == (erased(before), erased(after))
    assert entry.reason == (None if reason is None else ERASED)


@given(st.dictionaries(names, scalars, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(document: dict[str, Any], chance: Any) -> None:
    shuffled = list(document.items())
    chance.shuffle(shuffled)
    assert canonical(dict(shuffled)) == canonical(document)
    assert an_entry(after=dict(shuffled)).digest == an_entry(after=document).digest


def test_the_canonical_text_is_pinned() -> None:
    document = {"b": [1, None, True], "a": "ü\u2028", "ß": {"y": 1, "x": 2}}
    assert canonical(document) == r'{"a":"\u00fc\u2028","b":[1,null,true],"\u00df":{"x":2,"y":1}}'
    entry = an_entry(after={"share": 10_000, "user": Personal("anna")}, reason="why")
    assert entry.text == (
        '{"action":"flag:percentage:set","actor":"eva","actor_kind":"person",'
        '"after":{"share":10000,"user":{"commitment":"' + commitment(f"{1_000:032x}", "anna") + '"}},'
        '"at":"2026-11-22T14:03:00.000000Z","before":null,"installation":"an-installation",'
        f'"previous_digest":"{GENESIS}",'
        '"reason":{"commitment":"' + commitment(f"{1_001:032x}", "why") + '"},'
        '"revision":1,"subject":"flag:enableLiteLLM"}'
    )
    assert [(row.field, row.value) for row in entry.personal] == [("after.user", "anna"), ("reason", "why")]


def test_a_number_that_is_none_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"share": float("nan")})


def test_personal_data_in_a_list_is_refused_because_it_could_not_be_erased() -> None:
    with pytest.raises(TypeError, match="Personal"):
        an_entry(after={"users": [Personal("anna")]})


@given(texts, texts)
def test_a_commitment_says_nothing_without_its_salt(one: str, other: str) -> None:
    assert commitment("salt", one) != commitment("another salt", one)
    assert (commitment("salt", one) == commitment("salt", other)) is (one == other)


@given(moments)
def test_a_moment_is_written_in_order_and_read_back(at: datetime) -> None:
    text = instant(at)
    assert len(text) == 27
    assert parse_instant(text) == at
    assert instant(at.astimezone(timezone(timedelta(hours=5, minutes=30)))) == text
    assert instant(at + timedelta(microseconds=1)) > text


def test_an_empty_ledger_is_whole() -> None:
    assert first_break([], revision=0, digest=GENESIS) is None
    assert first_break([], revision=3, digest="f" * 64) is not None


def alter_text(entry: SealedEntry) -> SealedEntry:
    return replace(entry, text=entry.text.replace('"share":', '"share":9'))


ALTERATIONS: dict[str, Callable[[SealedEntry], SealedEntry]] = {
    "text": alter_text,
    "space": lambda entry: replace(entry, text=entry.text + " "),
    "at": lambda entry: replace(entry, at=instant(AT + timedelta(seconds=1))),
    "actor": lambda entry: replace(entry, actor="jan"),
    "action": lambda entry: replace(entry, action=str(Action.FLAG_KILL)),
    "subject": lambda entry: replace(entry, subject="flag:other"),
    "previous_digest": lambda entry: replace(entry, previous_digest="f" * 64),
    "digest": lambda entry: replace(entry, digest="f" * 64),
    "value": lambda entry: replace(entry, personal=(replace(entry.personal[0], value="otto"), *entry.personal[1:])),
    "salt": lambda entry: replace(entry, personal=(replace(entry.personal[0], salt="salt"), *entry.personal[1:])),
    "half": lambda entry: replace(entry, personal=(replace(entry.personal[0], value=None), *entry.personal[1:])),
    "less": lambda entry: replace(entry, personal=entry.personal[1:]),
    "more": lambda entry: replace(entry, personal=(*entry.personal, PersonalRow("before.user", "salt", "otto"))),
    "none": lambda entry: replace(entry, text=None),  # type: ignore[arg-type]  # a database may hold anything
}


@given(st.integers(1, 12), st.data())
def test_any_entry_altered_is_named(length: int, data: st.DataObject) -> None:
    entries = a_chain(length)
    head = entries[-1].digest
    place = data.draw(st.integers(0, length - 1))
    entries[place] = ALTERATIONS[data.draw(st.sampled_from(sorted(ALTERATIONS)))](entries[place])
    found = first_break(entries, revision=length, digest=head)
    assert found is not None
    assert found.revision == place + 1


@given(st.integers(1, 12), st.data())
def test_any_character_of_a_text_counts(length: int, data: st.DataObject) -> None:
    entries = a_chain(length)
    head = entries[-1].digest
    place = data.draw(st.integers(0, length - 1))
    text = entries[place].text
    where = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(st.characters().filter(lambda other: other != text[where]))
    entries[place] = replace(entries[place], text=text[:where] + character + text[where + 1 :])
    assert first_break(entries, revision=length, digest=head) == Break(
        place + 1, "the text was altered: its digest is another"
    )


@given(st.integers(1, 12), st.data())
def test_any_entries_removed_show_at_the_first_of_them(length: int, data: st.DataObject) -> None:
    entries = a_chain(length)
    removed = data.draw(st.sets(st.integers(1, length), min_size=1))
    left = [entry for entry in entries if entry.revision not in removed]
    found = first_break(left, revision=length, digest=entries[-1].digest)
    assert found is not None
    assert found.revision == min(removed)


@given(st.integers(1, 12), st.data())
def test_any_entry_inserted_shows(length: int, data: st.DataObject) -> None:
    entries = a_chain(length)
    head = entries[-1].digest
    place = data.draw(st.integers(1, length + 1))
    forged = an_entry(place, entries[place - 2].digest if place > 1 else GENESIS, after={"share": 100_000})
    moved = [replace(entry, revision=entry.revision + (entry.revision >= place)) for entry in entries]
    found = first_break([*moved[: place - 1], forged, *moved[place - 1 :]], revision=length, digest=head)
    assert found is not None
    # the forged entry itself follows well; what was there before it does not follow it
    assert found.revision in {place, place + 1}


@given(st.integers(1, 8), st.data())
def test_history_rewritten_from_an_entry_on_shows_at_the_head(length: int, data: st.DataObject) -> None:
    entries = a_chain(length)
    head = entries[-1].digest
    place = data.draw(st.integers(0, length - 1))
    previous = entries[place].previous_digest
    for revision in range(place + 1, length + 1):
        entries[revision - 1] = an_entry(revision, previous, after={"share": 0})
        previous = entries[revision - 1].digest
    assert first_break(entries, revision=length, digest=head) == Break(
        length, "the head's digest is not the last entry's"
    )


def test_entries_of_another_installation_do_not_fit() -> None:
    entries = a_chain(3)
    found = first_break(entries, revision=3, digest=entries[-1].digest, installation="another")
    assert found == Break(1, "installation beside the text was altered")


def test_a_head_that_says_more_or_less_names_where() -> None:
    entries = a_chain(3)
    cut = first_break(entries, revision=5, digest="f" * 64)
    longer = first_break(entries, revision=2, digest=entries[1].digest)
    assert cut is not None
    assert longer is not None
    assert (cut.revision, "cut off" in cut.why) == (4, True)
    assert (longer.revision, "around the door" in longer.why) == (3, True)


@pytest.mark.parametrize(
    ("actor", "kind"),
    [
        (Actor("token deploy", ActorKind.TOKEN), ActorKind.TOKEN),
        (Actor("token deploy", ActorKind.PERSON), ActorKind.PERSON),
        (SYSTEM, ActorKind.SYSTEM),
        (pickle.loads(pickle.dumps(SYSTEM)), ActorKind.SYSTEM),
        (copy.deepcopy(SYSTEM), ActorKind.SYSTEM),
        ("rollout", ActorKind.PERSON),
    ],
)
def test_the_kind_of_actor_is_part_of_what_is_hashed(actor: str, kind: ActorKind) -> None:
    sealed = an_entry(actor=actor)
    assert unseal(sealed).actor_kind is kind
    assert type(sealed.actor) is str
    other = replace(sealed, text=sealed.text.replace(f'"actor_kind":"{kind}"', '"actor_kind":"other"'))
    assert other.text != sealed.text
    found = verify([other], head_revision=1, head_digest=other.digest, installation=INSTALLATION)
    assert found.first_break == Break(1, "the text was altered: its digest is another")


def test_an_entry_from_before_there_were_kinds_holds_and_does_not_guess_one() -> None:
    new = an_entry(actor="rollout")
    text = new.text.replace('"actor_kind":"person",', "")
    old = replace(new, text=text, digest=digest_of(text))
    assert verify([old], head_revision=1, head_digest=old.digest, installation=INSTALLATION).ok
    assert unseal(old).actor_kind is None
    assert unseal(replace(new, text=new.text.replace('"person"', '"later"'))).actor_kind is None
