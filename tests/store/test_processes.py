"""Real processes write at the same time and are killed at random: nothing acknowledged is lost, nothing forks."""

from __future__ import annotations

import queue
import random
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from rollout.control.flags import flag_state
from rollout.domain.flag import MAIN_FLAG
from rollout.domain.ledger import Action, unseal
from rollout.store.door import Door
from rollout.store.flags import read_flag
from rollout.store.ledger import sealed_entries, verify_ledger
from tests.databases import Database

pytestmark = pytest.mark.processes

WRITER = Path(__file__).with_name("writer_process.py")
WRITERS, KILLS, WRITES, ACKNOWLEDGED_BETWEEN_KILLS = 6, 12, 60, 12


class Writers:
    """The writer processes, and every line they said in full."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.running: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self.started = 0

    def start(self) -> None:
        self.started += 1
        name = f"writer{self.started}"
        process = subprocess.Popen(
            [sys.executable, str(WRITER), self._url, name, str(WRITES)], stdout=subprocess.PIPE, text=True
        )
        reader = threading.Thread(target=self._read, args=(process,), name=name)
        reader.start()
        self.running[name] = process
        self._readers.append(reader)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):  # a killed writer may leave half a line
                    self.said.put(line.strip())

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait(timeout=20)

    def finish(self) -> list[int]:
        codes = [process.wait(timeout=60) for process in self.running.values()]
        for reader in self._readers:
            reader.join(timeout=20)
        return codes

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait(timeout=20)


def test_writers_killed_at_random_never_fork_or_lose_an_acknowledged_entry(door: Door, database: Database) -> None:
    chance = random.Random(20_261_122)
    acknowledged: list[str] = []
    writers = Writers(database.text)
    try:
        for _ in range(WRITERS):
            writers.start()
        for _ in range(KILLS):
            acknowledged += [writers.said.get(timeout=30) for _ in range(ACKNOWLEDGED_BETWEEN_KILLS)]
            writers.kill(chance.choice(sorted(writers.running)))
            writers.start()
        codes = writers.finish()
    finally:
        writers.end()
    while not writers.said.empty():
        acknowledged.append(writers.said.get())

    assert codes == [0] * WRITERS, "the writers that were left alone all came to their end"
    with door.reading() as connection:
        found = verify_ledger(connection)
        entries = [unseal(sealed) for sealed in sealed_entries(connection)]
        flag = read_flag(connection, MAIN_FLAG)
    assert found.ok, found.first_break
    assert [entry.revision for entry in entries] == list(range(1, len(entries) + 1))
    assert len(acknowledged) >= WRITES * WRITERS

    flag_entries = {entry.revision: entry for entry in entries if entry.subject == f"flag:{MAIN_FLAG}"}
    forced = [entry.after["user"] for entry in entries if entry.action == Action.OVERRIDE_SET]
    for line in acknowledged:
        thing, *words = line.split()
        if thing == "override":
            assert words[0] in forced
        else:
            assert flag_entries[int(words[0])].after["description"] == words[1]
    assert len(acknowledged) <= len(entries) - 2 <= len(acknowledged) + KILLS, "at most one write unsaid per kill"

    last = flag_entries[max(flag_entries)]
    assert (flag_state(flag), flag.revision) == (last.after, last.revision)
    assert sorted(flag.overrides) == sorted(forced)
    following = sorted(flag_entries)
    for earlier, later in pairwise(following):
        assert flag_entries[later].before == flag_entries[earlier].after, "every writer saw what the one before left"
