"""What touches sockets, alone: deadlines that hold over every part of a call, and answers that fit into memory."""

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from rollout.dispatch.paths import Call
from rollout.dispatch.senders.async_aiohttp import AiohttpSender
from rollout.dispatch.senders.async_httpx import AsyncHttpxSender
from rollout.dispatch.senders.seam import MAX_ANSWER_BYTES, SendFault
from rollout.dispatch.senders.sync_httpx import HttpxSender, addresses_of
from rollout.domain.failure import FailureKind
from tests.dispatch import conftest as world

SECONDS = 0.3
SLACK = 0.7  # for a busy machine; a limit for each part, or for each address, takes four times SECONDS and more
BODY = b'{"model": "m"}'


def a_call(url: str, body: bytes = BODY) -> Call:
    return Call(url, {"Content-Type": "application/json", "Accept-Encoding": "identity"}, body)


@contextmanager
def listening(host: str = "127.0.0.1", port: int = 0, *, backlog: int = 5) -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(backlog)
        yield made


@contextmanager
def reading_slowly(every: float) -> Iterator[str]:
    """Accept one connection and read a little of it now and then."""
    stop = threading.Event()
    with listening() as server:

        def read() -> None:
            connection, _ = server.accept()
            with connection:
                while not stop.wait(every) and connection.recv(300_000):
                    pass

        thread = threading.Thread(target=read)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        stop.set()
        thread.join()


def test_a_long_body_that_is_taken_slowly_is_given_up_at_the_deadline() -> None:
    # each part is taken well within the limit, so that a limit for each part would never run out
    with reading_slowly(every=0.02) as url:
        sender, started = HttpxSender(), time.monotonic()
        with pytest.raises(SendFault) as caught:
            sender.open(a_call(url, b"x" * 40_000_000), started + SECONDS)
        assert time.monotonic() - started < SECONDS + SLACK
        assert caught.value.kind is FailureKind.TIMEOUT
        assert caught.value.sent
        sender.close()


@contextmanager
def never_accepting(*hosts: str, port: int = 0) -> Iterator[int]:
    """Have addresses at which connecting neither succeeds nor fails, because their queues are full; give their port."""
    with ExitStack() as kept:
        for host in hosts:
            port = kept.enter_context(listening(host, port, backlog=0)).getsockname()[1]
            for _ in range(3):
                caller = kept.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex((host, port))
        yield port


def test_addresses_that_never_answer_share_the_deadline_and_it_is_a_time_out() -> None:
    hosts = [f"127.0.0.{number}" for number in (2, 3, 4, 5)]
    with never_accepting(*hosts) as port:
        sender, started = HttpxSender(resolve=lambda host, port: hosts), time.monotonic()
        with pytest.raises(SendFault) as caught:
            sender.open(a_call(f"http://four.example:{port}/"), started + SECONDS)
        assert time.monotonic() - started < SECONDS + SLACK
        assert (caught.value.kind, caught.value.sent) == (FailureKind.TIMEOUT, False)


def test_an_address_that_never_answers_leaves_time_for_the_next(upstream: world.Upstream) -> None:
    with never_accepting("127.0.0.2", port=upstream.port):
        sender = HttpxSender(resolve=lambda host, port: ["127.0.0.2", "127.0.0.1"])
        call = a_call(f"http://two.example:{upstream.port}/api/v1/chat/completions")
        opened = sender.open(call, time.monotonic() + 3.0)
        assert opened.status == 200
        opened.close()
        sender.close()


