"""A company's network in small: a proxy that everything has to pass, and hosts with certificates of an own CA.

The names of the hosts are known to the proxy alone, so that nothing that goes past it arrives.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_TLS = b"\x16"  # how a TLS connection begins
MODELS = b'{"data": [{"id": "a/b:free", "pricing": {"prompt": "0", "completion": "0"}}]}'


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own; `file` is what has to be trusted."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "ca.pem"

    @classmethod
    def made(cls, folder: Path) -> Self:
        folder.mkdir(exist_ok=True)
        made = cls(folder)
        made._run("req", "-x509", *_EC, "-keyout", "ca.key", "-out", "ca.pem", "-days", "30", "-nodes", *_CA)
        return made

    def context_for(self, name: str) -> ssl.SSLContext:
        """Return what a server of that name speaks TLS with."""
        key, request, certificate, extension = (f"{name}.{end}" for end in ("key", "csr", "pem", "ext"))
        (self.folder / extension).write_text(f"subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1\n")
        self._run("req", "-new", *_EC, "-keyout", key, "-out", request, "-nodes", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", extension)
        self._run("x509", "-req", "-in", request, "-out", certificate, *signing)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / certificate, self.folder / key)
        return context

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)


_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
_CA = ("-subj", "/CN=A CA of our own", "-addext", "keyUsage=critical,keyCertSign,cRLSign")


@dataclass
class Place:
    """What listens on a port of 127.0.0.1; `seen` lists the first lines that arrived."""

    port: int = 0
    seen: list[str] = field(default_factory=list)


@dataclass
class Host(Place):
    """Answers every request with the same JSON."""

    body: bytes = MODELS

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if (first := await reader.readexactly(1)) == _TLS:
                writer.write(b"HTTP/1.1 400 this is no TLS\r\nContent-Length: 0\r\n\r\n")
                return
            head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.seen.append(head.split("\r\n")[0])
            await reader.readexactly(_length(head))
            answer = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(self.body)}\r\n\r\n"
            writer.write(answer.encode() + self.body)


@dataclass
class Forwarder(Place):
    """A proxy: CONNECT, and plain requests in absolute form; every name leads to `known`'s port on 127.0.0.1."""

    known: dict[str, int] = field(default_factory=dict)
    credentials: str | None = None
    status: int = 0  # other than 0: what every request is refused with

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        text = head.decode("latin-1")
        first = text.split("\r\n")[0]
        self.seen.append(first)
        method, target, _ = first.split(" ")
        if self.status or (self.credentials and _basic(self.credentials) not in text.lower()):
            status = self.status or 407
            writer.write(f"HTTP/1.1 {status} by order of s3cret\r\nContent-Length: 0\r\n\r\n".encode())
            return
        name = target if method == "CONNECT" else target.split("/")[2]
        port = self.known.get(name)
        if port is None:
            writer.write(b"HTTP/1.1 502 unknown\r\nContent-Length: 0\r\n\r\n")
            return
        there, back = await asyncio.open_connection("127.0.0.1", port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            back.write(head)
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            back.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


def _length(head: str) -> int:
    found = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
    return int(found[0].partition(":")[2]) if found else 0


def _basic(credentials: str) -> str:
    return f"proxy-authorization: basic {base64.b64encode(credentials.encode()).decode()}".lower()


@contextmanager
def standing(*places: tuple[Host | Forwarder, ssl.SSLContext | None]) -> Iterator[None]:
    """Let places listen, each on a free port of 127.0.0.1, in one thread."""
    loop, started = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        servers, open_ones = [], set[asyncio.Task[None]]()
        for place, context in places:

            async def connected(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, place: Host | Forwarder = place
            ) -> None:
                task = asyncio.current_task()
                assert task is not None
                open_ones.add(task)
                try:
                    await place.connected(reader, writer)
                except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                    pass
                finally:
                    open_ones.discard(task)
                    writer.close()

            server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
            place.port = server.sockets[0].getsockname()[1]
            servers.append(server)
        started.set()
        await stop.wait()
        for server in servers:
            server.close()
        for task in list(open_ones):
            task.cancel()
        await asyncio.sleep(0)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
