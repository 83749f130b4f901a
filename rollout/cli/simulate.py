"""`rollout simulate`: parts of the world that are not there."""

from __future__ import annotations

import signal
import threading

import click

from rollout.cli.frame import Group, note, show
from rollout.domain.errors import RolloutError


@click.group(cls=Group)
def simulate() -> None:
    """Run a simulated upstream."""


@simulate.command("upstream")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to bind.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8099, show_default=True, help="0 takes a free one.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides ids and the chances of faults.")
@click.pass_context
def upstream(context: click.Context, host: str, port: int, seed: int) -> None:
    """Run an OpenRouter look-alike until Ctrl-C; it asks no real model and costs nothing."""
    from rollout.simulator import World, running

    signal.signal(signal.SIGTERM, lambda *_: context.exit(0))
    try:
        with running(World(seed=seed), host=host, port=port) as url:
            show(context, {"base_url": url}, lambda: [url])
            note("set OPENROUTER_BASE_URL to this and OPENROUTER_API_KEY to any text that begins with sk-or-")
            threading.Event().wait()
    except click.exceptions.Exit:  # a RuntimeError too
        raise
    except (OSError, RuntimeError) as error:
        raise RolloutError(str(error)) from error
