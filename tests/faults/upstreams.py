"""The parts a fault is played with: the simulated upstream, real LiteLLM processes, and a client that decides."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from rollout.domain.evaluate import Decider, Evaluation
from rollout.domain.flag import Flag
from rollout.gateway import leash
from rollout.gateway.config import gateway_config, render, write_config
from rollout.gateway.install import install
from rollout.gateway.plan import GatewayPlan, litellm_command, litellm_environment
from rollout.resources import resource
from rollout.settings import Upstreams
from rollout.simulator import Fault, Kind, World

ROOT: Final = Path(__file__).resolve().parents[2]
UPSTREAM_KEY: Final = "sk-or-faults-secret"
MASTER_KEY: Final = "sk-faults-master-secret"
MODELS: Final = ("northwind/gale-70b-instruct:free", "fjordlabs/skagen-24b:free", "lumen/aurora-3-flash:free")
"""The cascade of every cell; in ways they are called 1, 2 and 3."""

QUESTION: Final = [{"role": "user", "content": "Hej Åsa 👋"}]


def steady_wall() -> Callable[[], float]:
    """Return a clock of seconds since the epoch that begins at a noon: no run meets midnight or splits a minute."""
    noon, began = 1_800_014_400.0, time.monotonic()
    return lambda: noon + time.monotonic() - began


def litellm_folder() -> Path:
    """Return LiteLLM's own environment, installed unless it is there; shared by all runs in this checkout."""
    return install(
        ROOT / ".cache" / "litellm",
        lock=resource("locks") / "litellm.txt",
        log=ROOT / ".cache" / "litellm-install.log",
        environ=os.environ,
    )


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Gateway:
    """One LiteLLM process; `pid` is its own, not the leash's."""

    url: str
    pid: int
    log: Path

    def kill(self) -> None:
        """End it as a full machine would: at once, with everything that is on its way."""
        os.kill(self.pid, signal.SIGKILL)

    def wait_until_it_answers(self, within: float = 180.0) -> None:
        """Wait for its liveness; a real question is never asked."""
        end = time.monotonic() + within
        with httpx.Client(trust_env=False, timeout=5) as http:
            while time.monotonic() < end:
                try:
                    if http.get(f"{self.url}/health/liveliness").status_code == 200:
                        return
                except httpx.TransportError:
                    time.sleep(0.2)
        raise AssertionError(f"LiteLLM did not answer within {within:.0f} s; its words are in {self.log}")


@contextmanager
def litellm(
    folder: Path, upstream_base_url: str, change: Callable[[dict[str, Any]], None] = lambda _: None
) -> Iterator[Gateway]:
    """Run the real LiteLLM as the product configures it, or as `change` makes of that; on a leash."""
    plan = GatewayPlan(
        environment=litellm_folder(),
        lock=resource("locks") / "litellm.txt",
        folder=folder,
        port=free_port(),
        upstream_base_url=upstream_base_url,
        upstream_key=UPSTREAM_KEY,
        master_key=MASTER_KEY,
    )
    config = gateway_config(MODELS, upstream_base_url=upstream_base_url)
    change(config)
    write_config(plan.config, render(config))
    read_end, write_end = os.pipe()
    with plan.log.open("wb") as log:
        held = subprocess.Popen(
            [sys.executable, "-I", leash.__file__, "--report", str(write_end), "--", *litellm_command(plan)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=folder,
            env=litellm_environment(plan, os.environ), pass_fds=(write_end,), start_new_session=True,
        )  # fmt: skip
    os.close(write_end)
    try:
        with os.fdopen(read_end) as reported:
            pid = int(reported.readline())
        yield Gateway(f"http://127.0.0.1:{plan.port}", pid, plan.log)
    finally:
        assert held.stdin is not None
        held.stdin.close()
        try:
            held.wait(timeout=15)
        finally:
            if held.poll() is None:
                held.kill()
                held.wait()


class Everybody:
    """A client that sends everybody the same way."""

    def __init__(self, upstreams: Upstreams, cascade: tuple[str, ...], *, share: int) -> None:
        self._decider = Decider(Flag("enableLiteLLM", "salt", share=share, revision=1))
        self.cascade = cascade
        self.upstreams = upstreams

    def evaluate(self, flag: str, targeting_key: object, /) -> Evaluation:
        return self._decider.evaluate(targeting_key, 0.0, 0.0)

    def wait_until_ready(self, timeout: float, /) -> bool:
        return True


def upstreams_at(upstream_base_url: str, gateway_url: str, limits: Mapping[str, Any]) -> Upstreams:
    """Return where the two paths lead; deadlines that are not in `limits` are longer than a busy machine needs."""
    standard = {"total_timeout": 30.0, "attempt_timeout": 20.0, "first_token_timeout": 20.0, "stall_timeout": 20.0}
    keys = {"openrouter_key": UPSTREAM_KEY, "litellm_key": MASTER_KEY}
    return Upstreams(
        openrouter_url=upstream_base_url,
        litellm_url=gateway_url,
        free_requests_per_minute=0,
        free_requests_per_day=0,
        **{**keys, **standard, **limits},
    )


def cool_down(config: dict[str, Any]) -> None:
    """Configure LiteLLM as somebody else might: an entry for each model, and the breaker of its own."""
    config["router_settings"].update(disable_cooldowns=False, allowed_fails=0, cooldown_time=3_600)
    for model, entry in zip(MODELS, list(config["model_list"]), strict=False):
        config["model_list"].append({**entry, "model_name": f"openrouter/{model}"})


def warm(gateway: Gateway) -> None:
    """Ask once, as the first question loads half of LiteLLM."""
    answer = _asked(gateway, f"openrouter/{MODELS[0]}")
    assert answer.status_code == 200, answer.text


def cool(gateway: Gateway, world: World, names: Sequence[str]) -> None:
    """Open the gateway's breaker for every name by a bad moment of the upstream, which is over afterwards."""
    world.script.play([Fault(Kind.UNAUTHORIZED)])
    try:
        for name in names:
            end = time.monotonic() + 20
            while (answer := _asked(gateway, name)).status_code != 429 or "retry-after" not in answer.headers:
                assert time.monotonic() < end, f"{name} never cooled down: {answer.text}"
                time.sleep(0.1)  # its breaker hears of a failure a moment after the caller
    finally:
        world.script.play([])


def _asked(gateway: Gateway, name: str) -> httpx.Response:
    return httpx.post(
        f"{gateway.url}/v1/chat/completions",
        json={"model": name, "messages": QUESTION, "disable_fallbacks": True},
        headers={"authorization": f"Bearer {MASTER_KEY}", "x-litellm-num-retries": "0"},
        timeout=60,
        trust_env=False,
    )
