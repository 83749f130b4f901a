"""`rollout simulate`: parts of the world that are not there."""

from __future__ import annotations

import functools
import shlex
import signal
import threading
from pathlib import Path
from urllib.parse import urlsplit

import click

from rollout.cli.frame import Group, note, settings_of, show
from rollout.domain.errors import RolloutError


def secret_file(folder: Path, port: int) -> Path:
    """Return where the secret lies of the simulator at a port."""
    return folder / f"simulator-{port}.secret"


@click.group(cls=Group)
def simulate() -> None:
    """Run a simulated upstream."""


@simulate.command("upstream")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to bind.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8099, show_default=True, help="0 takes a free one.")
@click.option("--allow-host", "hosts", multiple=True, help="Another name it answers to; repeatable.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides ids and the chances of faults.")
@click.pass_context
def upstream(context: click.Context, host: str, port: int, hosts: tuple[str, ...], seed: int) -> None:
    """Run an OpenRouter look-alike until Ctrl-C; it asks no real model and costs nothing.

    Its control routes show what it was asked, so they need a secret, which lies in a file of the data folder.
    """
    from rollout.simulator import World, running
    from rollout.simulator.server import control_url, keep_secret

    world = World(seed=seed)
    signal.signal(signal.SIGTERM, lambda *_: context.exit(0))
    try:
        with running(world, host=host, port=port, hosts=hosts) as url:
            file = secret_file(settings_of(context).data_dir, urlsplit(url).port or 0)
            keep_secret(file, world.secret)
            context.call_on_close(functools.partial(file.unlink, missing_ok=True))
            control = control_url(url)
            show(context, {"base_url": url, "control_url": control, "secret_file": str(file)}, lambda: [url])
            note("set OPENROUTER_BASE_URL to this and OPENROUTER_API_KEY to any text that begins with sk-or-")
            note(
                f'what it was asked: curl -H "Authorization: Bearer $(cat {shlex.quote(str(file))})" {control}/requests'
            )
            threading.Event().wait()
    except click.exceptions.Exit:  # a RuntimeError too
        raise
    except (OSError, RuntimeError) as error:
        raise RolloutError(str(error)) from error
