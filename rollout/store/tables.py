"""The tables, the same on SQLite and PostgreSQL.

Times are UTC ISO text, which sorts as it reads and is the same in the ledger's canonical text. `revision`
columns name the ledger entry that last touched the thing.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

installation: Final = Table(
    "installation",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("id", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
)

head: Final = Table(
    "head",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("at", String(32), nullable=False),
)

ledger: Final = Table(
    "ledger",
    metadata,
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(400), nullable=False),
    Column("text", Text, nullable=False),
    Column("previous_digest", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Index(None, "subject", "revision"),
    Index(None, "actor", "revision"),
    Index(None, "action", "revision"),
)

ledger_personal: Final = Table(
    "ledger_personal",
    metadata,
    Column("revision", Integer, ForeignKey("ledger.revision"), primary_key=True, autoincrement=False),
    Column("field", String(64), primary_key=True),
    Column("salt", String(64)),
    Column("value", Text),
)

flags: Final = Table(
    "flags",
    metadata,
    Column("key", String(80), primary_key=True),
    Column("description", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("killed", Boolean, nullable=False),
    Column("share", Integer, nullable=False),
    Column("salt", String(200), nullable=False),
    Column("hash_version", Integer, nullable=False),
    Column("revision", Integer, ForeignKey("ledger.revision"), nullable=False),
)

overrides: Final = Table(
    "overrides",
    metadata,
    Column("flag_key", String(80), ForeignKey("flags.key"), primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("variant", String(8), nullable=False),
    Column("reason", Text),
    Column("expires_at", String(32)),
    Column("revision", Integer, ForeignKey("ledger.revision"), nullable=False),
)

cascade: Final = Table(
    "cascade",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("models", Text, nullable=False),
    Column("revision", Integer, ForeignKey("ledger.revision"), nullable=False),
)

models_out: Final = Table(
    "models_out",
    metadata,
    Column("model", String(200), primary_key=True),
    Column("why", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Column("revision", Integer, ForeignKey("ledger.revision"), nullable=False),
)

access_tokens: Final = Table(
    "access_tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(80), nullable=False),
    Column("role", String(16), nullable=False),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("created_at", String(32), nullable=False),
    Column("revoked_at", String(32)),
    Column("expires_at", String(32)),
    Column("last_used_at", String(32)),
)

sessions: Final = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(80), nullable=False),
    Column("role", String(16), nullable=False),
    Column("code_hash", String(64), nullable=False, unique=True),
    Column("code_expires_at", String(32), nullable=False),
    Column("secret_hash", String(64), unique=True),
    Column("expires_at", String(32)),
    Column("closed_at", String(32)),
    Column("created_at", String(32)),
    Column("opened_at", String(32)),
    Column("last_used_at", String(32)),
)
