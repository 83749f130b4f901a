"""What commands ask for, whoever answers: the API of a running server, or the database itself.

Both answer the API's documents, so each command is written once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from rollout.cli.frame import Document
from rollout.domain.roles import Role


@dataclass(frozen=True, slots=True)
class FlagFields:
    """Fields of a flag to change; None leaves one as it is. `share` is in parts per 100,000."""

    enabled: bool | None = None
    share: int | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class AuditQuery:
    """Which ledger entries to list, newest first; `before` is a revision, for paging."""

    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    user: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    limit: int = 50


class Backend(Protocol):
    """The installation behind the commands. Every method may raise any `RolloutError`.

    `StaleChange.current` is the API's document of the thing.
    """

    all_or_nothing: bool
    """Whether `together` makes all of its changes or none."""

    @property
    def address(self) -> str:
        """Where the admin pages are, without a trailing slash."""

    def flags(self) -> list[Document]:
        """List every flag."""

    def flag(self, key: str) -> Document:
        """Return one flag."""

    def change_flag(
        self, key: str, fields: FlagFields, *, reason: str | None, revision: int | None, skip_preflight: bool
    ) -> Document:
        """Change fields in one ledger entry; `revision` is what was looked at, None changes whatever is there."""

    def kill(self, key: str, *, reason: str | None) -> Document:
        """Stop a flag for everybody."""

    def restore(self, key: str, *, reason: str | None) -> Document:
        """Lift a kill."""

    def set_override(
        self, key: str, user: str, variant: str, *, reason: str | None, expires_at: datetime | None
    ) -> Document:
        """Force a user on or off; answers the flag."""

    def remove_override(self, key: str, user: str, *, reason: str | None) -> Document:
        """Stop forcing a user; answers the flag."""

    def set_overrides(self, key: str, overrides: Mapping[str, Document | None], *, reason: str | None) -> None:
        """Force many users, or (None) stop forcing them; an override is `{variant, reason, expires_at}`."""

    def together(self, *, raises: bool) -> AbstractContextManager[Backend]:
        """Make many changes one transaction as far as this backend can; `raises` where a share rises among them."""

    def cascade(self) -> Document:
        """Return `{models, revision, live, out}`."""

    def set_cascade(self, models: Sequence[str], *, reason: str | None, revision: int | None) -> Document:
        """Set the ordered model ids."""

    def lift_model(self, model: str, *, reason: str | None) -> Document:
        """Put a model that is out back into the live order; answers the cascade."""

    def reset_breakers(self, which: str | None, *, reason: str | None) -> Document:
        """Reset one thing or (None) everything: `{reset}`, null where only running servers can say what."""

    def evaluate(self, flag: str, context: Mapping[str, Any]) -> Document:
        """Decide for an evaluation context, with the evidence."""

    def audit(self, query: AuditQuery) -> Document:
        """List ledger entries: `{entries, next}`."""

    def audit_entry(self, revision: int) -> Document:
        """Return one ledger entry."""

    def audit_head(self) -> Document:
        """Return `{revision, digest}`."""

    def audit_verify(self) -> Document:
        """Walk the whole chain: `{ok, entries, head, first_break}`."""

    def tokens(self) -> list[Document]:
        """List access tokens."""

    def create_token(
        self, name: str, role: Role, *, reason: str | None, expires_at: datetime | None = None
    ) -> Document:
        """Make an access token; its secret is `access_token`. Without `expires_at` it does not end by itself."""

    def revoke_token(self, token: str) -> None:
        """Revoke an access token by id or name."""

    def sessions(self) -> list[Document]:
        """List sessions, and sign-in links that nobody used yet."""

    def end_session(self, session: str) -> None:
        """End a session or an unused sign-in link by its id."""

    def invite(self, name: str, role: Role) -> Document:
        """Make a one-time sign-in code: `{name, role, code}`."""
