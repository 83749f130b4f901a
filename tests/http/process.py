"""The real server as a process of its own, which a test may freeze, end and start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from rollout.control.access import invite
from rollout.control.flags import FlagChange, change_flag
from rollout.domain.flag import MAIN_FLAG, Flag
from rollout.domain.roles import Role
from rollout.store.door import Door
from rollout.store.engine import database_url, open_engine
from rollout.store.flags import read_flag

_START_SECONDS = 60.0  # a busy machine; it takes about two


class ServedProcess:
    """`rollout serve` in a folder of its own; `address` stays the same when it is started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._folder = folder
        ours = ("ROLLOUT_", "LITELLM_", "OPENROUTER_", "FORCE_DIRECT_")
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
            "ROLLOUT_DATA_DIR": str(folder / "data"),
            "ROLLOUT_PORT": str(port),
            "LITELLM_BASE_URL": "http://127.0.0.1:9",  # discard: nothing listens
            "OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = (self._folder / "serve.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rollout", "serve"], env=self._environ, cwd=self._folder, stdout=log, stderr=log
            )
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            try:
                if httpx.get(f"{self.address}/livez", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError(f"it did not start:\n{(self._folder / 'serve.log').read_text()}")

    def freeze(self) -> None:
        """Stop its process where it stands: it takes connections and answers none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)

    @contextmanager
    def beside(self) -> Iterator[Door]:
        """Open its database from beside."""
        engine = open_engine(database_url(None, self._folder / "data"))
        try:
            yield Door(engine)
        finally:
            engine.dispose()

    def code(self) -> str:
        """Return a code to sign in with."""
        with self.beside() as door:
            return invite(door, "anna", Role.ADMIN, actor="test")

    def flag(self) -> Flag:
        """Return the flag as stored."""
        with self.beside() as door, door.reading() as connection:
            return read_flag(connection, MAIN_FLAG)

    def share(self, share: int) -> None:
        """Set the share from beside."""
        with self.beside() as door:
            change_flag(door, MAIN_FLAG, FlagChange(share=share), actor="ben")
