"""The command `rollout`: which commands there are, and how each of them ends.

Commands are loaded when they are called, so that the help and the small ones start quickly.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from rollout.cli.frame import end_of_error, wants_colour
from rollout.domain.errors import RolloutError

_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count


class Place(NamedTuple):
    """Where a command lies, and its line in the help."""

    module: str
    attribute: str
    line: str


COMMANDS: Final[Mapping[str, Place]] = {
    "up": Place("up", "up", "Run everything: control plane, completions endpoint, LiteLLM."),
    "serve": Place("up", "serve", "Run the control plane and the completions endpoint alone."),
    "sign-in": Place("access", "sign_in", "Print a one-time sign-in link for the admin pages."),
    "flags": Place("flags", "flags", "See and change flags, overrides and the kill switch."),
    "evaluate": Place("evaluate", "evaluate", "Explain what a user gets, and why."),
    "audit": Place("audit", "audit", "Read and verify the ledger of every change."),
    "cascade": Place("cascade", "cascade", "See and set the ordered list of models."),
    "tokens": Place("access", "tokens", "Make, list and revoke access tokens."),
    "sessions": Place("access", "sessions", "List and end sessions and unused sign-in links."),
    "gateway": Place("gateway", "gateway", "Configure, run and look at the LiteLLM gateway."),
    "db": Place("database", "db", "Upgrade, inspect and back up the database."),
    "simulate": Place("simulate", "simulate", "Run a simulated upstream."),
    "doctor": Place("doctor", "doctor", "Check this machine and say what to do."),
}


class Root(click.Group):
    """Loads commands lazily, and ends every error as one line on standard error and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """List the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Load one command."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(import_module(f"rollout.cli.{place.module}"), place.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above names commands alone
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """Write the list of commands from the table, without loading any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.line) for name, place in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's signature
        **extra: Any,
    ) -> Any:
        """Run, and exit the process with 0 (done), 1 (refused or failed), 2 (usage) or 130 (Ctrl-C)."""
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        as_json = "--json" in given
        try:
            result = super().main(given, prog_name or "rollout", complete_var, standalone_mode=False, **extra)
        except click.Abort as error:
            sys.exit(_INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else 1)
        except click.UsageError as error:
            error.show()
            sys.exit(end_of_error("Usage", error.format_message(), as_json=as_json, said=True, code=error.exit_code))
        except click.ClickException as error:
            sys.exit(end_of_error(type(error).__name__, error.format_message(), as_json=as_json))
        except RolloutError as error:
            sys.exit(end_of_error(type(error).__name__, error.message, as_json=as_json, error=error))
        except BrokenPipeError:
            sys.exit(1)  # whoever read our output has left, as `head` does
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            sys.exit(end_of_error(type(error).__name__, f"{error.strerror or error}{where}", as_json=as_json))
        sys.exit(result if type(result) is int else 0)


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="llm-rollout", prog_name="rollout")
@click.pass_context
def rollout(context: click.Context) -> None:
    """Move an application's LLM traffic onto a LiteLLM gateway, a share of users at a time, and back in a second.

    Commands go through the API where ROLLOUT_URL is set (with ROLLOUT_TOKEN), else straight to the database.
    """
    if not wants_colour(context):
        context.color = False
