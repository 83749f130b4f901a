"""Bring a database to this program's schema, and refuse one that is ahead of it."""

from __future__ import annotations

from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from rollout.domain.errors import StoreNewer
from rollout.resources import resource
from rollout.store.engine import LONG, WRITE, reading, translating

_LOCK = 0x726F6C6C  # any number that is ours: PostgreSQL's advisory lock for migrating


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Where a database stands: `current` is None for an empty one."""

    current: str | None
    newest: str

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing to do."""
        return self.current == self.newest


def _config() -> Config:
    config = Config()
    # a % in the path would be read as a reference to another option
    config.set_main_option("script_location", str(resource("migrations")).replace("%", "%%"))
    return config


def _status(connection: Connection) -> SchemaStatus:
    scripts = ScriptDirectory.from_config(_config())
    newest = scripts.get_current_head()
    assert newest is not None, "the migrations folder holds at least one"  # noqa: S101 - a broken build, not input
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreNewer(
            f"the database is at schema {current!r}, this program knows up to {newest!r}: "
            "it was used by a newer version. Upgrade this program, or restore a backup from before."
        )
    return SchemaStatus(current, newest)


def schema_status(engine: Engine) -> SchemaStatus:
    """Say where the database stands.

    Raises:
        StoreNewer: it was migrated by a newer version of this program.
        StoreUnreachable: it does not answer.
    """
    with reading(engine) as connection:
        return _status(connection)


def upgrade(engine: Engine) -> SchemaStatus:
    """Migrate to the newest schema, once, however many processes try at the same time.

    Returns:
        Where the database stood before.

    Raises:
        StoreNewer: it was migrated by a newer version of this program.
        StoreUnreachable: it does not answer.
    """
    options = {WRITE: True, LONG: True}
    with translating(engine), engine.connect().execution_options(**options) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        before = _status(connection)
        if not before.up_to_date:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return before
