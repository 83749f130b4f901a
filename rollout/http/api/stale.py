"""A change that came too late: 412, with what was changed meanwhile."""

from __future__ import annotations

from fastapi import Response

from rollout.domain.errors import StaleChange
from rollout.domain.sentences import sentence
from rollout.http.plane import Plane
from rollout.http.problems import error_response
from rollout.store.ledger import AuditFilter, list_entries


def stale_answer(plane: Plane, error: StaleChange, subject: str) -> Response:
    """Answer 412 with the entries about a thing since the revision that was looked at."""
    with plane.door.reading() as connection:
        entries = list_entries(connection, AuditFilter(subject=subject), after=error.seen, limit=20)
    changes = [
        {"revision": entry.revision, "actor": entry.actor, "sentence": sentence(entry), "reason": entry.reason}
        for entry in entries
    ]
    return error_response(error, changes=changes)
