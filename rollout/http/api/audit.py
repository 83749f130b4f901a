"""The ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from rollout.domain.errors import InvalidValue
from rollout.domain.ledger import unseal
from rollout.http.api.documents import Wanted, parse_moment
from rollout.http.auth import ThePlane, Viewer
from rollout.store.ledger import AuditFilter, list_entries, read_entry, read_head, verify_ledger
from rollout.wire.documents import entry_document, verification_document

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


def _moment(text: str | None, field: str) -> datetime | None:
    if not text:
        return None
    try:
        return parse_moment(text)
    except ValueError as error:
        raise InvalidValue(f"{field}: {error}", field=field) from None


@router.get("")
def list_audit(
    plane: ThePlane,
    _: Viewer,
    *,
    actor: Wanted | None = None,
    action: Wanted | None = None,
    subject: Wanted | None = None,
    user: Wanted | None = None,
    since: str | None = None,
    until: str | None = None,
    before: Annotated[int | None, Query(ge=1, lt=2**31)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> dict[str, Any]:
    """List entries, newest first; `next` is the `before` of the following page, null on the last."""
    wanted = AuditFilter(actor, action, subject, user, _moment(since, "since"), _moment(until, "until"))
    with plane.door.reading() as connection:
        entries = list_entries(connection, wanted, before=before, limit=limit + 1)
    more = len(entries) > limit
    entries = entries[:limit]
    return {"entries": list(map(entry_document, entries)), "next": entries[-1].revision if more else None}


@router.get("/head")
def show_head(plane: ThePlane, _: Viewer) -> dict[str, Any]:
    """Show the head: note its digest elsewhere, and a rewritten ledger shows."""
    with plane.door.reading() as connection:
        head = read_head(connection)
    return {"revision": head.revision, "digest": head.digest}


@router.get("/verify")
def verify(plane: ThePlane, _: Viewer) -> dict[str, Any]:
    """Walk the whole chain."""
    with plane.door.reading() as connection:
        return verification_document(verify_ledger(connection))


@router.get("/{revision}")
def show_entry(revision: Annotated[int, Path(ge=1, lt=2**31)], plane: ThePlane, _: Viewer) -> dict[str, Any]:
    """Show one entry."""
    with plane.door.reading() as connection:
        return entry_document(unseal(read_entry(connection, revision)))
