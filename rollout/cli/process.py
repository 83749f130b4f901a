"""The server's process: what it puts together, in which order it starts, and how it stops.

The control plane answers first; LiteLLM installs and starts beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import getpass
import json
import logging
import os
import random
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from rollout.cli.beside import (
    CannotStart,
    ModelLists,
    configure,
    listening,
    quarantining,
    say_why_it_ended,
    simulator,
    simulator_port,
)
from rollout.cli.server import address_left, url_of
from rollout.cli.serving import Deciding, Phases, Uvicorn, server_config
from rollout.client.environment import read_overrides
from rollout.client.holder import Holder
from rollout.client.killfile import KillFile
from rollout.client.quota_file import QuotaFile
from rollout.control.access import invite
from rollout.control.installation import establish
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.domain.actor import SYSTEM
from rollout.domain.cascade import ListedModel
from rollout.domain.flag import PUBLISHED_SALT
from rollout.domain.roles import Role
from rollout.domain.snapshot import Snapshot
from rollout.gateway.place import ensure_master_key, port_is_free
from rollout.gateway.plan import GatewayPlan
from rollout.gateway.supervise import Supervisor
from rollout.gateway.upstream import SIMULATOR_KEY, UpstreamWatch
from rollout.gateway.watch import ExternalGateway
from rollout.http.app import assemble
from rollout.http.plane import Plane
from rollout.logs import set_up_logging
from rollout.resilience.gate import Gate
from rollout.resilience.quota import NO_LIMITS, QuotaLimits
from rollout.resources import resource
from rollout.settings import Settings, Upstreams
from rollout.store.door import Door
from rollout.store.engine import database_url, open_engine
from rollout.store.migrate import upgrade

log = logging.getLogger("rollout")


@dataclass(frozen=True, slots=True)
class Options:
    """What the terminal asked for. `litellm_environment` is where LiteLLM is installed."""

    with_gateway: bool
    litellm_environment: Path | None = None
    as_json: bool = False


class Server:
    """One process of `rollout up` or `rollout serve`."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], options: Options, *, out: TextIO) -> None:
        self._settings = settings
        self._environ = environ
        self._options = options
        self._out = out
        self._keeps = True
        self._simulated = (
            options.with_gateway and settings.upstreams.openrouter_key is None and not settings.openrouter_given
        )

    async def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        settings = self._settings
        self._check_gateway_port()
        with listening(settings) as listener:
            self._make_data_folder()
            door = self._open_database()
            async with contextlib.AsyncExitStack() as beside:
                upstreams = settings.upstreams
                if self._simulated:
                    port = simulator_port(settings.port, taken=settings.litellm_port if self._is_ours else None)
                    url = await beside.enter_async_context(simulator(settings.data_dir, self._environ, port=port))
                    upstreams = replace(upstreams, openrouter_url=url, openrouter_key=SIMULATOR_KEY)
                if self._is_ours:
                    key = upstreams.litellm_key or ensure_master_key(settings.data_dir / "litellm.key")
                    upstreams = replace(upstreams, litellm_key=key)
                self._set_up_logging(upstreams)
                return await self._serve(door, upstreams, listener)

    def _make_data_folder(self) -> None:
        """Make the data folder, if anything is kept there.

        Beside a database of its own and somebody else's gateway a server needs none: what it would keep is said to be
        lost when it is.
        """
        settings, folder = self._settings, self._settings.data_dir
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            writable, why = os.access(folder, os.W_OK | os.X_OK), "it cannot be written to"
        except OSError as error:
            writable, why = False, error.strerror or type(error).__name__
        if not writable and (self._is_ours or self._simulated or settings.database_url is None):
            raise CannotStart(f"the data folder {str(folder)!r} cannot be used: {why}. Set ROLLOUT_DATA_DIR to another")
        self._keeps = writable

    def _set_up_logging(self, upstreams: Upstreams) -> None:
        secrets_here = [upstreams.openrouter_key, upstreams.litellm_key, self._settings.token]
        if self._settings.database_url is not None:
            secrets_here.append(database_url(self._settings.database_url, self._settings.data_dir).password)
        set_up_logging(json=not sys.stderr.isatty(), stream=sys.stderr, secrets=secrets_here)
        for noisy in ("alembic", "uvicorn"):
            logging.getLogger(noisy).setLevel(logging.WARNING)

    @property
    def _is_ours(self) -> bool:
        return self._options.with_gateway and self._settings.litellm_is_ours

    async def _serve(self, door: Door, upstreams: Upstreams, listener: socket.socket) -> int:
        settings = self._settings
        gate = self._gate(upstreams)
        gateway = self._gateway(upstreams, Phases(gate))
        lists = ModelLists(door, gate, allow_paid=upstreams.allow_paid)
        loop = asyncio.get_running_loop()

        def on_models(models: tuple[ListedModel, ...]) -> None:
            loop.run_in_executor(None, lists.heard, models)

        def on_key(used: int | None, limit: int | None) -> None:
            # a limit that was set by hand stands
            gate.told_of_use(used=used or 0, per_day=limit if upstreams.free_requests_per_day is None else None)

        def follow(snapshot: Snapshot) -> None:
            loop.call_soon_threadsafe(configure, gateway, snapshot.cascade)

        upstream = UpstreamWatch(
            upstreams.openrouter_url,
            upstreams.openrouter_key,
            simulated=self._simulated,
            network=upstreams.network,
            on_models=on_models,
            on_key=on_key,
        )
        holder = Holder(
            read_overrides(self._environ),
            KillFile(settings.kill_file, named=settings.kill_file_given),
            salt=settings.salt or PUBLISHED_SALT,
            on_change=follow,
        )
        for problem in (*settings.notes, *holder.problems):
            log.warning("%s", problem)
        plane = Plane(door, settings, holder, gateway=lambda: gateway.state, upstream=lambda: upstream.state, gate=gate)
        plane.start()
        dispatcher = Dispatcher(
            Deciding(holder, upstreams), observe=plane.observe, gate=gate, on_cost=quarantining(door, loop)
        )
        completions = CompletionsApp(dispatcher, plane.may_send, simulated=self._simulated)
        server = Uvicorn(
            server_config(assemble(plane, completions)),
            on_started=functools.partial(self._announce, door, listener),
        )
        tasks = [asyncio.create_task(gateway.run()), asyncio.create_task(upstream.run())]
        for task in tasks:
            task.add_done_callback(say_why_it_ended)
        try:
            with address_left(settings.data_dir, self._address(listener)):
                await server.serve(sockets=[listener])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await dispatcher.aclose()
            plane.stop()
            door.engine.dispose()
        return 0

    def _open_database(self) -> Door:
        settings = self._settings
        engine = open_engine(database_url(settings.database_url, settings.data_dir))
        upgrade(engine)
        door = Door(engine)
        establish(door, new_id=functools.partial(secrets.token_hex, 8), salt=settings.salt)
        return door

    def _gateway(self, upstreams: Upstreams, phases: Phases) -> Supervisor | ExternalGateway:
        settings = self._settings
        if not self._is_ours:
            url = upstreams.litellm_url
            return ExternalGateway(
                url,
                clock=time.time,
                sleep=asyncio.sleep,
                key=upstreams.litellm_key,
                on_change=phases.heard,
                network=upstreams.network,
            )
        data = settings.data_dir.absolute()
        assert upstreams.litellm_key is not None  # noqa: S101 - made above where it was not given
        plan = GatewayPlan(
            environment=(self._options.litellm_environment or data / "litellm").absolute(),
            lock=resource("locks") / "litellm.txt",
            folder=data,
            port=settings.litellm_port,
            upstream_base_url=upstreams.openrouter_url,
            upstream_key=upstreams.openrouter_key or "missing",
            master_key=upstreams.litellm_key,
            allow_paid=upstreams.allow_paid,
        )
        return Supervisor(
            plan,
            cascade=(),
            environ=self._environ,
            clock=time.time,
            sleep=asyncio.sleep,
            random=random.random,
            on_change=phases.heard,
        )

    def _gate(self, upstreams: Upstreams) -> Gate:
        """Make what guards the account: this process owns its quota."""
        record = QuotaFile(self._settings.data_dir / "quota.json")
        keeps = self._keeps and not self._simulated
        limits = QuotaLimits(upstreams.free_requests_per_minute, upstreams.free_requests_per_day)
        return Gate(
            NO_LIMITS if self._simulated else limits,  # the simulator has no quota of ours
            clock=time.monotonic,
            wall=time.time,
            chance=random.random,
            record=record.load() if keeps else None,
            store=record if keeps else None,
        )

    def _check_gateway_port(self) -> None:
        port = self._settings.litellm_port
        if not self._is_ours:
            return
        if port == self._settings.port:
            raise CannotStart(f"ROLLOUT_PORT and LITELLM_PORT are both {port}; set one of them to another port.")
        if not port_is_free("127.0.0.1", port):
            raise CannotStart(
                f"port {port} on 127.0.0.1 is taken, and LiteLLM needs it. "
                "End what holds it, or set LITELLM_PORT to a free port."
            )

    def _address(self, listener: socket.socket) -> str:
        return url_of(self._settings.host, listener.getsockname()[1])

    def _announce(self, door: Door, listener: socket.socket) -> None:
        code = invite(door, _operator_name(), Role.ADMIN, actor=SYSTEM)
        address = self._address(listener)
        say = functools.partial(_say, self._out)
        link = f"{address}/sign-in#code={code}"
        if self._options.as_json:
            say(json.dumps({"sign_in": link, "completions": f"{address}/v1", "simulated": self._simulated}))
            return
        if self._simulated:
            say("No OPENROUTER_API_KEY: the bundled simulator is the upstream; no real model answers.")
        say(f"Admin page:  {link}   (works once, for 15 minutes; then `rollout sign-in`)")
        say(f"Completions: {address}/v1   (OpenAI-compatible; make an access token on the page under Connect)")
        say("Ctrl-C stops everything.")


def _say(out: TextIO, line: str) -> None:
    """Print a line, if anybody still reads: the server goes on without."""
    try:
        print(line, file=out, flush=True)
    except (OSError, ValueError) as error:  # the second: closed
        log.warning("standard output cannot be written to (%s); `rollout sign-in` makes a link", type(error).__name__)


def _operator_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "operator"
