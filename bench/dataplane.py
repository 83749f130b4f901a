"""The completions endpoint alone, one process: `python -m bench.dataplane PORT`, upstreams from the environment.

Half of the users go each way, some are forced; every request is evaluated, counted and answered with headers.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import uvicorn

from bench.world import SECRET, a_snapshot
from rollout.client.holder import Holder
from rollout.client.killfile import KillFile
from rollout.dispatch.decision import Exchange
from rollout.dispatch.endpoint import create_data_plane
from rollout.domain.evaluate import Evaluation
from rollout.settings import Upstreams, parse_settings


class Known:
    """Decides from a snapshot in memory, and looks for a kill file as every process does."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._holder = Holder(kill_file=KillFile(Path("no-kill-file-here")))
        self._holder.replace(a_snapshot(overrides=1000), confirmed_at=time.time())
        self.upstreams = upstreams

    def evaluate(self, flag: str, targeting_key: object, /) -> Evaluation:
        """Say which path a user takes."""
        return self._holder.evaluate(flag, targeting_key)

    @property
    def cascade(self) -> tuple[str, ...]:
        """Return the model ids."""
        return self._holder.cascade or ()

    def wait_until_ready(self, _timeout: float, /) -> bool:
        """Say that there is nothing to wait for."""
        return True


def main(port: int) -> None:
    tokens = {sha256(SECRET.encode()).hexdigest()}  # as access tokens are kept, without the store's libraries
    counted: Counter[tuple[str, str | None]] = Counter()

    def authorize(secret: str) -> bool:
        return sha256(secret.encode()).hexdigest() in tokens

    def count(exchange: Exchange) -> None:
        counted[exchange.decision.path, exchange.failure] += 1

    # what is measured is not the account's quota
    unlimited = replace(parse_settings(os.environ).upstreams, free_requests_per_minute=0, free_requests_per_day=0)
    known = Known(unlimited)
    uvicorn.run(
        create_data_plane(known, authorize=authorize, observe=count),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