def test_what_has_no_address_or_refuses_is_unreachable_and_nothing_was_sent() -> None:
    def nowhere(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolvers: list[Callable[[str, int], list[str]]] = [nowhere, lambda *_: [], lambda *_: ["127.0.0.1", "127.0.0.1"]]
    for resolve in resolvers:
        with pytest.raises(SendFault) as caught:
            HttpxSender(resolve=resolve).open(a_call("http://gone.example:1/"), time.monotonic() + 5)
        assert (caught.value.kind, caught.value.sent) == (FailureKind.UNREACHABLE, False)


def test_the_operating_systems_own_lookup_names_numbers_alone() -> None:
    assert "127.0.0.1" in addresses_of("localhost", 80)
    assert addresses_of("127.0.0.1", 80) == ["127.0.0.1"]


@pytest.mark.parametrize("way", ["sync", "aiohttp", "httpx"])
async def test_a_small_answer_that_unpacks_to_more_than_fits_is_refused(way: str, upstream: world.Upstream) -> None:
    packed = gzip.compress(bytes(MAX_ANSWER_BYTES + 1), 9)
    upstream.direct = world.says(200, packed, "Content-Encoding: gzip")
    call = a_call(f"{upstream.url}/api/v1/chat/completions")
    if way == "sync":
        sender = HttpxSender()
        opened = sender.open(call, time.monotonic() + 20)
        with pytest.raises(SendFault, match="more than"):
            opened.read(time.monotonic() + 20)
        opened.close()
        sender.close()
        return
    asender = AiohttpSender() if way == "aiohttp" else AsyncHttpxSender()
    aopened = await asender.open(call)
    with pytest.raises(SendFault, match="more than"):
        await aopened.read()
    await aopened.close()
    await asender.aclose()


@contextmanager
def closing_after_each_answer() -> Iterator[tuple[str, list[bytes], threading.Semaphore]]:
    """Answer one request on each connection as if it were kept, then close it; gives what was asked, and each end."""
    asked: list[bytes] = []
    closed = threading.Semaphore(0)
    with listening() as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    head = b""
                    while not head.endswith(BODY) and (more := connection.recv(65_536)):
                        head += more
                    if head:
                        asked.append(head)
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    connection.shutdown(socket.SHUT_RDWR)
                closed.release()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/", asked, closed
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_kept_connection_that_the_other_side_has_closed_is_not_written_to_synchronously() -> None:
    with closing_after_each_answer() as (url, asked, closed):
        sender = HttpxSender()
        for _ in range(3):
            assert sender.open(a_call(url), time.monotonic() + 10).read(time.monotonic() + 10) == b"ok"
            assert closed.acquire(timeout=10)
        sender.close()
    assert len(asked) == 3


@pytest.mark.parametrize("way", ["aiohttp", "httpx"])
@pytest.mark.parametrize("is_busy", [True, False], ids=["the loop was busy meanwhile", "the loop was idle meanwhile"])
def test_a_kept_connection_that_the_other_side_has_closed_is_not_written_to(way: str, is_busy: bool) -> None:
    async def several(url: str, closed: threading.Semaphore) -> None:
        sender: Any = AiohttpSender() if way == "aiohttp" else AsyncHttpxSender()
        for _ in range(3):
            opened = await sender.open(a_call(url))
            assert await opened.read() == b"ok"
            await opened.close()
            # a busy loop hears of nothing while this waits
            assert closed.acquire(timeout=10) if is_busy else await asyncio.to_thread(closed.acquire, timeout=10)
        await sender.aclose()

    with closing_after_each_answer() as (url, asked, closed):
        asyncio.run(several(url, closed))
    assert len(asked) == 3


@pytest.mark.parametrize("way", ["aiohttp", "httpx"])
def test_a_request_that_the_other_side_may_have_read_is_never_sent_again_blindly(way: str) -> None:
    heard: list[bytes] = []

    async def once(url: str) -> SendFault:
        sender: Any = AiohttpSender() if way == "aiohttp" else AsyncHttpxSender()
        with pytest.raises(SendFault) as caught:
            await sender.open(a_call(url))
        await sender.aclose()
        return caught.value

    with listening() as server:

        def read() -> None:
            connection, _ = server.accept()
            with connection:
                head = b""
                while not head.endswith(BODY):
                    head += connection.recv(65_536)
                heard.append(head)

        thread = threading.Thread(target=read)
        thread.start()
        fault = asyncio.run(once(f"http://127.0.0.1:{server.getsockname()[1]}/"))
        thread.join()
    assert (len(heard), fault.kind, fault.sent) == (1, FailureKind.UNREACHABLE, True)
