"""The ledger's entries: what is hashed, how it is chained, and how a break in the chain is found.

    digest(n) = SHA-256(text(n))        text(n) holds digest(n-1)

`text` is canonical JSON: ASCII, keys sorted, no white space, shares as integers, times as UTC ISO strings.
Personal data (user ids, free-text reasons) enters it as a commitment, SHA-256 over a random salt and the
value; value and salt lie beside the entry and can be erased without breaking the chain.

An unkeyed chain shows every change by anyone who does not rewrite all that follows and the head. A head
digest noted elsewhere shows those too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from rollout.domain.actor import ActorKind, kind_of, kind_read

GENESIS: Final = "0" * 64
"""The digest before the first entry."""

ERASED: Final = "(erased)"
"""What stands where personal data was erased."""


class Action(StrEnum):
    """What can happen to an installation; the vocabulary of the audit log."""

    INSTALLATION_CREATE = "installation:create"
    FLAG_CREATE = "flag:create"
    FLAG_UPDATE = "flag:update"
    FLAG_PERCENTAGE_SET = "flag:percentage:set"
    FLAG_ENABLE = "flag:enable"
    FLAG_DISABLE = "flag:disable"
    FLAG_DESCRIBE = "flag:describe"
    FLAG_KILL = "flag:kill"
    FLAG_RESTORE = "flag:restore"
    OVERRIDE_SET = "override:set"
    OVERRIDE_REMOVE = "override:remove"
    CASCADE_SET = "cascade:set"
    MODEL_WITHDRAW = "model:withdraw"
    MODEL_QUARANTINE = "model:quarantine"
    MODEL_LIFT = "model:lift"
    BREAKERS_RESET = "breakers:reset"
    ACCESS_TOKEN_CREATE = "access_token:create"  # noqa: S105 - an action's name
    ACCESS_TOKEN_REVOKE = "access_token:revoke"  # noqa: S105 - an action's name
    SESSION_INVITE = "session:invite"
    SESSION_OPEN = "session:open"
    SESSION_CLOSE = "session:close"
    SESSION_END = "session:end"


@dataclass(frozen=True, slots=True)
class Personal:
    """A value that must stay erasable: it is committed to in the chain, not written into it."""

    value: str


@dataclass(frozen=True, slots=True)
class PersonalRow:
    """What lies beside an entry: the salt and value behind one commitment; both None once erased."""

    field: str
    salt: str | None
    value: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One ledger entry as people read it, personal data filled in where it was not erased.

    `at` is aware, UTC. `action` is an `Action`, or one that a newer version wrote. `before` and `after` are JSON
    documents, None where the thing was not there. `actor_kind` is None for entries older than kinds.
    """

    revision: int
    at: datetime
    actor: str
    action: str
    subject: str
    before: Any
    after: Any
    reason: str | None
    previous_digest: str
    digest: str
    actor_kind: ActorKind | None = None


@dataclass(frozen=True, slots=True)
class SealedEntry:
    """One ledger entry as it lies in the store: the hashed text, and columns that repeat it for queries."""

    revision: int
    at: str
    actor: str
    action: str
    subject: str
    text: str
    previous_digest: str
    digest: str
    personal: tuple[PersonalRow, ...] = ()


def instant(at: datetime) -> str:
    """Write an aware datetime as UTC ISO text with microseconds: `2026-11-22T14:03:00.000000Z`."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_instant(text: str) -> datetime:
    """Read what `instant` wrote."""
    return datetime.fromisoformat(text)


def canonical(document: Any) -> str:
    """Write a JSON document in its one canonical form."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(text: str) -> str:
    """Return the SHA-256 of a canonical text as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("ascii", "backslashreplace")).hexdigest()


def commitment(salt: str, value: str) -> str:
    """Return the commitment to a value: SHA-256 over salt, a NUL and the value, in hexadecimal."""
    return hashlib.sha256(salt.encode() + b"\0" + value.encode("utf-8", "surrogatepass")).hexdigest()


def seal(
    *,
    installation: str,
    revision: int,
    at: datetime,
    actor: str,
    action: Action,
    subject: str,
    before: Any,
    after: Any,
    reason: str | None,
    previous_digest: str,
    new_salt: Callable[[], str],
) -> SealedEntry:
    """Make the entry that follows `previous_digest`.

    Args:
        installation: the installation's id, part of the text, so that entries cannot move between two.
        revision: one more than the entry before.
        at: when, aware.
        actor: who, as the log shows it; its kind becomes part of the text.
        action: what.
        subject: on which thing, such as `flag:enableLiteLLM`.
        before: the thing's state before, JSON with `Personal` leaves.
        after: and after.
        reason: free text; personal by nature.
        previous_digest: the digest of the entry before, `GENESIS` for the first.
        new_salt: returns a fresh random text of at least 128 bits each time.
    """
    rows: list[PersonalRow] = []

    def commit_to(value: Any, field: str) -> Any:
        if isinstance(value, Personal):
            salt = new_salt()
            rows.append(PersonalRow(field, salt, value.value))
            return {"commitment": commitment(salt, value.value)}
        if isinstance(value, Mapping):
            return {name: commit_to(inner, f"{field}.{name}") for name, inner in value.items()}
        return value

    document = {
        "installation": installation,
        "revision": revision,
        "at": instant(at),
        "actor": str(actor),
        "actor_kind": str(kind_of(actor)),
        "action": str(action),
        "subject": subject,
        "before": commit_to(before, "before"),
        "after": commit_to(after, "after"),
        "reason": None if reason is None else commit_to(Personal(reason), "reason"),
        "previous_digest": previous_digest,
    }
    text = canonical(document)
    return SealedEntry(
        revision,
        instant(at),
        str(actor),
        str(action),
        subject,
        text,
        previous_digest,
        digest_of(text),
        tuple(rows),
    )


def unseal(sealed: SealedEntry) -> Entry:
    """Return an entry as people read it; erased personal data reads `ERASED`.

    A text that was tampered with until it is no entry leaves what stands beside it; `verify` says more.
    """
    document = document_of(sealed.text)
    values = {row.field: row.value for row in sealed.personal}

    def fill(value: Any, field: str) -> Any:
        if isinstance(value, dict):
            if set(value) == {"commitment"}:
                known = values.get(field)
                return ERASED if known is None else known
            return {name: fill(inner, f"{field}.{name}") for name, inner in value.items()}
        return value

    return Entry(
        revision=sealed.revision,
        at=_moment_of(sealed.at),
        actor=sealed.actor,
        action=sealed.action,
        subject=sealed.subject,
        before=fill(document.get("before"), "before"),
        after=fill(document.get("after"), "after"),
        reason=fill(document.get("reason"), "reason"),
        previous_digest=sealed.previous_digest,
        digest=sealed.digest,
        actor_kind=kind_read(document.get("actor_kind")),
    )


def document_of(text: str) -> Mapping[str, Any]:
    """Read an entry's text; empty where it is none."""
    try:
        document = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _moment_of(text: str) -> datetime:
    try:
        return parse_instant(text)
    except (ValueError, TypeError):
        return datetime.min.replace(tzinfo=UTC)  # altered; it still has to be listed
