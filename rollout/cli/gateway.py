"""`rollout gateway`: the LiteLLM gateway's configuration, a gateway alone, and how it is."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from rollout.cli.backend import Backend
from rollout.cli.frame import Document, Group, as_json, environ_of, json_text, note, reason_option, settings_of, show
from rollout.cli.reach import backend_of, open_backend
from rollout.cli.server import address_of, ask
from rollout.cli.words import Safe, exact, on_one_line
from rollout.domain.errors import InvalidRequest, RolloutError
from rollout.resources import resource
from rollout.settings import Settings

_litellm = click.option(
    "--litellm",
    "environment",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where LiteLLM's own environment lies or is made; else in the data folder.",
)


@click.group(cls=Group)
def gateway() -> None:
    """Configure, run and look at the LiteLLM gateway."""


@gateway.command("config")
@click.pass_context
def config(context: click.Context) -> None:
    """Print the LiteLLM configuration for this installation's cascade; it holds no secret."""
    from rollout.gateway.config import gateway_config, render

    upstreams, cascade = settings_of(context).upstreams, _live(backend_of(context))
    try:
        made = gateway_config(
            cascade,
            upstream_base_url=upstreams.openrouter_url,
            request_timeout=upstreams.total_timeout,
            allow_paid=upstreams.allow_paid,
        )
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    if not cascade:
        note("no model is asked, so there are no aliases; see `rollout cascade show`")
    show(context, made, lambda: [Safe(render(made).removesuffix("\n"))])


@gateway.command("run")
@_litellm
@click.pass_context
def run(context: click.Context, environment: Path | None) -> None:
    """Run LiteLLM alone until Ctrl-C: installed, configured from the cascade, started again when it dies."""
    settings = settings_of(context)
    if not settings.litellm_is_ours:
        raise InvalidRequest("LITELLM_BASE_URL names somebody else's gateway; unset it to run one here")
    with open_backend(settings, environ_of(context)) as backend:
        cascade = tuple(_live(backend))
    if asyncio.run(_supervise(context, settings, environment, cascade)):
        note("the gateway was stopped")


def _live(backend: Backend) -> list[str]:
    found = backend.cascade()
    # a server of an older version knows of no difference
    return list(found["live"] if "live" in found else found["models"])


async def _supervise(
    context: click.Context, settings: Settings, environment: Path | None, cascade: tuple[str, ...]
) -> bool:
    """Run the supervisor until SIGTERM (returns True) or Ctrl-C (raised once LiteLLM is gone)."""
    from rollout.gateway.place import ensure_master_key, port_is_free
    from rollout.gateway.plan import GatewayPlan
    from rollout.gateway.supervise import Supervisor

    upstreams, data = settings.upstreams, settings.data_dir.absolute()
    if upstreams.openrouter_key is None:
        raise InvalidRequest(
            "OPENROUTER_API_KEY is not set, so LiteLLM could ask nobody; set it, "
            "or `rollout simulate upstream` and name that as OPENROUTER_BASE_URL"
        )
    if not port_is_free("127.0.0.1", settings.litellm_port):
        raise RolloutError(
            f"port {settings.litellm_port} on 127.0.0.1 is taken, and LiteLLM needs it. "
            "End what holds it, or set LITELLM_PORT to a free port"
        )
    plan = GatewayPlan(
        environment=(environment or data / "litellm").absolute(),
        lock=resource("locks") / "litellm.txt",
        folder=data,
        port=settings.litellm_port,
        upstream_base_url=upstreams.openrouter_url,
        upstream_key=upstreams.openrouter_key,
        master_key=upstreams.litellm_key or ensure_master_key(data / "litellm.key"),
        request_timeout=upstreams.total_timeout,
        allow_paid=upstreams.allow_paid,
    )
    try:
        supervisor = Supervisor(
            plan,
            cascade=cascade,
            environ=environ_of(context),
            clock=time.time,
            sleep=asyncio.sleep,
            random=random.random,
            on_change=_report(lines=as_json(context), redraw=sys.stderr.isatty()),
        )
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    return await _until_told_to_stop(supervisor.run())


async def _until_told_to_stop(running: Coroutine[Any, Any, None]) -> bool:
    ours, told = asyncio.current_task(), False
    assert ours is not None  # noqa: S101 - a coroutine that runs has a task

    def tell() -> None:
        nonlocal told
        told = True
        ours.cancel()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, tell)
    try:
        await running
    except asyncio.CancelledError:
        if not told:  # Ctrl-C: asyncio's own way
            raise
        ours.uncancel()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    return told


def _report(*, lines: bool, redraw: bool) -> Callable[[Any], None]:
    """Return what says each new state: a line of JSON, a line that is drawn again, or a line a phase."""
    last = ""

    def say(state: Any) -> None:
        nonlocal last
        if lines:
            from rollout.http.health import gateway_document

            click.echo(json_text(gateway_document(state)))
            return
        install = state.install
        count = f" {install.packages}/{install.total}" if install and install.total else ""
        text = on_one_line(f"{state.phase}{count}: {state.detail}")
        same = f"{state.phase}{install.phase if install else ''}"
        if redraw:
            click.echo(("\r\x1b[2K" if same == last else "\n" if last else "") + text, err=True, nl=False, color=True)
        elif same != last:
            click.echo(text, err=True)
        last = same

    return say


