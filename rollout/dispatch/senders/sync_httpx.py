"""Post with httpx: one pool per process, opened by its first call, with deadlines that really hold.

httpx's time-outs are per socket read, so an upstream that sends a comment each second is never late. Here every
read, write and connect is given what is left of the call's deadline: the pool's network backend asks the
thread that is sending how long it may still wait, anew for each part of a long body and for each address of a
host. (What no deadline reaches is the operating system's own name lookup.)
"""

from __future__ import annotations

import os
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from math import inf
from ssl import SSLContext
from time import monotonic
from typing import Any, Final

import httpcore
import httpx

from rollout.dispatch.paths import Call
from rollout.dispatch.senders.seam import (
    CONNECT_SECONDS,
    KEEP_ALIVE_SECONDS,
    MAX_ANSWER_BYTES,
    SendFault,
    too_late,
    too_long,
)
from rollout.domain.failure import FailureKind
from rollout.network import DIRECT, Network, Proxy, explain, is_refused_by_proxy

TIMEOUT: Final = httpx.Timeout(None, connect=CONNECT_SECONDS)
_EXTENSIONS: Final = {"timeout": TIMEOUT.as_dict()}
_SLICE: Final = 64 * 1024
"""Bytes that are written under one time limit."""

_SHORTEST_WAIT: Final = 0.001
"""Seconds; 0 would mean "do not block", and this means "too late" just as well."""

Resolve = Callable[[str, int], list[str]]
"""Return the numeric addresses of a host, in the order to try them; raise OSError where there is none."""


def addresses_of(host: str, port: int) -> list[str]:
    """Ask the operating system for a host's addresses."""
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [socket.getnameinfo(each[4], numeric)[0] for each in found]


def fault_of(error: Exception, *, begun: bool, proxy: Proxy | None = None) -> SendFault:
    """Return what httpx raised as a fault.

    Args:
        error: what was raised.
        begun: whether the answer's head was already there.
        proxy: what the request went through.
    """
    if isinstance(error, httpx.ConnectTimeout):
        return SendFault(FailureKind.UNREACHABLE, f"no connection within {CONNECT_SECONDS:g} s", sent=False)
    if isinstance(error, httpx.TimeoutException):
        return too_late("the answer")
    if begun:
        return SendFault(FailureKind.INTERRUPTED, "the connection was cut in the middle of the answer")
    # never the error's own text: it could quote what was sent
    sent = not (isinstance(error, httpx.ConnectError | httpx.InvalidURL) or is_refused_by_proxy(error))
    return SendFault(FailureKind.UNREACHABLE, f"no answer from the other side: {explain(error, proxy)}", sent=sent)


