"""Serves a simulated upstream: in the foreground of a process, or in a thread beside a test."""

import argparse
import asyncio
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn

from rollout.files import write_whole
from rollout.simulator.app import BASE_PATH, create_app
from rollout.simulator.hosts import HostCheck
from rollout.simulator.world import World

DEFAULT_PORT: Final = 8099
_STOP_SECONDS: Final = 1


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what uvicorn says about connections that a fault cut, or that hang when we stop."""
    if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
        return False
    message = record.getMessage()
    return not message.startswith(("ASGI callable returned without completing", "Cancel "))


class _Server(uvicorn.Server):
    """A server that says when it is ready, and for which a signal is a clean end."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn raises the signal again after its shutdown, which would end us with an error code.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self._stop) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handling in before.items():
                signal.signal(each, handling)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a signal's function
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket; port 0 takes a free one.

    Raises:
        OSError: the address cannot be had; the message says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(1024)
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"cannot listen on {host}:{port}: {reason}; choose another with --port (0 takes a free one)"
        ) from error
    return bound


def base_url(bound: socket.socket) -> str:
    """Return the URL to use as the upstream's base."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{BASE_PATH}"


def control_url(base_url: str) -> str:
    """Return where the control routes are, of a simulator with this base URL."""
    return base_url.removesuffix(BASE_PATH) + "/simulator"


def keep_secret(file: Path, secret: str) -> None:
    """Write the control routes' secret into a file that only its owner may read.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(file, f"{secret}\n".encode("ascii"))


def _server(world: World, hosts: Iterable[str], ready: Callable[[], None]) -> _Server:
    config = uvicorn.Config(
        HostCheck(create_app(world), hosts),
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=_STOP_SECONDS,
        ws="none",
    )
    logger = logging.getLogger("uvicorn.error")
    if _is_news not in logger.filters:
        logger.addFilter(_is_news)
    return _Server(config, ready)


def serve(world: World, bound: socket.socket, *, hosts: Iterable[str] = (), ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is told the base URL once requests are answered.

    `hosts` are answered beside the names of this machine's loopback.
    """
    url = base_url(bound)
    server = _server(world, hosts, lambda: ready(url))
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[bound]))


@contextmanager
def running(world: World, *, host: str = "127.0.0.1", port: int = 0, hosts: Iterable[str] = ()) -> Iterator[str]:
    """Serve in a thread for as long as the block runs; gives the base URL.

    Loopback's names, `host` and `hosts` are answered. The control routes take `world.secret`.

    Raises:
        OSError: the address cannot be had.
        RuntimeError: the server did not start.
    """
    bound = listen(host, port)
    url = base_url(bound)
    started = threading.Event()
    server = _server(world, (host, *hosts), started.set)

    def run() -> None:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[bound]))

    thread = threading.Thread(target=run, name="simulated-upstream", daemon=True)
    thread.start()
    try:
        if not started.wait(30):
            raise RuntimeError("the simulated upstream did not start within 30 seconds")
        yield url
    finally:
        server.should_exit = True
        thread.join(30)
        bound.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulated upstream from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m rollout.simulator",
        description="An OpenRouter look-alike for tests and demonstrations; it asks no real model.",
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free port (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to bind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides ids and the chances of faults")
    parser.add_argument("--allow-host", action="append", default=[], help="another name it answers to; repeatable")
    parser.add_argument("--secret-file", type=Path, help="where the secret of the control routes is written")
    options = parser.parse_args(arguments)
    world = World(seed=options.seed)
    try:
        bound = listen(options.host, options.port)
        if options.secret_file is not None:
            keep_secret(options.secret_file, world.secret)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    hosts = (options.host, *options.allow_host)
    serve(world, bound, hosts=hosts, ready=lambda url: print(url, flush=True))
    return 0
