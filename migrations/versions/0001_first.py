"""The first schema: the ledger with its head, flags, overrides, the cascade, access.

It runs on an empty database, so beside no older code. There is no way down: an installation goes back by
restoring a backup, because a ledger that can be dropped by a command is none.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_APPEND_ONLY = "the ledger is append-only"

_SQLITE_TRIGGERS = (
    f"CREATE TRIGGER ledger_update BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END",
    f"CREATE TRIGGER ledger_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END",
    # also stops INSERT OR REPLACE, which deletes without firing the trigger above
    "CREATE TRIGGER ledger_insert BEFORE INSERT ON ledger"
    " WHEN NEW.revision <> (SELECT coalesce(max(revision), 0) + 1 FROM ledger)"
    f" BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}, one revision after the other'); END",
    "CREATE TRIGGER ledger_personal_update BEFORE UPDATE ON ledger_personal"
    " WHEN NEW.revision <> OLD.revision OR NEW.field <> OLD.field"
    " OR NEW.salt IS NOT NULL OR NEW.value IS NOT NULL"
    " BEGIN SELECT RAISE(ABORT, 'personal data can only be erased'); END",
    "CREATE TRIGGER ledger_personal_delete BEFORE DELETE ON ledger_personal"
    " BEGIN SELECT RAISE(ABORT, 'personal data is erased in place'); END",
    "CREATE TRIGGER head_update BEFORE UPDATE ON head WHEN NEW.revision <> OLD.revision + 1"
    " BEGIN SELECT RAISE(ABORT, 'the head moves one revision at a time'); END",
    "CREATE TRIGGER head_delete BEFORE DELETE ON head BEGIN SELECT RAISE(ABORT, 'the head stays'); END",
    # INSERT OR REPLACE again: it would rewrite the one head row, or personal data, past the triggers above
    "CREATE TRIGGER head_insert BEFORE INSERT ON head BEGIN SELECT RAISE(ABORT, 'there is one head'); END",
    "CREATE TRIGGER ledger_personal_insert BEFORE INSERT ON ledger_personal"
    " WHEN NEW.revision <> (SELECT coalesce(max(revision), 0) FROM ledger) OR EXISTS"
    " (SELECT 1 FROM ledger_personal WHERE revision = NEW.revision AND field = NEW.field)"
    " BEGIN SELECT RAISE(ABORT, 'personal data is written once, with its entry'); END",
)

_POSTGRES_TRIGGERS = (
    "CREATE FUNCTION rollout_refuse() RETURNS trigger LANGUAGE plpgsql AS"
    f" $$ BEGIN RAISE EXCEPTION '{_APPEND_ONLY}'; END $$",
    "CREATE FUNCTION rollout_next_entry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF NEW.revision <> (SELECT coalesce(max(revision), 0) + 1 FROM ledger) THEN"
    f" RAISE EXCEPTION '{_APPEND_ONLY}, one revision after the other'; END IF; RETURN NEW; END $$",
    "CREATE FUNCTION rollout_erase_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF NEW.revision <> OLD.revision OR NEW.field <> OLD.field"
    " OR NEW.salt IS NOT NULL OR NEW.value IS NOT NULL THEN"
    " RAISE EXCEPTION 'personal data can only be erased'; END IF; RETURN NEW; END $$",
    "CREATE FUNCTION rollout_with_entry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF NEW.revision <> (SELECT coalesce(max(revision), 0) FROM ledger) THEN"
    " RAISE EXCEPTION 'personal data is written once, with its entry'; END IF; RETURN NEW; END $$",
    "CREATE FUNCTION rollout_next_head() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF NEW.revision <> OLD.revision + 1 THEN"
    " RAISE EXCEPTION 'the head moves one revision at a time'; END IF; RETURN NEW; END $$",
    "CREATE TRIGGER ledger_update BEFORE UPDATE OR DELETE ON ledger FOR EACH ROW EXECUTE FUNCTION rollout_refuse()",
    "CREATE TRIGGER ledger_truncate BEFORE TRUNCATE ON ledger FOR EACH STATEMENT EXECUTE FUNCTION rollout_refuse()",
    "CREATE TRIGGER ledger_insert BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION rollout_next_entry()",
    "CREATE TRIGGER ledger_personal_update BEFORE UPDATE ON ledger_personal"
    " FOR EACH ROW EXECUTE FUNCTION rollout_erase_only()",
    "CREATE TRIGGER ledger_personal_delete BEFORE DELETE ON ledger_personal"
    " FOR EACH ROW EXECUTE FUNCTION rollout_refuse()",
    "CREATE TRIGGER ledger_personal_truncate BEFORE TRUNCATE ON ledger_personal"
    " FOR EACH STATEMENT EXECUTE FUNCTION rollout_refuse()",
    "CREATE TRIGGER head_update BEFORE UPDATE ON head FOR EACH ROW EXECUTE FUNCTION rollout_next_head()",
    "CREATE TRIGGER head_delete BEFORE DELETE ON head FOR EACH ROW EXECUTE FUNCTION rollout_refuse()",
    "CREATE TRIGGER ledger_personal_insert BEFORE INSERT ON ledger_personal"
    " FOR EACH ROW EXECUTE FUNCTION rollout_with_entry()",
    "CREATE TRIGGER head_insert BEFORE INSERT ON head FOR EACH ROW EXECUTE FUNCTION rollout_refuse()",
    "CREATE TRIGGER head_truncate BEFORE TRUNCATE ON head FOR EACH STATEMENT EXECUTE FUNCTION rollout_refuse()",
)


def upgrade() -> None:
    _ledger_tables()
    _state_tables()
    op.execute(
        sa.text("INSERT INTO head (one, revision, digest, at) VALUES (1, 0, :digest, '')").bindparams(digest="0" * 64)
    )
    for statement in _SQLITE_TRIGGERS if op.get_bind().dialect.name == "sqlite" else _POSTGRES_TRIGGERS:
        op.execute(statement)


def _ledger_tables() -> None:
    op.create_table(
        "installation",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "head",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "ledger",
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(400), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("previous_digest", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    for column in ("subject", "actor", "action"):
        op.create_index(f"ix_ledger_{column}_revision", "ledger", [column, "revision"])
    op.create_table(
        "ledger_personal",
        sa.Column("revision", sa.Integer, sa.ForeignKey("ledger.revision"), primary_key=True, autoincrement=False),
        sa.Column("field", sa.String(64), primary_key=True),
        sa.Column("salt", sa.String(64)),
        sa.Column("value", sa.Text),
    )


def _state_tables() -> None:
    op.create_table(
        "flags",
        sa.Column("key", sa.String(80), primary_key=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("killed", sa.Boolean, nullable=False),
        sa.Column("share", sa.Integer, nullable=False),
        sa.Column("salt", sa.String(200), nullable=False),
        sa.Column("hash_version", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, sa.ForeignKey("ledger.revision"), nullable=False),
    )
    op.create_table(
        "overrides",
        sa.Column("flag_key", sa.String(80), sa.ForeignKey("flags.key"), primary_key=True),
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("variant", sa.String(8), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("expires_at", sa.String(32)),
        sa.Column("revision", sa.Integer, sa.ForeignKey("ledger.revision"), nullable=False),
    )
    op.create_table(
        "cascade",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, sa.ForeignKey("ledger.revision"), nullable=False),
    )
    op.create_table(
        "access_tokens",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.Column("revoked_at", sa.String(32)),
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(80), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("code_expires_at", sa.String(32), nullable=False),
        sa.Column("secret_hash", sa.String(64), unique=True),
        sa.Column("expires_at", sa.String(32)),
        sa.Column("closed_at", sa.String(32)),
    )
