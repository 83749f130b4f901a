"""What is read before anybody knows who is calling has an end: heads, URLs, whole messages, and time."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn

from rollout.cli.protocol import (
    BYTES_PER_SECOND,
    MAX_HEAD,
    MAX_MESSAGE,
    MAX_URL,
    SLOWEST,
    BoundedProtocol,
    end_late_messages,
)
from rollout.dispatch.asgi import Message, Receive, Scope, Send

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class Listening:
    """A server under the bounded protocol that says how long each body was; `late` looks at it from later on."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.left = threading.Event()
        self.arrived = threading.Event()
        self._config = uvicorn.Config(
            self._app, interface="asgi3", http=BoundedProtocol, lifespan="off", log_config=None, ws="none"
        )
        self._server = uvicorn.Server(self._config)
        self.read = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve(sockets=[self._socket]))

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        length, trailers = 0, len(scope["headers"])
        if scope["path"] != "/refused-unread":
            message: Message = {"more_body": True}
            while message.get("more_body"):
                self.arrived.set()
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.left.set()
                    return
                length += len(message.get("body", b""))
                self.read = length
        body = json.dumps([length, len(scope["headers"]) - trailers]).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        made.settimeout(20)
        return made

    def late(self, seconds: float) -> None:
        """Let the server look at its connections as if so many seconds had gone by; returns when it has."""

        async def look() -> None:
            end_late_messages(self._server.server_state.connections, asyncio.get_running_loop().time() + seconds)

        asyncio.run_coroutine_threadsafe(look(), self._loop).result(20)

    def close(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(20)


@pytest.fixture
def server() -> Iterator[Listening]:
    server = Listening()
    yield server
    server.close()


def answer_of(connection: socket.socket) -> tuple[int, bytes]:
    """Read one answer; status 0 if the connection ends without one."""
    said = b""
    try:
        while b"\r\n\r\n" not in said:
            piece = connection.recv(65_536)
            if not piece:
                return 0, said
            said += piece
        head, _, body = said.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65_536)
    except ConnectionError:
        return 0, said
    return int(head.split(b" ")[1]), body


def push(connection: socket.socket, data: bytes) -> None:
    """Send all of it, or as much as the other side takes."""
    with suppress(ConnectionError):  # it was refused before its end
        connection.sendall(data)


