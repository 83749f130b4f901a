"""`rollout cascade`: the ordered list of models every request walks down."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from rollout.cli.frame import REVISION, Document, Group, reason_option, show
from rollout.cli.reach import backend_of
from rollout.cli.words import loud, on_one_line, when


@click.group(cls=Group)
def cascade() -> None:
    """See and set the ordered list of models, best first."""


def _words(found: Document) -> list[str]:
    if not found["models"]:
        return ["the cascade is empty: set it with `rollout cascade set MODEL...`"]
    out, now = found.get("out") or {}, datetime.now(UTC)
    lines: list[str] = []
    place = 0
    for model in found["models"]:
        place += model not in out
        lines.append(on_one_line(f"{'OUT' if model in out else place:>3}  {model}"))
        if model in out:
            lines.append(f"     {_why_out(out[model], now)}")
    elsewhere = [model for model in out if model not in found["models"]]
    lines += [on_one_line(f"not in the cascade, and out: {model}: {out[model]['detail']}") for model in elsewhere]
    if out:
        lines.append("a person brings a model back: `rollout cascade lift MODEL`")
    if not place:
        lines.append(loud("no model is asked: every one of the cascade is out"))
    return [*lines, f"revision {found['revision']}"]


def _why_out(out: Document, now: datetime) -> str:
    return on_one_line(f"{out['detail']}, {when(out['at'], now)}")


@cascade.command("show")
@click.pass_context
def show_cascade(context: click.Context) -> None:
    """Show the models in order, and those that are out with the reason."""
    found = backend_of(context).cascade()
    show(context, found, lambda: _words(found))


@cascade.command("lift")
@click.argument("model")
@reason_option
@click.pass_context
def lift_model(context: click.Context, model: str, reason: str | None) -> None:
    """Put a model that is out back into the live order."""
    found = backend_of(context).lift_model(model, reason=reason)
    show(context, found, lambda: _words(found))


@cascade.command("set")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--revision", type=REVISION, help="The revision you looked at; refused where it changed meanwhile.")
@reason_option
@click.pass_context
def set_cascade(context: click.Context, models: tuple[str, ...], revision: int | None, reason: str | None) -> None:
    """Set the models in order, such as author/name:free; those that are out stay out."""
    found = backend_of(context).set_cascade(models, reason=reason, revision=revision)
    show(context, found, lambda: _words(found))
