"""Keep LiteLLM running beside us: install, configure, start, watch, start again, stop.

Its state is a frozen value; `state.TRANSITIONS` says which phase may follow which. It is asked for its
liveness and nothing else: `/health` would send a real request to every model. LiteLLM hangs on a leash, so it
ends when we do, however we end.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx

from rollout.gateway import install as installation
from rollout.gateway.child import Child
from rollout.gateway.config import gateway_config, render, write_config
from rollout.gateway.discretion import Discretion
from rollout.gateway.install import InstallCancelled, InstallError
from rollout.gateway.place import BoundedLog, port_is_free
from rollout.gateway.plan import USUAL_PACE, GatewayPlan, Pace, litellm_command, litellm_environment
from rollout.gateway.progress import InstallProgress, Report
from rollout.gateway.state import GatewayPhase
from rollout.gateway.watch import Gateway, OnChange, Sleep, answers
from rollout.network import read_network

Command = Callable[[GatewayPlan], Sequence[str]]
Install = Callable[[GatewayPlan, Mapping[str, str], Report, threading.Event], object]

_UNWELL_AFTER: Final = 2  # unanswered questions in a row; the first alone may be a busy moment, and is shown
_KILLED_AFTER: Final = 8  # about 24 s: a busy LiteLLM gets time, and a request that waits for it is freed


def install_litellm(
    plan: GatewayPlan, environ: Mapping[str, str], report: Report, cancelled: threading.Event
) -> object:
    """Make LiteLLM's environment where the plan wants it."""
    return installation.install(
        plan.environment,
        lock=plan.lock,
        log=plan.folder / "litellm-install.log",
        environ=environ,
        report=report,
        cancelled=cancelled,
    )


