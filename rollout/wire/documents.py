"""Values as the JSON documents that the API answers and the terminal prints."""

from __future__ import annotations

from typing import Any

from rollout.domain.access import AccessToken
from rollout.domain.cascade import Cascade
from rollout.domain.errors import InvalidValue
from rollout.domain.evaluate import Evaluation
from rollout.domain.identity import check_user_id, user_id
from rollout.domain.ledger import Entry, instant
from rollout.domain.sentences import sentence
from rollout.domain.share import percentage_of
from rollout.domain.verification import Verification


def evaluation_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation in the API's shape."""
    return {**evaluation._asdict(), "percentage": percentage_of(evaluation.share)}


def targeting_key(value: object) -> str | None:
    """Check a targeting key that came over the wire; None for nobody.

    Raises:
        InvalidValue: it is no text, too long, or holds control characters.
    """
    if value is not None and not isinstance(value, str):
        raise InvalidValue("targetingKey must be text", field="targetingKey")
    user = user_id(value)
    return check_user_id(user, field="targetingKey") if user else None


def entry_document(entry: Entry) -> dict[str, Any]:
    """Return an entry in the API's shape, with the sentence that says it."""
    return {
        "revision": entry.revision,
        "at": instant(entry.at),
        "actor": entry.actor,
        "action": str(entry.action),
        "subject": entry.subject,
        "before": entry.before,
        "after": entry.after,
        "reason": entry.reason,
        "previous_digest": entry.previous_digest,
        "digest": entry.digest,
        "sentence": sentence(entry),
    }


def verification_document(found: Verification) -> dict[str, Any]:
    """Return what a walk over the ledger found, in the API's shape."""
    first = found.first_break
    return {
        "ok": found.ok,
        "entries": found.entries,
        "head": found.head,
        "first_break": None if first is None else {"revision": first.revision, "why": first.why},
    }


def cascade_document(cascade: Cascade) -> dict[str, Any]:
    """Return a cascade in the API's shape: `models` as set, `live` as asked, and why the others are out."""
    return {
        "models": list(cascade.models),
        "revision": cascade.revision,
        "live": list(cascade.live),
        "out": {
            model: {"why": str(out.why), "detail": out.detail, "at": instant(out.at)}
            for model, out in cascade.out.items()
        },
    }


def token_document(token: AccessToken) -> dict[str, Any]:
    """Return an access token without its secret."""
    return {
        "id": token.id,
        "name": token.name,
        "role": str(token.role),
        "created_at": instant(token.created_at),
        "revoked_at": instant(token.revoked_at) if token.revoked_at else None,
    }
