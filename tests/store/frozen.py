"""What stands before PostgreSQL in real places: a proxy that may stop forwarding, and PgBouncer."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL

from tests.postgres import Server


class Proxy:
    """Forwards bytes to a port until it is frozen; then every connection stays open and nothing moves."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._thawed = threading.Event()
        self._thawed.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    def close(self) -> None:
        self._thawed.set()
        self._listener.close()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65_536):
                self._thawed.wait()
                target.sendall(chunk)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def pgbouncer(server: Server, folder: Path, url: URL) -> Iterator[URL]:
    """Run a PgBouncer in transaction mode before a database, with one server connection for all; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    home = server.home / f"pgbouncer-{port}"  # a folder its user may enter
    home.mkdir()
    (home / "users").write_text(f'"{url.username}" "{url.password}"\n')
    (home / "config").write_text(
        f"""[databases]
{url.database} = host=127.0.0.1 port={url.port} dbname={url.database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {home / "users"}
pool_mode = transaction
default_pool_size = 2
logfile =
pidfile =
"""
    )
    home.chmod(0o755)
    with (folder / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen(
            ["pgbouncer", home / "config"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **server.owner
        )
    pooled = url.set(port=port)
    try:
        _wait_for(pooled, folder / "pgbouncer.log")
        yield pooled
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(url: URL, log: Path) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(
                host="127.0.0.1", port=url.port, user=url.username, password=url.password, dbname=url.database
            ).close()
        except psycopg.OperationalError:
            assert time.monotonic() < end, log.read_text(errors="replace")[-2000:]
            time.sleep(0.05)
        else:
            return
