"""Many entries in one go: the guards let the head move over several entries at once, and over nothing else.

Personal data may be written for every entry that the head has not reached, so none can be added to one that was
sealed; the head moves forward only, and only to the ledger's last entry. Processes of an older schema go on while and
after it runs: what they write, one entry and then the head, is allowed as before.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

_SQLITE = (
    "DROP TRIGGER ledger_personal_insert",
    "CREATE TRIGGER ledger_personal_insert BEFORE INSERT ON ledger_personal"
    " WHEN NEW.revision <= (SELECT revision FROM head) OR EXISTS"
    " (SELECT 1 FROM ledger_personal WHERE revision = NEW.revision AND field = NEW.field)"
    " BEGIN SELECT RAISE(ABORT, 'personal data is written once, with its entry'); END",
    "DROP TRIGGER head_update",
    "CREATE TRIGGER head_update BEFORE UPDATE ON head"
    " WHEN NEW.revision <= OLD.revision OR NEW.revision <> (SELECT coalesce(max(revision), 0) FROM ledger)"
    " BEGIN SELECT RAISE(ABORT, 'the head moves forward, to the last entry'); END",
)

_POSTGRES = (
    "CREATE OR REPLACE FUNCTION rollout_with_entry() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF NEW.revision <= (SELECT revision FROM head) THEN"
    " RAISE EXCEPTION 'personal data is written once, with its entry'; END IF; RETURN NEW; END $$",
    "CREATE OR REPLACE FUNCTION rollout_next_head() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF NEW.revision <= OLD.revision OR NEW.revision <> (SELECT coalesce(max(revision), 0) FROM ledger) THEN"
    " RAISE EXCEPTION 'the head moves forward, to the last entry'; END IF; RETURN NEW; END $$",
)


def upgrade() -> None:
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRES:
        op.execute(statement)