class _Deadline(threading.local):
    """Until when the sending thread may wait, in `time.monotonic` seconds."""

    at: float = inf

    def left(self, timeout: float | None) -> float | None:
        """Return how long a socket may block: what it was given, at most what is left."""
        at = self.at
        if at == inf:
            return timeout
        rest = at - monotonic()
        if rest < _SHORTEST_WAIT:
            rest = _SHORTEST_WAIT
        return rest if timeout is None or rest < timeout else timeout


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # the stream below waits anew whenever the socket took a part, so it gets no more than a part at a time
        for start in range(0, len(buffer), _SLICE):
            self._stream.write(buffer[start : start + _SLICE], self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return _Stream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, deadline: _Deadline, resolve: Resolve) -> None:
        self._sockets = httpcore.SyncBackend()
        self._deadline = deadline
        self._resolve = resolve

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        failed: Exception = httpcore.ConnectError("no address")
        until = inf if timeout is None else monotonic() + timeout
        for waiting in range(len(addresses), 0, -1):
            # an equal part of what is left, so that one address that never answers leaves time for the others
            rest = self._deadline.left(None if until == inf else max(0.001, until - monotonic()))
            wait = None if rest is None else rest / waiting
            try:
                opened = self._sockets.connect_tcp(addresses[-waiting], port, wait, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
            else:
                return _Stream(opened, self._deadline)
        raise failed


class _Transport(httpx.HTTPTransport):
    """httpx's own transport over a pool whose sockets know the deadline."""

    def __init__(self, backend: _Backend, network: Network, proxy: Proxy | None) -> None:
        options: dict[str, Any] = {
            "ssl_context": network.tls(),
            "max_connections": None,
            "max_keepalive_connections": 100,
            "keepalive_expiry": KEEP_ALIVE_SECONDS,
            "network_backend": backend,
        }
        if proxy is None:
            self._pool = httpcore.ConnectionPool(**options)
            return
        credentials = proxy.credentials
        auth = None if credentials is None else (credentials[0].encode(), credentials[1].encode())
        secured = network.tls() if proxy.url.startswith("https:") else None
        self._pool = httpcore.HTTPProxy(proxy.address, auth, proxy_ssl_context=secured, **options)


class _Opened:
    __slots__ = ("_deadline", "_pieces", "_response", "headers", "status")

    def __init__(self, response: httpx.Response, deadline: _Deadline) -> None:
        self._response = response
        self._deadline = deadline
        pieces = response.stream
        if "content-encoding" in response.headers or not isinstance(pieces, httpx.SyncByteStream):
            self._pieces: Iterator[bytes] = response.iter_bytes()
        else:  # nothing to decode, so none of the layers that would: each costs something for each piece
            self._pieces = iter(pieces)
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers

    def read(self, deadline: float) -> bytes:
        body = bytearray()
        while piece := self.next(deadline):
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise too_long()
        return bytes(body)

    def next(self, deadline: float) -> bytes:
        # checked here too: pieces that are already there cost no read, so no socket would notice
        if monotonic() >= deadline:
            raise too_late("the answer")
        self._deadline.at = deadline
        try:
            return next(self._pieces, b"")
        except (httpx.HTTPError, OSError) as error:
            raise fault_of(error, begun=True) from None
        finally:
            self._deadline.at = inf

    def close(self) -> None:
        self._response.close()


def _close_own(transports: dict[tuple[int, Proxy | None], _Transport]) -> None:
    for key in [key for key in transports if key[0] == os.getpid()]:
        transports.pop(key).close()


@lru_cache(maxsize=16)
def _url(text: str) -> httpx.URL:
    return httpx.URL(text)


class HttpxSender:
    """A `Sender` on httpx; safe to use from any thread, and after a fork.

    Connections are closed when the sender is dropped, and when the interpreter exits.

    A forked child opens its own pool. The parent's stays referenced there and is never touched: closing it
    would speak on sockets that belong to the parent.

    Args:
        resolve: names the addresses of a host.
        network: through which proxy hosts are reached, and which certificates are trusted.
    """

    def __init__(self, resolve: Resolve = addresses_of, *, network: Network = DIRECT) -> None:
        self._deadline = _Deadline()
        self._backend = _Backend(self._deadline, resolve)
        self._network = network
        self._proxies: dict[str, Proxy | None] = {}  # by URL; there are two
        self._transports: dict[tuple[int, Proxy | None], _Transport] = {}
        weakref.finalize(self, _close_own, self._transports)

    def open(self, call: Call, deadline: float) -> _Opened:
        """Post a call and return once the head of its answer is there."""
        if monotonic() >= deadline:
            raise too_late("the answer")
        proxy = self._proxy_for(call.url)
        transport = self._transports.get((os.getpid(), proxy)) or self._made(proxy)
        self._deadline.at = deadline
        try:
            # the transport itself: a client around it would add cookies, redirects, proxies and a fifth of the time
            request = httpx.Request(
                "POST", _url(call.url), content=call.body, headers=dict(call.headers), extensions=_EXTENSIONS
            )
            response = transport.handle_request(request)
            response.request = request
            return _Opened(response, self._deadline)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            if isinstance(error, httpx.ConnectTimeout) and monotonic() >= deadline:
                raise too_late("the answer", sent=False) from None
            raise fault_of(error, begun=False, proxy=proxy) from None
        finally:
            self._deadline.at = inf

    def _proxy_for(self, url: str) -> Proxy | None:
        try:
            return self._proxies[url]
        except KeyError:
            proxy = self._network.proxy_for(url)
        if proxy is not None and proxy.problem is not None:
            raise SendFault(FailureKind.UNREACHABLE, f"no answer from the other side: {proxy.problem}", sent=False)
        if len(self._proxies) < 100:
            self._proxies[url] = proxy
        return proxy

    def _made(self, proxy: Proxy | None) -> _Transport:
        key = (os.getpid(), proxy)
        return self._transports.setdefault(key, _Transport(self._backend, self._network, proxy))

    def close(self) -> None:
        """Close this process's connections; the next call opens new ones."""
        _close_own(self._transports)
