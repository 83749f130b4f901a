"""`rollout doctor`: check this machine and say what to do."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime

import click

from rollout.cli.frame import Command, environ_of, show
from rollout.cli.words import Safe, on_one_line
from rollout.settings import parse_settings

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor", cls=Command)
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check this machine and say what to do; exit with 1 where something has to be put right.

    Nothing is changed, and of the upstream only the model list and the key are asked for: no quota is spent.
    """
    from rollout.cli import checks

    environ, now = environ_of(context), datetime.now(UTC)
    settings = parse_settings(environ)
    found = [checks.check_python((sys.version_info[0], sys.version_info[1]))]
    found += checks.check_environment(settings, environ, time.time())
    cascade: tuple[str, ...] = ()
    if settings.url is not None:
        found += checks.check_control_plane(settings, environ)
    if settings.url is None or settings.database_url is not None:
        database, models = checks.check_database(settings, now)
        found += [*database, *checks.check_cascade(models)]
        cascade = tuple(models or ())
    found += checks.check_ports(settings, checks.running_server(settings))
    found.append(checks.check_installed(settings))
    found += asyncio.run(checks.check_upstream(settings, cascade, now))
    if all(finding.check != "clock" for finding in found):
        found.append(checks.check_clock(now))
    failed = sum(finding.level is checks.Level.FAIL for finding in found)
    document = {
        "ok": not failed,
        "findings": [
            {"check": finding.check, "level": str(finding.level), "message": finding.said} for finding in found
        ],
    }

    def words() -> list[str]:
        width = max(len(finding.check) for finding in found)
        lines: list[str] = []
        for finding in found:
            level = click.style(f"{finding.level:<4}", fg=_COLOURS[finding.level])
            lines.append(Safe(f"{level}  {finding.check:<{width}}  {on_one_line(finding.said)}"))
        return [*lines, "nothing to put right" if not failed else f"{failed} to put right"]

    show(context, document, words)
    if failed:
        context.exit(1)
