"""Values as the JSON documents that the API answers and the terminal prints."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rollout.domain.access import AccessToken, Session
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
        "actor_kind": entry.actor_kind,
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
        "revoked_at": _moment(token.revoked_at),
        "expires_at": _moment(token.expires_at),
        "last_used_at": _moment(token.last_used_at),
    }


def session_document(session: Session, *, own: bool) -> dict[str, Any]:
    """Return a session or an unused sign-in link without its secret; `own` says whether the caller came with it."""
    return {
        "id": session.id,
        "name": session.name,
        "role": str(session.role),
        "state": "open" if session.opened else "unused",
        "own": own,
        "created_at": _moment(session.created_at),
        "opened_at": _moment(session.opened_at),
        "expires_at": _moment(session.expires_at if session.opened else session.code_expires_at),
        "last_used_at": _moment(session.last_used_at),
    }


def _moment(at: datetime | None) -> str | None:
    return None if at is None else instant(at)
