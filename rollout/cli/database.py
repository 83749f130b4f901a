"""`rollout db`: the database itself, whatever ROLLOUT_URL says."""

from __future__ import annotations

import functools
import secrets
from datetime import UTC, datetime
from pathlib import Path

import click

from rollout.cli.frame import Group, settings_of, show


@click.group(cls=Group)
def db() -> None:
    """Upgrade, inspect and back up the database of this machine."""


@db.command("upgrade")
@click.pass_context
def upgrade(context: click.Context) -> None:
    """Make the database, or bring it to this program's schema; safe to repeat."""
    from rollout.cli.backend_database import shown_url, url_of
    from rollout.control.installation import establish
    from rollout.store.door import Door
    from rollout.store.engine import open_engine
    from rollout.store.migrate import upgrade as migrate

    settings = settings_of(context)
    engine = open_engine(url_of(settings))
    try:
        before = migrate(engine)
        made = establish(Door(engine), new_id=functools.partial(secrets.token_hex, 8), salt=settings.salt)
        where = shown_url(engine.url)
    finally:
        engine.dispose()
    document = {"database": where, "from": before.current, "to": before.newest, "established": made}
    steps = "was up to date" if before.up_to_date else f"is now at schema {before.newest}"
    show(context, document, lambda: [f"{where} {steps}{'; a new installation was made in it' if made else ''}"])


@db.command("status")
@click.pass_context
def status(context: click.Context) -> None:
    """Say where the database stands; exit with 1 where it needs something."""
    from rollout.cli.backend_database import existing_engine, shown_url
    from rollout.store.engine import reading
    from rollout.store.migrate import schema_status
    from rollout.store.snapshots import read_snapshot

    with existing_engine(settings_of(context)) as engine:
        where, stands = shown_url(engine.url), schema_status(engine)
        installation, revision = None, 0
        if stands.current is not None:
            with reading(engine) as connection:
                snapshot = read_snapshot(connection)
            installation, revision = snapshot.installation or None, snapshot.revision
    ready = stands.up_to_date and installation is not None
    document = {
        "database": where,
        "current": stands.current,
        "newest": stands.newest,
        "up_to_date": stands.up_to_date,
        "installation": installation,
        "revision": revision,
    }
    said = (
        f"{where} is up to date (schema {stands.newest}), installation {installation}, revision {revision}"
        if ready
        else f"{where} is at schema {stands.current or '-'} of {stands.newest}; run `rollout db upgrade`"
    )
    show(context, document, lambda: [said])
    if not ready:
        context.exit(1)


@db.command("backup")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
def backup(context: click.Context, file: Path | None) -> None:
    """Copy a SQLite database while it is in use to FILE, else into the data folder's `backups`."""
    from rollout.cli.backend_database import existing_engine
    from rollout.store.engine import backup as copy

    settings = settings_of(context)
    with existing_engine(settings) as engine:
        if file is None:
            folder = settings.data_dir / "backups"
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = folder / f"rollout-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
        copy(engine, file)
    written = str(file)
    show(context, {"file": written}, lambda: [written])
