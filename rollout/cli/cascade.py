"""`rollout cascade`: the ordered list of models every request walks down."""

from __future__ import annotations

import click

from rollout.cli.backend import backend_of
from rollout.cli.frame import REVISION, Document, Group, reason_option, show
from rollout.cli.words import on_one_line


@click.group(cls=Group)
def cascade() -> None:
    """See and set the ordered list of models, best first."""


def _words(found: Document) -> list[str]:
    if not found["models"]:
        return ["the cascade is empty: set it with `rollout cascade set MODEL...`"]
    numbered = [f"{place:>3}  {on_one_line(model)}" for place, model in enumerate(found["models"], 1)]
    return [*numbered, f"revision {found['revision']}"]


@cascade.command("show")
@click.pass_context
def show_cascade(context: click.Context) -> None:
    """Show the models in order."""
    found = backend_of(context).cascade()
    show(context, found, lambda: _words(found))


@cascade.command("set")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--revision", type=REVISION, help="The revision you looked at; refused where it changed meanwhile.")
@reason_option
@click.pass_context
def set_cascade(context: click.Context, models: tuple[str, ...], revision: int | None, reason: str | None) -> None:
    """Set the models in order, such as author/name:free."""
    found = backend_of(context).set_cascade(models, reason=reason, revision=revision)
    show(context, found, lambda: _words(found))
