"""A load generator in a process of its own: raw HTTP/1.1 over asyncio, bounded in count and time.

The process reads one order per line on standard input and answers it with one line; it ends with its input.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Any, Final, Self, cast

from bench.processes import ROOT
from bench.report import CannotMeasure

_WITHOUT_BODY: Final = (204, 304)
_GRACE: Final = 20.0  # seconds for the answers that are under way when the time is over


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a run brought. `whole` and `first` are milliseconds per request: to its end, to its body's first byte."""

    whole: Sequence[float]
    first: Sequence[float]
    per_second: float


class Load:
    """The load generator while the `with` block lasts."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            start_new_session=True,  # Ctrl-C reaches us, and its input ends with us
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def run(
        self, port: int, requests: Sequence[bytes], *, concurrency: int, seconds: float, most: int = 100_000
    ) -> Loaded:
        """Send requests in turn on so many connections, each its next when its last is answered.

        Raises:
            CannotMeasure: an answer was not of the 2xx or 304 kind, or a connection broke.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("Popen gives pipes where pipes were asked for")
        order = {
            "port": port,
            "requests": [base64.b64encode(each).decode() for each in requests],
            "concurrency": concurrency,
            "seconds": seconds,
            "most": most,
        }
        print(json.dumps(order), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise CannotMeasure("the load generator ended by itself")
        found = json.loads(line)
        if found["problem"]:
            raise CannotMeasure(found["problem"])
        return Loaded(found["whole"], found["first"], found["per_second"])


class _Run:
    """One order being carried out."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.requests = [base64.b64decode(each) for each in order["requests"]]
        self.until = perf_counter() + order["seconds"]
        self.left: int = order["most"]
        self.whole: list[float] = []
        self.first: list[float] = []
        self.problem: str | None = None
        self.over = asyncio.get_running_loop().create_future()
        self.open = 0
        self._place = 0

    def next(self) -> bytes | None:
        """Return the next request, None where the run is over."""
        if self.left <= 0 or self.problem or perf_counter() >= self.until:
            return None
        self.left -= 1
        self._place += 1
        return self.requests[self._place % len(self.requests)]

    def done(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.over.done():
            self.over.set_result(None)


class _Caller(asyncio.Protocol):
    """One connection."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._resting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class behaves like it and is none
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._resting:
            self._run.problem = self._run.problem or f"a connection broke in the middle of an answer: {exc}"
        self._run.done()

    def data_received(self, data: bytes) -> None:
        now = perf_counter()
        self._held += data
        if self._body_at == 0:
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                return
            self._read_head(end)
        if self._first == 0.0 and len(self._held) > self._body_at:
            self._first = now
        if self._is_whole():
            self._run.whole.append((now - self._sent) * 1000)
            self._run.first.append(((self._first or now) - self._sent) * 1000)
            self._ask()

    def _read_head(self, end: int) -> None:
        head = bytes(self._held[:end]).lower()
        self._body_at = end + 4
        status = int(head[9:12])
        _, found, rest = head.partition(b"\r\ncontent-length:")
        self._length = int(rest.partition(b"\r\n")[0]) if found else 0 if status in _WITHOUT_BODY else None
        if status >= 400:
            self._run.problem = f"an answer had status {status}: {bytes(self._held)!r:.600}"

    def _is_whole(self) -> bool:
        if self._length is not None:
            return len(self._held) >= self._body_at + self._length
        return self._held.endswith(b"\r\n0\r\n\r\n")

    def _ask(self) -> None:
        asked = self._run.next()
        if asked is None:
            self._resting = True
            self._transport.close()
            return
        self._held, self._body_at, self._length, self._first = bytearray(), 0, None, 0.0
        self._sent = perf_counter()
        self._transport.write(asked)

    _held: bytearray
    _body_at: int
    _length: int | None
    _first: float
    _sent: float


async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order; return what is answered."""
    run = _Run(order)
    began = perf_counter()
    run.open = order["concurrency"]
    loop = asyncio.get_running_loop()
    try:
        for _ in range(order["concurrency"]):
            await loop.create_connection(lambda: _Caller(run), "127.0.0.1", order["port"])
        await asyncio.wait_for(run.over, order["seconds"] + _GRACE)
    except (OSError, TimeoutError) as error:
        run.problem = run.problem or f"port {order['port']}: {type(error).__name__} {error}"
    per_second = len(run.whole) / (perf_counter() - began)
    return {"whole": run.whole, "first": run.first, "per_second": per_second, "problem": run.problem}


def main() -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            print(json.dumps(runner.run(carry_out(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
