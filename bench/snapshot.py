"""Telling the fleet: how often one process of the real control plane answers what every client asks each second."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.load import Load
from bench.processes import python_server, request
from bench.report import Part, Series, at_least, number, times
from bench.world import make_database, rollout_serve
from rollout.domain.flag import MAIN_FLAG

FLOOR: Final = "bare ASGI, a cached kilobyte"
WHOLE: Final = "GET /api/v1/snapshot, whole (200)"
UNCHANGED: Final = "GET /api/v1/snapshot, unchanged (304)"
EVALUATE: Final = "POST /api/v1/evaluate"


def run(rounds: int) -> Part:
    found = Series()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stub = stack.enter_context(python_server("the upstream stub", "bench.stub"))
        bare = stack.enter_context(python_server(FLOOR, "bench.bare"))
        secret = make_database(folder)
        serve = stack.enter_context(rollout_serve(folder, stub.port))
        bearer = {"Authorization": f"Bearer {secret}"}
        serve.wait(request("GET", "/api/v1/snapshot", headers={**bearer, "Connection": "close"}))
        cached = request("GET", "/")
        bare.wait(cached)
        load = stack.enter_context(Load())
        question = b'{"flag":"%s","context":{"targetingKey":"user-1"}}' % MAIN_FLAG.encode()
        contenders = {
            FLOOR: (bare.port, cached),
            WHOLE: (serve.port, request("GET", "/api/v1/snapshot", headers=bearer)),
            UNCHANGED: (
                serve.port,
                request("GET", "/api/v1/snapshot", headers={**bearer, "If-None-Match": _tag(serve.port, bearer)}),
            ),
            EVALUATE: (serve.port, request("POST", "/api/v1/evaluate", headers=bearer, body=question)),
        }
        for port, asked in contenders.values():
            load.run(port, [asked], concurrency=32, seconds=0.3)
        for _ in range(rounds):
            for name, (port, asked) in contenders.items():
                found.add(name, load.run(port, [asked], concurrency=32, seconds=1.0).per_second)
    return Part(
        title="Telling the fleet",
        head=("one process, 32 at once", "req/s", "of the floor"),
        rows=[(name, number(found.median(name)), times(found.ratio(name, FLOOR))) for name in contenders],
        aims=[at_least("snapshot, req/s", found.median(WHOLE), 5000)],
        notes=("`rollout serve` on SQLite, one flag, ten forced users, with an access token.",),
    )


def _tag(port: int, headers: dict[str, str]) -> str:
    from http.client import HTTPConnection

    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/api/v1/snapshot", headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.headers["ETag"]
    finally:
        connection.close()
