"""The audit log as sentences, and the walk over its chain."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from rollout.domain.errors import InvalidValue
from rollout.domain.ledger import Entry
from rollout.http.auth import ThePlane, Viewer
from rollout.http.pages.render import fragment, page, wants_fragment
from rollout.http.pages.words import ACTIONS, parse_moment
from rollout.store.ledger import AuditFilter, list_entries, read_head, verify_ledger
from rollout.wire.documents import entry_document

router = APIRouter(include_in_schema=False)

PAGE: Final = 50
"""Entries on one page."""


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What the log was narrowed to, as typed."""

    actor: str
    action: str
    subject: str
    user: str
    since: str
    until: str

    @property
    def query(self) -> str:
        """The same as a query string, empty fields left out."""
        named = {name: getattr(self, name) for name in self.__slots__}
        return urlencode({name: value for name, value in named.items() if value})

    @property
    def wanted(self) -> AuditFilter:
        """The filter this stands for."""
        return AuditFilter(
            actor=self.actor or None,
            action=self.action or None,
            subject=self.subject or None,
            user=self.user or None,
            since=parse_moment(self.since, field="since"),
            until=parse_moment(self.until, field="until"),
        )


@router.get("/audit")
def show_audit(
    request: Request,
    plane: ThePlane,
    caller: Viewer,
    actor: str = "",
    action: str = "",
    subject: str = "",
    user: str = "",
    since: str = "",
    until: str = "",
    before: str = "",
) -> Response:
    """List the ledger, newest first, fifty entries at a time."""
    narrowed = Narrowed(actor.strip(), action, subject.strip(), user, since, until)
    try:
        wanted = narrowed.wanted
        older_than = _revision(before)
        error = None
    except InvalidValue as refused:
        wanted, older_than, error = AuditFilter(), None, refused.message
    with plane.door.reading() as connection:
        head = read_head(connection)
        found = list_entries(connection, wanted, before=older_than, limit=PAGE + 1) if error is None else []
    entries = found[:PAGE]
    older = f"/audit?{_and(narrowed.query)}before={entries[-1].revision}" if len(found) > PAGE else None
    values: dict[str, Any] = {"entries": entries, "older": older, "narrowed": narrowed, "raw": raw}
    if wants_fragment(request):
        return fragment(request, plane, caller, "_entries.html", status=422 if error else 200, **values)
    return page(
        request,
        plane,
        caller,
        "audit.html",
        status=422 if error else 200,
        head=head,
        actions=ACTIONS,
        error=error,
        paged=older_than is not None,
        **values,
    )


@router.get("/audit/verify")
def show_verify(request: Request, plane: ThePlane, caller: Viewer) -> Response:
    """Walk the whole chain and say what was found."""
    with plane.door.reading() as connection:
        found = verify_ledger(connection)
    return page(request, plane, caller, "verify.html", found=found, checked_at=plane.now())


def raw(entry: Entry) -> str:
    """Write an entry as JSON, as the API shows it, without the sentence that stands above it."""
    document = {name: value for name, value in entry_document(entry).items() if name != "sentence"}
    return json.dumps(document, indent=2, ensure_ascii=False)


def _revision(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidValue(f"before is {text[:40]!r} and needs a revision number", field="before")
    return int(text)


def _and(query: str) -> str:
    return f"{query}&" if query else ""
