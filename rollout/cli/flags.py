"""`rollout flags`: see and change flags, overrides and the kill switch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from rollout.cli.backend import FlagFields
from rollout.cli.frame import MOMENT, PERCENTAGE, REVISION, Document, Group, reason_option, show
from rollout.cli.promote import export_flags, import_flags
from rollout.cli.reach import backend_of
from rollout.cli.words import flag_line, flag_state, flag_words, on_one_line, table
from rollout.domain.flag import MAIN_FLAG


@click.group(cls=Group)
def flags() -> None:
    """See and change flags, overrides and the kill switch."""


flags.add_command(export_flags)
flags.add_command(import_flags)

_key = click.argument("key", default=MAIN_FLAG, metavar=f"[KEY={MAIN_FLAG}]")


def _careful(command: Callable[..., None]) -> Callable[..., None]:
    """Add what a change that may raise the share takes."""
    for option in (
        click.option(
            "--revision", type=REVISION, help="The revision you looked at; refused where it changed meanwhile."
        ),
        click.option("--skip-preflight", is_flag=True, help="Raise the share whatever the gateway's state is."),
        reason_option,
    ):
        command = option(command)
    return command


def _show_change(context: click.Context, flag: Document) -> None:
    show(context, flag, lambda: [flag_line(flag, f" (revision {flag['revision']})")])


@flags.command("list")
@click.pass_context
def list_flags(context: click.Context) -> None:
    """List every flag."""
    found = backend_of(context).flags()
    rows = [(flag["key"], flag_state(flag), flag["revision"]) for flag in found]
    show(context, {"flags": found}, lambda: table(("FLAG", "STATE", "REVISION"), rows))


@flags.command("show")
@_key
@click.pass_context
def show_flag(context: click.Context, key: str) -> None:
    """Show one flag with its forced users."""
    flag = backend_of(context).flag(key)
    show(context, flag, lambda: flag_words(flag, datetime.now(UTC)))


@flags.command("set")
@click.argument("key")
@click.argument("percent", type=PERCENTAGE)
@_careful
@click.pass_context
def set_percentage(context: click.Context, /, key: str, percent: int, **options: Any) -> None:
    """Set the share of users on the gateway.

    PERCENT is a number from 0 to 100 in steps of 0.001. A rising share is refused while the preflight fails.
    """
    _show_change(context, backend_of(context).change_flag(key, FlagFields(share=percent), **options))


@flags.command("enable")
@_key
@_careful
@click.pass_context
def enable(context: click.Context, /, key: str, **options: Any) -> None:
    """Let the flag's percentage count."""
    _show_change(context, backend_of(context).change_flag(key, FlagFields(enabled=True), **options))


@flags.command("disable")
@_key
@reason_option
@click.option("--revision", type=REVISION, help="The revision you looked at; refused where it changed meanwhile.")
@click.pass_context
def disable(context: click.Context, key: str, reason: str | None, revision: int | None) -> None:
    """Send everybody but forced users direct."""
    flag = backend_of(context).change_flag(
        key, FlagFields(enabled=False), reason=reason, revision=revision, skip_preflight=False
    )
    _show_change(context, flag)


@flags.command("kill")
@_key
@reason_option
@click.pass_context
def kill(context: click.Context, key: str, reason: str | None) -> None:
    """STOP: everybody direct, forced users too.

    Never refused as stale, and safe to repeat.
    """
    _show_change(context, backend_of(context).kill(key, reason=reason))


@flags.command("restore")
@_key
@reason_option
@click.pass_context
def restore(context: click.Context, key: str, reason: str | None) -> None:
    """Lift the kill switch."""
    _show_change(context, backend_of(context).restore(key, reason=reason))


@flags.command("override")
@click.argument("key")
@click.argument("user")
@click.argument("variant", required=False, type=click.Choice(["on", "off"]))
@click.option("--remove", is_flag=True, help="Stop forcing this user.")
@click.option("--until", type=MOMENT, metavar="ISO-TIME", help="When it ends, such as 2026-12-01T00:00:00Z.")
@reason_option
@click.pass_context
def override(
    context: click.Context,
    key: str,
    user: str,
    variant: str | None,
    *,
    remove: bool,
    until: datetime | None,
    reason: str | None,
) -> None:
    """Force one USER on (through the gateway) or off (direct)."""
    if remove is (variant is not None):
        raise click.UsageError("say on, off or --remove, one of them", context)
    if remove and until is not None:
        raise click.UsageError("--until belongs to on and off", context)
    backend = backend_of(context)
    if variant is None:
        flag = backend.remove_override(key, user, reason=reason)
        said = f"{key}: {on_one_line(user)} is no longer forced"
    else:
        flag = backend.set_override(key, user, variant, reason=reason, expires_at=until)
        said = f"{key}: {on_one_line(user)} is forced {variant}{f' until {until.isoformat()}' if until else ''}"
    show(context, flag, lambda: [said])
