"""Minutes of mixed faults on both paths, many users, a quota that is used up: what users see, and what is left."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from rollout.simulator import Fault, Kind, World, running
from rollout.simulator.account import Account
from tests.faults.upstreams import MODELS, ROOT, UPSTREAM_KEY, litellm, warm

pytestmark = [pytest.mark.litellm, pytest.mark.processes, pytest.mark.soak]

SEED: Final = 11
SECONDS: Final = 130.0
WARM_SECONDS: Final = 20.0
OUTAGE: Final = (24.0, 34.0)
USERS: Final = 24
THINKING_SECONDS: Final = 1.5
PER_MINUTE: Final = 600
PATIENCE_SECONDS: Final = 12.0
LEAVING: Final = 0.05
MIB: Final = 1024 * 1024

# shares of all calls that reach the upstream; what can no longer be mended, because a part was delivered, is rare
MIX: Final = (
    (Kind.ERROR_500, 0.015),
    (Kind.ERROR_502, 0.005),
    (Kind.ERROR_503_RETRY_AFTER, 0.005),
    (Kind.UPSTREAM_BUSY, 0.015),
    (Kind.HANG, 0.004),
    (Kind.HEADERS_THEN_SILENCE, 0.002),
    (Kind.COMMENTS_FOREVER, 0.003),
    (Kind.FINISH_REASON_ERROR_AT_ONCE, 0.007),
    (Kind.EMPTY_CONTENT, 0.007),
    (Kind.HTML_200, 0.004),
    (Kind.ERROR_IN_200_BODY, 0.004),
    (Kind.CUT_CONNECTION, 0.001),
    (Kind.MID_STREAM_ERROR, 0.001),
    (Kind.ONE_TOKEN_THEN_SILENCE, 0.0005),
)


def mixed() -> list[Fault]:
    return [Fault(kind, probability=share) for kind, share in MIX]


@dataclass
class Told:
    """What the users were told: how often they were served, refused by the quota, let down, and why."""

    served: int = 0
    refused: int = 0
    left: int = 0
    why: Counter[str] = field(default_factory=Counter)

    @property
    def let_down(self) -> int:
        return sum(self.why.values())

    @property
    def availability(self) -> float:
        """Return the share of those served among all who neither left nor were refused by the quota."""
        return self.served / max(1, self.served + self.let_down)

    def __str__(self) -> str:
        asked = self.served + self.let_down
        return f"{self.availability:.2%} of {asked} served; {self.left} left by themselves; let down: {dict(self.why)}"


def problem_in(status: int, raw: bytes, *, stream: bool) -> str | None:
    """Return why an answer is no good to its user, None where it is whole."""
    text = raw.decode("utf-8", "replace")
    if status != 200:
        try:
            return str(json.loads(text)["error"]["code"])
        except (ValueError, LookupError, TypeError):
            return f"HTTP {status}"
    try:
        if not stream:
            content = json.loads(text)["choices"][0]["message"]["content"] or ""
            return None if content.endswith("Hej!") else "broken"
        content = ""
        events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
        for event in events:
            if event == "[DONE]":
                return None if content.endswith("Hej!") else "broken"
            document = json.loads(event)
            if "error" in document:
                return f"in the stream: {document['error'].get('code')}"
            content += "".join(choice["delta"].get("content") or "" for choice in document["choices"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return "unreadable"
    return "no [DONE]"


async def user(
    number: int, http: httpx.AsyncClient, url: str, headers: dict[str, str], told: Told, end: float, model: str | None
) -> None:
    """Ask, think, ask again until the end; come back when told to, and now and then leave in the middle."""
    chance = random.Random(f"{SEED}:{number}")
    while (now := time.monotonic()) < end:
        stream, leaves = chance.random() < 0.4, chance.random() < LEAVING
        body: dict[str, Any] = {
            "messages": [{"role": "user", "content": "Hej!"}], "user": f"user-{number}", "stream": stream,
        } | ({"model": model} if model else {})  # fmt: skip
        rest = chance.expovariate(1 / THINKING_SECONDS)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                async with http.stream("POST", url, json=body, headers=headers) as answer:
                    if leaves:
                        told.left += 1
                        continue
                    raw = await answer.aread()
            problem = problem_in(answer.status_code, raw, stream=stream)
            if problem == "minute_cap":
                told.refused += 1
                rest = float(answer.headers["retry-after"])
            elif problem is None:
                told.served += 1
            else:
                told.why[problem] += 1
        except (TimeoutError, httpx.HTTPError) as error:
            told.why[type(error).__name__] += 1
        await asyncio.sleep(min(rest, max(0.0, end - now)))


async def crowd(url: str, headers: dict[str, str], end: float, model: str | None = None) -> Told:
    told = Told()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS, limits=limits) as http:
        await asyncio.gather(*(user(number, http, url, headers, told, end, model) for number in range(USERS)))
    return told


@contextmanager
def loaded(**wanted: Any) -> Iterator[str]:
    """Run the endpoint as a process of its own; gives its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.soaking", json.dumps(wanted)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        try:
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
            process.stdout.close()


