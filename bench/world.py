"""The flags, users, requests and databases that are measured with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.processes import Server, free_port
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT, Flag, Override, Variant
from rollout.domain.share import WHOLE
from rollout.domain.snapshot import Snapshot

MODEL: Final = "bench/model:free"
SECRET: Final = "rollout_bench"  # what callers of the endpoint send as their access token
KEY: Final = "sk-bench-0123456789abcdef0123456789"  # for upstreams, which take any
HALF: Final = WHOLE // 2


def users(count: int) -> Sequence[str]:
    """Return ids of users none of whom is forced."""
    return [f"user-{number:08d}@example.org" for number in range(count)]


def forced(count: int) -> Sequence[str]:
    """Return ids of users who are forced on."""
    return [f"forced-{number:08d}@example.org" for number in range(count)]


def flag_keys(count: int) -> Sequence[str]:
    """Return the keys of so many flags, the main one among them."""
    return [MAIN_FLAG, *(f"flag-{number:05d}" for number in range(1, count))]


def a_snapshot(*, overrides: int = 10, flags: int = 1) -> Snapshot:
    """Return flags at 50 %, of which the main one forces so many users on."""
    people = {user: Override(Variant.ON) for user in forced(overrides)}
    made = {
        key: Flag(
            key,
            PUBLISHED_SALT if key == MAIN_FLAG else f"salt of {key}",
            share=HALF,
            revision=7,
            overrides=people if key == MAIN_FLAG else {},
        )
        for key in flag_keys(flags)
    }
    return Snapshot("bench", 7, "0" * 64, made, (MODEL,))


def chat(*, stream: bool = False, model: str = MODEL, user: str = "") -> dict[str, Any]:
    """Return a request for a completion."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": "Say what a share of users is, and why one would raise it slowly. " * 3},
        ],
        "temperature": 0.2,
    }
    if stream:
        body["stream"] = True
    if user:
        body["user"] = user
    return body


def chats(count: int, *, stream: bool = False, model: str = MODEL) -> Sequence[bytes]:
    """Return the bodies of requests of so many users."""
    return [json.dumps(chat(stream=stream, model=model, user=user)).encode() for user in users(count)]


def upstream_variables(port: int) -> dict[str, str]:
    """Return the environment in which both paths lead to the stub at a port."""
    return {
        "OPENROUTER_BASE_URL": f"http://127.0.0.1:{port}/api/v1",
        "OPENROUTER_API_KEY": KEY,
        "LITELLM_BASE_URL": f"http://127.0.0.1:{port}",
        "LITELLM_MASTER_KEY": KEY,
        # what is measured is not the account's quota
        "ROLLOUT_FREE_REQUESTS_PER_MINUTE": "0",
        "ROLLOUT_FREE_REQUESTS_PER_DAY": "0",
    }


def rollout_serve(folder: Path, stub_port: int) -> Server:
    """Return `rollout serve` over a database that was made in a folder, not started yet."""
    port = free_port()
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "ROLLOUT_DATA_DIR": str(folder),
        "ROLLOUT_PORT": str(port),
        **upstream_variables(stub_port),
    }
    command = [sys.executable, "-m", "rollout", "serve"]
    return Server("rollout serve", command, port=port, environ=environ)


def make_database(folder: Path) -> str:
    """Make a database with the flag at 50 %, a cascade and forced users; return a secret that may evaluate and send."""
    # the store's libraries take a while to load, and most parts do without
    from rollout.control.access import create_token
    from rollout.control.flags import FlagChange, change_flag, set_override
    from rollout.control.installation import establish, set_cascade
    from rollout.domain.roles import Role
    from rollout.store.door import Door
    from rollout.store.engine import database_url, open_engine
    from rollout.store.migrate import upgrade

    engine = open_engine(database_url(None, folder))
    try:
        upgrade(engine)
        door = Door(engine)
        establish(door, new_id=lambda: "bench")
        set_cascade(door, [MODEL], actor="bench")
        change_flag(door, MAIN_FLAG, FlagChange(share=HALF), actor="bench")
        for user in forced(10):
            set_override(door, MAIN_FLAG, user, Variant.ON, actor="bench")
        return create_token(door, "bench", Role.EVALUATE, actor="bench").secret
    finally:
        engine.dispose()
