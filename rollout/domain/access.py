"""Access tokens and sessions as values, and what is stored of a secret."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from rollout.domain.roles import Role


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token without its secret."""

    id: str
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """A sign-in: invited by a one-time code, opened once by it, closed or expired later."""

    id: str
    name: str
    role: Role
    code_expires_at: datetime
    opened: bool
    expires_at: datetime | None
    closed: bool


def hash_secret(secret: str) -> str:
    """Return what is stored of a secret: its SHA-256 in hexadecimal.

    Secrets are random and long, so nobody can guess them from a plain hash.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
