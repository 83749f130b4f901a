"""`rollout evaluate`: what a user gets, and why."""

from __future__ import annotations

import click

from rollout.cli.frame import Command, show
from rollout.cli.reach import backend_of
from rollout.cli.words import explain


@click.command("evaluate", cls=Command)
@click.argument("flag")
@click.option("--user", default="", help="The user's id; without it, somebody without an id is asked about.")
@click.option("--attr", "attributes", multiple=True, metavar="KEY=VALUE", help="An attribute; may be given often.")
@click.pass_context
def evaluate(context: click.Context, flag: str, user: str, attributes: tuple[str, ...]) -> None:
    """Explain what a user gets, and why.

    Through the API that is the server's answer; straight from the database it is what a process with this
    terminal's environment would decide.
    """
    asked: dict[str, str] = {}
    for attribute in attributes:
        name, separator, value = attribute.partition("=")
        if not name or not separator:
            raise click.UsageError(f"--attr takes KEY=VALUE, not {attribute!r}", context)
        if name == "targetingKey":
            raise click.UsageError("the targeting key is the user's id: use --user", context)
        asked[name] = value
    if user:
        asked["targetingKey"] = user
    evaluation = backend_of(context).evaluate(flag, asked)
    show(context, evaluation, lambda: explain(evaluation, user))
