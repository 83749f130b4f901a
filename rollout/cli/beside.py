"""What runs beside the server: the listening socket, the simulator's process, and the first cascade."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import pathlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Final

from rollout.control.installation import set_cascade
from rollout.control.models import quarantine, watch_models
from rollout.domain.actor import SYSTEM, ActorKind
from rollout.domain.cascade import ListedModel, propose_cascade
from rollout.domain.errors import RolloutError
from rollout.domain.flag import Path
from rollout.domain.identity import MAX_REASON
from rollout.domain.ledger import Entry, unseal
from rollout.gateway.child import Child
from rollout.gateway.place import port_is_free
from rollout.gateway.supervise import Supervisor
from rollout.gateway.watch import ExternalGateway
from rollout.resilience.gate import Gate
from rollout.settings import Settings
from rollout.store.door import Door
from rollout.store.flags import read_cascade
from rollout.store.ledger import read_entry

log = logging.getLogger("rollout")

MAX_PORT: Final = 65_535
SIMULATOR_SECRET: Final = "simulator.secret"  # noqa: S105 - a file's name
"""The file of the data folder that holds the secret of our simulator's control routes."""

_SIMULATOR_START_SECONDS: Final = 20.0


class CannotStart(RolloutError):
    """Something has to be put right before the server can run; nothing was started."""


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """Listen on the port before anything else is done, so that a taken one costs nothing."""
    host = settings.host.strip("[]")  # an IPv6 address as it stands in a URL
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, settings.port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise CannotStart(
                    f"port {settings.port} on {settings.host} is taken. "
                    "End what holds it, or set ROLLOUT_PORT to a free port."
                ) from None
            raise CannotStart(
                f"cannot listen on {settings.host!r} port {settings.port}: {error.strerror or error}. "
                "Check ROLLOUT_HOST and ROLLOUT_PORT."
            ) from None
        listener.listen(2048)
        yield listener


def first_cascade(door: Door, models: tuple[ListedModel, ...]) -> None:
    """Set the cascade from what is free today, where there is none yet or only one of ours that cannot work here.

    A cascade that we chose and of which the upstream lists nothing was chosen for another upstream: the
    simulator's, before there was a key. One that a person set is never touched.
    """
    with door.reading() as connection:
        cascade = read_cascade(connection)
        ours = not cascade.models or _is_ours(unseal(read_entry(connection, cascade.revision)))
    if not ours or {model.id for model in models}.intersection(cascade.models):
        return
    proposal = propose_cascade(models)
    if not proposal.models:
        log.error("the upstream lists no free model; set the cascade with `rollout cascade set`")
        return
    left_out = "; ".join(f"{model} is {why}" for model, why in proposal.left_out)
    why = "the upstream lists none of the models before" if cascade.models else "first start"
    reason = f"{why}; left out of the plan: {left_out}" if left_out else why
    try:
        set_cascade(door, proposal.models, actor=SYSTEM, reason=reason[:MAX_REASON], seen=cascade.revision)
    except RolloutError as error:
        log.warning("the first cascade was not set: %s", error.message)


def _is_ours(entry: Entry) -> bool:
    # an entry without a kind is older than kinds; since then a person's name may be the same as ours
    return entry.actor == SYSTEM and entry.actor_kind in {ActorKind.SYSTEM, None}


class ModelLists:
    """Hears each list of models the upstream gives: the first cascade, models that are gone, models that cost.

    Called from one thread at a time, never from the event loop: it writes to the database.
    """

    def __init__(self, door: Door, gate: Gate, *, allow_paid: bool) -> None:
        self._door = door
        self._gate = gate
        self._allow_paid = allow_paid
        self._missing: frozenset[str] = frozenset()

    def heard(self, models: tuple[ListedModel, ...]) -> None:
        """Take over what a list says."""
        try:
            first_cascade(self._door, models)
            if not self._allow_paid:
                self._gate.not_free(model.id for model in models if not model.free)
            self._missing = watch_models(self._door, models, self._missing, allow_paid=self._allow_paid)
        except RolloutError as error:
            log.warning("the upstream's list of models was not followed: %s", error.message)


def quarantining(door: Door, loop: asyncio.AbstractEventLoop) -> Callable[[str, float, Path], None]:
    """Return what the completions endpoint calls, on the loop, when an answer cost money: put it on record."""

    def record(model: str, cost: float, path: Path) -> None:
        try:
            quarantine(door, model, cost, path)
        except RolloutError as error:
            log.error("%s cost money and is no longer asked here, but is not on record: %s", model, error.message)  # noqa: TRY400

    def on_cost(model: str, cost: float, path: Path) -> None:
        loop.run_in_executor(None, record, model, cost, path)

    return on_cost


def configure(gateway: Supervisor | ExternalGateway, cascade: tuple[str, ...]) -> None:
    """Tell the gateway the cascade its other clients walk down."""
    try:
        gateway.set_cascade(cascade)
    except (ValueError, OSError) as error:
        log.error("the gateway's configuration was not written: %s", error)  # noqa: TRY400 - the sentence is enough


def say_why_it_ended(task: asyncio.Task[None]) -> None:
    """Log why a task ended that should run as long as the server does."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task beside the server ended: %s", error, exc_info=error)


def simulator_port(ours: int, *, taken: int | None) -> int:
    """Return the port the simulator is to listen on, 0 for any: near our own, so that settings hold over a restart.

    Args:
        ours: the server's, 0 where it picks one.
        taken: LiteLLM's, where it is ours and will listen there later.
    """
    near = range(ours + 1, min(ours + 3, MAX_PORT + 1)) if ours else ()
    return next((port for port in near if port != taken and port_is_free("127.0.0.1", port)), 0)


@contextlib.asynccontextmanager
async def simulator(folder: pathlib.Path, environ: Mapping[str, str], *, port: int) -> AsyncIterator[str]:
    """Run the bundled simulator as a process of its own, on `port` (0: a free one); yields its base URL."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[str] = loop.create_future()
    said = bytearray()

    def output(chunk: bytes) -> None:
        if ready.done():
            return
        said.extend(chunk)
        line, newline, _ = bytes(said).partition(b"\n")
        if newline:
            ready.set_result(line.decode("utf-8", "replace").strip())

    # a bare name: the process runs in its folder
    told = ["--port", str(port), "--secret-file", SIMULATOR_SECRET]
    command = [sys.executable, "-m", "rollout.simulator", *told]
    async with Child(command, environ=environ, folder=folder, output=output) as child:
        waits: set[asyncio.Future[str]] = {ready, child.ended}
        await asyncio.wait(waits, timeout=_SIMULATOR_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        url = ready.result() if ready.done() else ""
        if not url.startswith("http://"):
            raise CannotStart(f"the simulator did not start: {url or 'it said nothing'}")
        yield url
