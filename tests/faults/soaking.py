"""The process that the soak loads: the completions endpoint over both paths, and what it holds open, to be asked.

    python -m tests.faults.soaking '{"upstream": ..., "gateway": ..., "per_minute": ..., "seed": ...}'

Prints its URL, serves until its standard input ends. `GET /held` says what it holds.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import uvicorn

from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.endpoint import CompletionsApp
from rollout.resilience.gate import Gate
from rollout.resilience.quota import QuotaLimits
from tests.faults.upstreams import MODELS, Everybody, upstreams_at

LIMITS: Final = {"total_timeout": 8.0, "attempt_timeout": 3.0, "first_token_timeout": 2.0, "stall_timeout": 2.0}


def held() -> dict[str, int]:
    """Count what this process holds: memory in bytes, tasks of the loop, open sockets."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    sockets = 0
    for each in Path("/proc/self/fd").iterdir():
        try:
            sockets += str(each.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue  # the one this very listing was read through
    return {"resident": resident, "tasks": len(asyncio.all_tasks()), "sockets": sockets}


def app_for(wanted: Mapping[str, Any]) -> Any:
    """Return the endpoint, with a route that says what is held."""
    upstreams = replace(
        upstreams_at(wanted["upstream"], wanted["gateway"], LIMITS), free_requests_per_minute=wanted["per_minute"]
    )
    gate = Gate(
        QuotaLimits(wanted["per_minute"], 0),
        clock=time.monotonic,
        wall=time.time,
        chance=random.Random(wanted["seed"]).random,
    )
    dispatcher = Dispatcher(Everybody(upstreams, MODELS, share=50_000), gate=gate)
    app = CompletionsApp(dispatcher, lambda access: access == "soak")

    async def either(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/held":
            await app(scope, receive, send)
            return
        status = gate.status()
        found = {
            **held(),
            "used": status.quota.used_today,
            "open": [f"{line.path} {line.model or ''}" for line in status.breakers if line.status.state != "closed"],
        }
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})

    return either


async def main(wanted: Mapping[str, Any]) -> None:
    """Serve until standard input ends."""
    server = uvicorn.Server(uvicorn.Config(app_for(wanted), host="127.0.0.1", port=0, log_config=None, ws="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn says so by nothing else
        await asyncio.sleep(0.01)
    print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