class Supervisor(Gateway):
    """Runs LiteLLM for as long as `run` runs.

    Args:
        plan: What to run, and where.
        cascade: Model ids, best first.
        environ: Our own environment; a few harmless variables of it are handed on.
        clock: Seconds since the epoch.
        sleep: Waits that many seconds.
        random: A number in [0, 1), for the jitter.
        on_change: Called in the loop with each new state; must be quick.
        command: What to start.
        install: How its environment is made; runs in a thread.
        pace: How often to look and how long to wait.

    Raises:
        ValueError: The plan or the cascade cannot be made into a configuration.
    """

    def __init__(
        self,
        plan: GatewayPlan,
        *,
        cascade: Sequence[str],
        environ: Mapping[str, str],
        clock: Callable[[], float],
        sleep: Sleep,
        random: Callable[[], float],
        on_change: OnChange = lambda _: None,
        command: Command = litellm_command,
        install: Install = install_litellm,
        pace: Pace = USUAL_PACE,
    ) -> None:
        super().__init__(clock=clock, on_change=on_change)
        self._plan = plan
        self._environ = environ
        self._sleep = sleep
        self._random = random
        self._command = command
        self._install = install
        self._pace = pace
        self._config = self._rendered(cascade)
        self._failures = 0  # in a row; the exponent of the pause

    def set_cascade(self, cascade: Sequence[str]) -> bool:
        """Write the configuration for a changed cascade; return whether it differs.

        No restart: the shim's requests go through the wildcard entry. The aliases of other clients follow at
        LiteLLM's next start.

        Raises:
            ValueError: The cascade cannot be served; the old one stands.
            OSError: The data folder cannot be written to.
        """
        text = self._rendered(cascade)
        changed = write_config(self._plan.config, text)
        self._config = text
        return changed

    async def run(self) -> None:
        """Keep LiteLLM running until cancelled, then end it."""
        try:
            await self._installed()
            while True:
                await self._live_once()
        finally:
            self._enter(GatewayPhase.STOPPED, "the gateway was stopped", answering=False, pid=None)

    async def _installed(self) -> None:
        while True:
            self._enter(GatewayPhase.INSTALLING, "LiteLLM is being installed into its own environment")
            problem = await self._try_install()
            if problem is None:
                self._failures = 0
                return
            self._enter(GatewayPhase.FAILED, problem, last_error=problem)
            await self._pause()

    async def _try_install(self) -> str | None:
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def report(progress: InstallProgress) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody looks any more
                loop.call_soon_threadsafe(self._progress, progress)

        work = asyncio.ensure_future(asyncio.to_thread(self._install, self._plan, self._environ, report, cancelled))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            with contextlib.suppress(InstallCancelled):
                await work  # pip is gone when this returns
            raise
        except InstallError as error:
            return str(error)
        return None

    def _progress(self, progress: InstallProgress) -> None:
        if self._state.phase is GatewayPhase.INSTALLING:
            detail = progress.line or self._state.detail
            self._enter(GatewayPhase.INSTALLING, detail, install=progress)

    async def _live_once(self) -> None:
        """Start LiteLLM, watch it to its end, and wait before the next start."""
        problem = self._cannot_start()
        if problem is None:
            self._enter(GatewayPhase.STARTING, f"{self._start()}; that takes 5 to 30 seconds", pid=None)
            try:
                problem = await self._watched()
            except OSError as error:
                problem = f"LiteLLM could not be started: {error.strerror or error}"
            self._enter(
                GatewayPhase.RESTARTING,
                f"{problem}; starting it again",
                answering=False,
                pid=None,
                restarts=self._state.restarts + 1,
                last_error=problem,
            )
        else:
            self._enter(GatewayPhase.FAILED, problem, answering=False, last_error=problem)
        await self._pause()

    def _start(self) -> str:
        """Return what is being done, as a sentence that does not hide that LiteLLM ended by itself before."""
        return f"{self._state.last_error}; it is starting again" if self._state.restarts else "LiteLLM is starting"

    def _cannot_start(self) -> str | None:
        try:
            write_config(self._plan.config, self._config)
            if self._plan.certificates is not None:
                write_config(self._plan.certificates, read_network(self._environ).certificates())
        except OSError as error:
            return f"LiteLLM's configuration cannot be written: {error.strerror or error} ({self._plan.config})"
        try:
            free = port_is_free(self._plan.host, self._plan.port)
        except ValueError as error:
            return f"LiteLLM cannot listen: {error}; set LITELLM_PORT"
        if not free:
            return (
                f"port {self._plan.port} on {self._plan.host} is taken by another program; neither LiteLLM nor "
                "rollout is at fault. End that program or set LITELLM_PORT to a free port; it is tried again"
            )
        return None

    async def _watched(self) -> str:
        """Run LiteLLM once; return why it ended."""
        plan = self._plan
        with (
            BoundedLog(plan.log, secret_values=(plan.upstream_key, plan.master_key)) as log,
            Discretion(log.write, environment=plan.environment) as discretion,
        ):
            async with Child(
                self._command(plan),
                environ=litellm_environment(plan, self._environ),
                folder=plan.folder,
                output=discretion.write,
            ) as child:
                self._enter(GatewayPhase.STARTING, self._state.detail, pid=child.pid, log=plan.log)
                async with httpx.AsyncClient(
                    base_url=f"http://{plan.host}:{plan.port}", trust_env=False, timeout=self._pace.answer_within
                ) as http:
                    return await self._until_the_end(child, http, discretion.serving)

    async def _until_the_end(self, child: Child, http: httpx.AsyncClient, serving: Callable[[], None]) -> str:
        began = well_since = self._clock()
        unanswered = 0
        while True:
            starting = self._state.phase is GatewayPhase.STARTING
            await self._either(child.ended, self._pace.look_while_starting if starting else self._pace.look)
            if child.ended.done():
                return f"LiteLLM ended by itself ({child.ended.result()}); its last words are in {self._plan.log.name}"
            answered = await answers(http)
            now = self._clock()
            if answered:
                unanswered = 0
                serving()
                if self._state.phase is not GatewayPhase.HEALTHY:
                    well_since = now
                self._enter(GatewayPhase.HEALTHY, "LiteLLM answers", answering=True)
                if now - well_since >= self._pace.stable_after:
                    self._failures = 0
                continue
            unanswered += 1
            if starting and now - began < self._pace.start_within:
                continue
            if starting:
                return f"LiteLLM did not answer within {self._pace.start_within:.0f} seconds of its start"
            if unanswered >= _KILLED_AFTER:
                return f"LiteLLM left {unanswered} questions for its health unanswered"
            problem = f"LiteLLM left {_questions(unanswered)} for its health unanswered; it is ended if that goes on"
            phase = GatewayPhase.UNWELL if unanswered >= _UNWELL_AFTER else self._state.phase
            self._enter(phase, problem, answering=False, last_error=problem)

    async def _either(self, ended: "asyncio.Future[str]", seconds: float) -> None:
        """Wait until the process ends or the time has passed."""
        nap = asyncio.ensure_future(self._sleep(seconds))
        try:
            both: set[asyncio.Future[Any]] = {ended, nap}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await nap

    async def _pause(self) -> None:
        await self._sleep(pause_before_restart(self._failures, pace=self._pace, random=self._random))
        self._failures += 1

    def _rendered(self, cascade: Sequence[str]) -> str:
        return render(
            gateway_config(
                cascade,
                upstream_base_url=self._plan.upstream_base_url,
                request_timeout=self._plan.request_timeout,
                allow_paid=self._plan.allow_paid,
            )
        )


def _questions(number: int) -> str:
    return "1 question" if number == 1 else f"{number} questions"


def pause_before_restart(failures: int, *, pace: Pace, random: Callable[[], float]) -> float:
    """Return seconds to wait after `failures` earlier ones in a row.

    Doubles up to a cap; between half and all of it, so that several installations do not start in step
    ("equal jitter", AWS Architecture Blog, Exponential Backoff And Jitter, 2015).
    """
    whole = min(pace.longest_pause, pace.first_pause * 2.0 ** min(failures, 32))
    return whole / 2 + random() * whole / 2
