"""Walk the ledger's chain from its first entry to its head, and name the first revision at which it breaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rollout.domain.ledger import GENESIS, SealedEntry, commitment, digest_of, document_of


@dataclass(frozen=True, slots=True)
class Break:
    """Where the chain breaks first: the revision and a sentence that says how."""

    revision: int
    why: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a walk over the whole ledger found: entries read, the head, and the first break if any."""

    ok: bool
    entries: int
    head: str
    first_break: Break | None


def verify(entries: Iterable[SealedEntry], *, head_revision: int, head_digest: str, installation: str) -> Verification:
    """Walk the chain from the first entry to the head.

    Args:
        entries: all entries in revision order.
        head_revision: the head row's revision; 0 for an empty ledger.
        head_digest: the head row's digest; `GENESIS` for an empty ledger.
        installation: the installation's id.
    """
    count, expected, previous = 0, 1, GENESIS
    for sealed in entries:
        count += 1
        why = _fault(sealed, expected, previous, installation)
        if why is not None:
            # a removed entry shows at its own revision, an inserted or altered one at the one it bears
            return Verification(False, count, head_digest, Break(min(expected, sealed.revision), why))
        expected, previous = sealed.revision + 1, sealed.digest
    last = expected - 1
    if last != head_revision:
        why = (
            f"the ledger ends at {last}, its head says {head_revision}: entries were cut off"
            if last < head_revision
            else f"the ledger goes on to {last}, its head says {head_revision}: entries were added around the door"
        )
        return Verification(False, count, head_digest, Break(min(last, head_revision) + 1, why))
    if previous != head_digest:
        return Verification(False, count, head_digest, Break(max(last, 1), "the head's digest is not the last entry's"))
    return Verification(True, count, head_digest, None)


def _fault(sealed: SealedEntry, expected: int, previous: str, installation: str) -> str | None:
    if sealed.revision != expected:
        return f"entry {expected} is missing" if sealed.revision > expected else "an entry was inserted"
    for name in ("at", "actor", "action", "subject", "text", "previous_digest", "digest"):
        if not isinstance(getattr(sealed, name), str):  # SQLite stores anything in any column
            return f"{name} was altered: it is no text"
    if digest_of(sealed.text) != sealed.digest:
        return "the text was altered: its digest is another"
    document = document_of(sealed.text)
    if not document:
        return "the text is no entry"
    if sealed.previous_digest != previous or document.get("previous_digest") != previous:
        return "it does not follow the entry before it"
    columns = {
        "installation": installation,
        "revision": sealed.revision,
        "at": sealed.at,
        "actor": sealed.actor,
        "action": sealed.action,
        "subject": sealed.subject,
    }
    for name, value in columns.items():
        if document.get(name) != value:
            return f"{name} beside the text was altered"
    commitments = dict(_commitments(document))
    for row in sealed.personal:
        if row.field not in commitments:
            return f"personal data was added to {row.field!r}"
        if (row.value is None) != (row.salt is None):
            return f"the personal data of {row.field!r} was erased by half"
        if row.value is not None and row.salt is not None and commitment(row.salt, row.value) != commitments[row.field]:
            return f"the personal data of {row.field!r} was altered"
    missing = commitments.keys() - {row.field for row in sealed.personal}
    return f"the personal data of {min(missing)!r} was removed without a trace" if missing else None


def _commitments(document: Mapping[str, Any], field: str = "") -> Iterable[tuple[str, str]]:
    for name, value in document.items():
        where = f"{field}.{name}" if field else name
        if isinstance(value, dict):
            if set(value) == {"commitment"}:
                yield where, value["commitment"]
            else:
                yield from _commitments(value, where)
