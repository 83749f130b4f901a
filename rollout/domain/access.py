"""Access tokens and sessions as values, and what is stored of a secret."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from rollout.domain.roles import Role


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token without its secret; `last_used_at` is exact to about a minute."""

    id: str
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Tell whether it lets anybody in at a moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in: invited by a one-time code, opened once by it, closed or expired later.

    `id` is no secret. `last_used_at` is exact to about a minute; moments are None if a version before they were kept
    wrote the row.
    """

    id: str
    name: str
    role: Role
    code_expires_at: datetime
    opened: bool
    expires_at: datetime | None
    closed: bool
    created_at: datetime | None = None
    opened_at: datetime | None = None
    last_used_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Tell whether it lets somebody in at a moment: as a session, or as a link that was not used yet."""
        ends = self.expires_at if self.opened else self.code_expires_at
        return not self.closed and ends is not None and now < ends


def hash_secret(secret: str) -> str:
    """Return what is stored of a secret: its SHA-256 in hexadecimal.

    Secrets are random and long, so nobody can guess them from a plain hash.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
