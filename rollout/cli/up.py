"""`rollout up` and `rollout serve`: one process with the control plane and the completions endpoint.

`up` also runs a supervised LiteLLM, and the simulator where there is no key; under `serve` the gateway is somebody
else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from rollout.cli.beside import CannotStart
from rollout.cli.frame import Command, as_json, environ_of
from rollout.cli.process import Options, Server
from rollout.settings import parse_settings


@click.command("up", cls=Command)
@click.option(
    "--litellm",
    "litellm_environment",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where LiteLLM's own environment lies or is made; else in the data folder.",
)
@click.pass_context
def up(context: click.Context, litellm_environment: Path | None) -> None:
    """Run everything: control plane, completions endpoint, and a real LiteLLM gateway beside them."""
    options = Options(with_gateway=True, litellm_environment=litellm_environment, as_json=as_json(context))
    context.exit(_serve(environ_of(context), options))


@click.command("serve", cls=Command)
@click.pass_context
def serve(context: click.Context) -> None:
    """Run the control plane and the completions endpoint; the gateway is somebody else's."""
    context.exit(_serve(environ_of(context), Options(with_gateway=False, as_json=as_json(context))))


def _serve(environ: Mapping[str, str], options: Options) -> int:
    settings = parse_settings(environ)
    if settings.problems:
        raise CannotStart("; ".join(map(str, settings.problems)))
    server = Server(settings, environ, options, out=sys.stdout)
    loop_factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(server.run())