BIG = b"a" * (20 * 1024 * 1024)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HEAD + b"X-Big: " + BIG + b"\r\n\r\n", 431),
        (HEAD + b"X-Big: " + b"a" * MAX_HEAD + b"\r\n\r\n", 431),
        (HEAD + b"a: b\r\n" * (MAX_HEAD // 6) + b"\r\n", 431),
        (HEAD + BIG, 431),
        (b"\r\n" * MAX_HEAD, 431),
        (b"GET /" + b"a" * MAX_URL + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /?" + BIG + b" HTTP/1.1\r\n", 414),
        (b"GET /" + b"a" * (MAX_URL - 1) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (HEAD + b"X-Big: " + b"a" * (MAX_HEAD - 100) + b"\r\n\r\n", 200),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"b" * 300_000, 200),
    ],
    ids=[
        "one header of 20 MB",
        "a header that is a little too long",
        "many headers",
        "a header without an end",
        "white space before any request",
        "a URL that is a little too long",
        "a URL without an end",
        "the longest URL",
        "the longest head",
        "a long body in one piece with its head",
    ],
)
def test_a_head_has_a_longest_length(server: Listening, request_: bytes, status: int) -> None:
    with server.connect() as connection:
        sending = threading.Thread(target=push, args=(connection, request_))
        sending.start()
        found, body = answer_of(connection)
        sending.join(20)
    # who sends 20 MB may be cut off before it reads the answer
    assert found == status or (found == 0 and len(request_) > 1_000_000)
    if found in {414, 431}:
        assert json.loads(body)["status"] == status


def test_a_head_that_comes_in_pieces_is_counted_as_a_whole(server: Listening) -> None:
    with server.connect() as connection:
        push(connection, HEAD)
        for number in range(40):
            push(connection, b"X-%d: " % number + b"a" * 1_000 + b"\r\n")
        assert answer_of(connection)[0] == 431
    with server.connect() as connection:
        for byte in (*HEAD, *b"X-Small: a\r\n\r\n"):
            push(connection, bytes([byte]))
        assert answer_of(connection)[0] == 200


def test_each_request_of_a_kept_connection_has_its_own_count(server: Listening) -> None:
    with server.connect() as connection:
        for _ in range(4):
            push(connection, HEAD + b"X-Big: " + b"a" * (MAX_HEAD // 2) + b"\r\n\r\n")
            assert answer_of(connection)[0] == 200
        push(connection, HEAD + b"\r\n" + HEAD + b"X-Big: " + b"a" * MAX_HEAD + b"\r\n\r\n")
        assert answer_of(connection)[0] in {0, 200}  # the second of the two ends both or the connection
        server.late(1e6)
    with server.connect() as connection:
        push(connection, HEAD + b"\r\n")
        assert answer_of(connection)[0] == 200


def test_headers_behind_a_body_are_kept_nowhere(server: Listening) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as connection:
        push(connection, head + b"3\r\nabc\r\n0\r\n" + b"X-Late: a\r\n" * 500 + b"\r\n")
        assert answer_of(connection) == (200, b"[3, 0]")


def test_a_message_without_an_end_is_cut_off(server: Listening) -> None:
    head = b"POST /refused-unread HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with server.connect() as connection:
        push(connection, head)
        assert answer_of(connection)[0] == 200
        sent = 0
        with suppress(ConnectionError):
            while sent < 4 * MAX_MESSAGE:
                connection.sendall(piece)
                sent += len(piece)
    assert MAX_MESSAGE <= sent < 2 * MAX_MESSAGE


@pytest.mark.parametrize("begun", [HEAD, HEAD + b"X-Slow: a", b"G", b"\r\n\r\n"])
def test_a_head_that_does_not_come_to_its_end_is_answered_408(server: Listening, begun: bytes) -> None:
    with server.connect() as connection:
        push(connection, HEAD + b"\r\n")
        assert answer_of(connection)[0] == 200
        push(connection, begun)
        late_until(server, connection, expect=408)


def late_until(server: Listening, connection: socket.socket, *, expect: int) -> None:
    """Look from later on until the server has read what was sent and given up on it."""
    connection.settimeout(0.2)
    for _ in range(100):
        server.late(SLOWEST + 1)
        try:
            assert answer_of(connection)[0] == expect
        except TimeoutError:
            continue
        return
    raise AssertionError("it is never given up on")


def test_a_connection_on_which_nothing_comes_is_closed(server: Listening) -> None:
    with server.connect() as connection:
        late_until(server, connection, expect=0)


def test_a_body_that_does_not_come_to_its_end_is_given_up_on(server: Listening) -> None:
    with server.connect() as connection:
        push(connection, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        assert server.arrived.wait(20)
        server.late(SLOWEST + 1)
        assert server.left.wait(20)  # the request hears that its caller left
        assert answer_of(connection)[0] == 0


def test_a_body_is_not_waited_for_behind_an_answer_either(server: Listening) -> None:
    with server.connect() as connection:
        push(connection, b"POST /refused-unread HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        assert answer_of(connection)[0] == 200
        server.late(SLOWEST + 1)
        assert answer_of(connection)[0] == 0


def test_what_comes_at_some_speed_has_longer(server: Listening) -> None:
    with server.connect() as connection:
        body = b"x" * (100 * BYTES_PER_SECOND)
        push(connection, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (len(body) + 1))
        push(connection, body)
        until = time.monotonic() + 20
        while server.read < len(body) and time.monotonic() < until:
            time.sleep(0.01)
        server.late(SLOWEST + 50)
        push(connection, b"x")
        assert answer_of(connection) == (200, b"[%d, 0]" % (len(body) + 1))


def test_a_connection_that_is_kept_between_requests_is_not_late(server: Listening) -> None:
    with server.connect() as connection:
        for _ in range(2):
            push(connection, HEAD + b"\r\n")
            assert answer_of(connection)[0] == 200
            server.late(1e6)


def test_the_limits_leave_room_for_what_is_sent_today() -> None:
    assert MAX_URL >= 8_000  # RFC 9110 4.1
    assert MAX_HEAD > MAX_URL
    assert MAX_MESSAGE > 10 * 1024 * 1024