def asked(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/held", trust_env=False).json()
    return found


async def events(began: float, *worlds: World, sample: Callable[[], Any]) -> list[Any]:
    """Let one model fail altogether for a while; sample what the process holds, once it is warm."""
    samples = []
    bad = Fault(Kind.ERROR_500, model=MODELS[0])
    script = [(WARM_SECONDS, None), (OUTAGE[0], [bad, *mixed()]), (OUTAGE[1], mixed()), (SECONDS * 0.6, None)]
    for at, faults in [*script, (SECONDS * 0.8, None), (SECONDS, None)]:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        if faults is None:
            samples.append(await asyncio.to_thread(sample))
        else:
            for world in worlds:
                world.script.play(faults)
    return samples


def wait_until_idle(url: str, before: dict[str, Any]) -> dict[str, Any]:
    """Return what is held once everything is over; idle connections are given the time to be let go."""
    end = time.monotonic() + 15
    while (now := asked(url)) and time.monotonic() < end:
        if now["tasks"] <= before["tasks"] and now["sockets"] <= before["sockets"]:
            break
        time.sleep(0.25)
    return now


def test_minutes_of_mixed_faults_are_survived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(seed=SEED, withdrawn=())
    bare = World(seed=SEED, withdrawn=())
    with ExitStack() as stack:
        upstream, without = stack.enter_context(running(world)), stack.enter_context(running(bare))
        gateway = stack.enter_context(litellm(tmp_path, upstream))
        gateway.wait_until_it_answers()
        warm(gateway)
        world.account = Account(world.clock, per_minute=PER_MINUTE)  # from here on it counts
        world.record.clear()
        url = stack.enter_context(loaded(upstream=upstream, gateway=gateway.url, per_minute=PER_MINUTE, seed=SEED))
        before = asked(url)
        world.script.play(mixed())
        bare.script.play(mixed())
        began = time.monotonic()

        async def everything() -> tuple[Told, Told, list[Any]]:
            end = began + SECONDS
            with_shim = crowd(f"{url}/v1/chat/completions", {"authorization": "Bearer soak"}, end)
            raw = crowd(f"{without}/chat/completions", {"authorization": f"Bearer {UPSTREAM_KEY}"}, end, MODELS[0])
            sampled = events(began, world, bare, sample=lambda: asked(url))
            served, unshielded, samples = await asyncio.gather(with_shim, raw, sampled)
            return served, unshielded, samples

        told, alone, samples = asyncio.run(everything())
        after = wait_until_idle(url, before)
        entries = list(world.record)
    capped = [entry for entry in entries if entry.status == 429 and entry.fault is None]
    minutes = Counter(int(entry.at) // 60 for entry in entries)
    via = Counter(entry.via for entry in entries)
    grown = (after["resident"] - samples[0]["resident"]) / MIB
    faulty = sum(share for _, share in MIX)
    rows = {
        "the load": f"{SECONDS:.0f} s, {USERS} users, {PER_MINUTE} requests a minute, {faulty:.1%} of the calls "
        f"at fault, one model out for {OUTAGE[1] - OUTAGE[0]:.0f} s",
        "with the shim": f"{told}; {told.refused} refused by the quota",
        "without it": str(alone),
        "at the upstream": f"{dict(via)}; at most {max(minutes.values())} a minute; caps answered: {len(capped)}",
        "memory": f"{samples[0]['resident'] / MIB:.0f} MiB warm, {after['resident'] / MIB:.0f} MiB at the end",
        "held before": f"{before['tasks']} tasks, {before['sockets']} sockets",
        "held after": f"{after['tasks']} tasks, {after['sockets']} sockets; open breakers: {after['open'] or 'none'}",
    }
    with capsys.disabled():
        print("\n\nthe soak\n" + "\n".join(f"  {name:16}{text}" for name, text in rows.items()))
    assert told.served > 500
    assert told.refused > 0, "the quota never mattered, so nothing was shown"
    assert set(via) == {"direct", "litellm"}
    assert told.availability > 0.99
    assert told.availability > alone.availability
    assert not capped, f"the account's quota was overrun {len(capped)} times"
    assert grown < 24, f"memory grew by {grown:.0f} MiB after the warm-up"
    assert after["tasks"] <= before["tasks"], "tasks were left behind"
    assert after["sockets"] <= before["sockets"], "connections were left open"
    assert not [entry.seq for entry in entries if not entry.finished], "upstream calls are still open"