@gateway.command("status")
@_litellm
@click.pass_context
def status(context: click.Context, environment: Path | None) -> None:
    """Say how the gateway is: asked from a running server, else what lies on this machine."""
    settings = settings_of(context)
    address = settings.url or address_of(settings)
    answer = ask(address, "/health/providers")
    if answer is not None and isinstance(answer.get("gateway"), dict):
        found: Document = {"source": "server", **answer}
        show(context, found, lambda: _server_words(answer))
        return
    if settings.url is not None:
        raise RolloutError("the server at ROLLOUT_URL does not answer; check that it runs, and the address")
    disk = on_disk(settings, environment)
    show(context, {"source": "disk", **disk}, lambda: _disk_words(disk))


@gateway.command("reset")
@click.argument("which", required=False)
@reason_option
@click.pass_context
def reset(context: click.Context, which: str | None, reason: str | None) -> None:
    """Close open breakers and forget a remembered daily cap.

    WHICH is a path (litellm, openrouter), a model, path/model, or quota; everything where it is left out.
    """
    found = backend_of(context).reset_breakers(which, reason=reason)
    show(context, found, lambda: [_reset_words(found["reset"])])


def _reset_words(done: list[str] | None) -> str:
    if done is None:
        return "written down: a running server of this database resets it within a moment"
    return on_one_line(f"reset: {', '.join(done)}") if done else "nothing had to be reset"


def on_disk(settings: Settings, environment: Path | None = None) -> Document:
    """Return what this machine shows of the gateway while no server runs; nothing is started or asked."""
    from rollout.gateway.install import STAMP, is_installed
    from rollout.gateway.place import port_is_free

    folder = (environment or settings.data_dir / "litellm").absolute()
    port = settings.litellm_port
    return {
        "ours": settings.litellm_is_ours,
        "environment": str(folder),
        "present": folder.exists(),
        "stamp": (folder / STAMP).exists(),
        "installed": is_installed(folder, resource("locks") / "litellm.txt"),
        "port": port,
        "port_free": port > 0 and port_is_free("127.0.0.1", port),
        "config": str(settings.data_dir / "litellm.yaml"),
        "configured": (settings.data_dir / "litellm.yaml").exists(),
    }


def _server_words(answer: Document) -> list[str]:
    state, upstream = answer["gateway"], answer.get("upstream") or {}
    lines = [f"gateway: {state.get('phase')}: {state.get('detail')}"]
    lines.append(f"upstream: {upstream.get('phase')}: {upstream.get('detail')}")
    lines += [f"model {model}: {listing}" for model, listing in (answer.get("models") or {}).items()]
    lines += [f"breaker {_breaker_words(each)}" for each in answer.get("breakers") or () if each["state"] != "closed"]
    if answer.get("quota"):
        lines.append(f"quota: {_quota_words(answer['quota'])}")
    if answer.get("retries_left") is not None and answer["retries_left"] < 1:
        lines.append("retries: too many are made just now, so a model that failed is not asked again; other models are")
    lines += [f"in the way of raising the share: {problem}" for problem in answer.get("preflight") or ()]
    return [on_one_line(line) for line in lines]


def _breaker_words(each: Document) -> str:
    what = f"{each['path']}/{each['model']}" if each["model"] else f"{each['path']}, every model"
    wait = each["opens_in_seconds"] or 0
    soon = f"tries again in {wait:.0f} s" if wait else "the next request tries it"
    return f"{what}: {each['state'].replace('_', '-')} ({each['why'] or 'no reason said'}); {soon}"


def _quota_words(quota: Document) -> str:
    day = "no daily limit known" if quota["per_day"] is None else f"{quota['left_today']} of {quota['per_day']} left"
    by = f" (the cap of the {quota['blocked_by']})" if quota.get("blocked_by") else ""
    capped = f"; NOTHING IS SENT until {exact(quota['blocked_until'])}{by}" if quota["blocked_until"] else ""
    limit = quota["per_minute"]
    minute = f"{quota['used_this_minute']} of {limit} this minute" if limit else "no limit a minute"
    return f"{quota['used_today']} used today, {day}, {minute}; resets {exact(quota['resets_at'])}{capped}"


def _disk_words(disk: Document) -> list[str]:
    if disk["installed"]:
        install = "installed"
    elif disk["stamp"]:
        install = "installed from another lock or by another Python; it is made anew at the next start"
    elif disk["present"]:
        install = "half made; it is made anew at the next start"
    else:
        install = "not installed yet; `rollout up` or `rollout gateway run` installs it"
    return [
        "no server answers here; this is what the machine shows:",
        f"LiteLLM is {install} ({disk['environment']})",
        f"port {disk['port']} is {'free' if disk['port_free'] else 'taken'}",
        f"configuration: {disk['config'] if disk['configured'] else 'not written yet'}",
    ]
