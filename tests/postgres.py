"""A real PostgreSQL for tests, started from installed binaries, thrown away afterwards.

It refuses to run as root, so root hands it to an unprivileged user. It listens on 127.0.0.1 alone, has no
socket in the file system, and asks for a password that is made for the run.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import psycopg
import pytest
from sqlalchemy.engine import URL

TEMPLATE: Final = "rollout_template"
_ROOM: Final = 1 << 30  # bytes
_OWNERS: Final = ("postgres", "nobody", "daemon")


def binaries() -> Path | None:
    """Return the folder of an installed PostgreSQL server, the newest; None where there is none."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: int(folder.parent.name) if folder.parent.name.isdigit() else 0,
        reverse=True,
    )
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def missing(environ: Mapping[str, str]) -> NoReturn:
    """Report a test as not run for want of PostgreSQL; a failure where CI says that everything has to run."""
    why = "no PostgreSQL server is installed (looked on PATH and in /usr/lib/postgresql); install postgresql"
    if environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class Server:
    """One PostgreSQL server with a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._binaries = folder
        self.owner: dict[str, Any] = {}
        self.home = Path(tempfile.mkdtemp(prefix="rollout-postgres-", dir=_memory()))
        self.home.chmod(0o755)
        self.data = self.home / "data"
        self.data.mkdir(mode=0o700)
        self._password = secrets.token_hex(16)
        secret = self.home / "password"
        secret.write_text(self._password)
        secret.chmod(0o600)
        if os.geteuid() == 0:
            owner = _unprivileged()
            self.owner = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            for path in (self.home, self.data, secret):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._run("initdb", "-D", self.data, "-U", "rollout", "-A", "scram-sha-256", "--pwfile", secret, "--no-sync")

    def start(self) -> None:
        """Start it, on the port it had before where it ran already, and wait until it answers."""
        for _ in range(5):
            self.port = self.port or _free_port()
            if self._start_once():
                return
            self.port = 0  # somebody else was quicker
        raise RuntimeError((self.home / "log").read_text(errors="replace")[-2000:])

    def _start_once(self) -> bool:
        said = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "128MB",
            "max_connections": 80,
            "max_wal_size": "128MB",
            "autovacuum": "off",
        }
        options = [word for name, value in said.items() for word in ("-c", f"{name}={value}")]
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                **self.owner,
            )
        until = time.monotonic() + 30
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError), self.connect():
                return True
            time.sleep(0.02)
        self._end()
        return False

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        if self._process is not None and self._process.poll() is None:
            self._run("pg_ctl", "stop", "-D", self.data, "-m", "immediate", "-w")
        self._end()

    def remove(self) -> None:
        """Stop it and remove everything it wrote."""
        self.stop()
        shutil.rmtree(self.home)

    def url(self, database: str = "postgres") -> URL:
        """Return the address of one of its databases."""
        return URL.create("postgresql+psycopg", "rollout", self._password, "127.0.0.1", self.port, database)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Connect past the product, as an administrator or an attacker would."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="rollout",
            password=self._password,
            dbname=database,
            autocommit=True,
            connect_timeout=5,
        )

    @contextlib.contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """Make a fresh database, dropped at the end with whoever is still connected."""
        self._databases += 1
        name = f"test_{self._databases}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        try:
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def _run(self, program: str, *arguments: object) -> None:
        words = [str(self._binaries / program), *map(str, arguments)]
        done = subprocess.run(
            words,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            **self.owner,
        )
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stdout}{done.stderr}")

    def _end(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(timeout=20)
        self._process = None


def start_server() -> Server:
    """Start a server of one's own.

    Skips the test (fails it under CI) where no PostgreSQL is installed.
    """
    folder = binaries()
    if folder is None:
        missing(os.environ)
    server = Server(folder)
    try:
        server.start()
    except BaseException:
        server.remove()
        raise
    return server


def _memory() -> str | None:
    """Return a file system in memory with room for a server: copying a database takes a tenth of the time there."""
    memory = Path("/dev/shm")
    try:
        roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= _ROOM
    except OSError:
        return None
    return str(memory) if roomy else None


def _unprivileged() -> pwd.struct_passwd:
    for name in _OWNERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return next(user for user in pwd.getpwall() if user.pw_uid != 0)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
