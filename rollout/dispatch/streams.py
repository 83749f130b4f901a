"""A stream in Python: an iterator of parsed chunks that knows its decision and closes its upstream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final, Self

from rollout.dispatch.classify import Fault, of_error
from rollout.dispatch.decision import Decision
from rollout.dispatch.opening import Opening, parsed_chunk
from rollout.dispatch.senders.seam import AsyncOpened, Opened, SendFault
from rollout.dispatch.sending import Sending, sending_failed
from rollout.domain.errors import SendingFailed
from rollout.domain.failure import FailureKind
from rollout.wire.chat import DONE, error_in
from rollout.wire.sse import EventTooLong

Finish = Callable[[FailureKind | None], None]

_LINGER_SECONDS: Final = 0.05
"""How long to wait for the connection's own end after `[DONE]`; a connection read to its end is used again."""


class _Tail:
    """What follows a stream's opening: bytes in, chunks out. Pure."""

    def __init__(self, sending: Sending, opening: Opening) -> None:
        self._path = sending.records[-1].path
        self._parser = opening.parser
        self.ready: deque[dict[str, Any]] = deque()
        self.ended = False
        self.fault: Fault | None = None
        self._take(opening.events)

    @property
    def waiting(self) -> bool:
        """Say whether more bytes are needed before anything else can happen."""
        return not (self.ready or self.ended or self.fault)

    def feed(self, data: bytes) -> None:
        """Take the next bytes; empty bytes are the end of the stream."""
        try:
            self._take(self._parser.feed(data) if data else self._parser.end())
        except EventTooLong as error:
            self.fault = Fault(FailureKind.INTERRUPTED, str(error))
        if not data:
            self.ended = True

    def cut(self, fault: SendFault) -> None:
        """Take that no more bytes will come, and why."""
        timeout = fault.kind is FailureKind.TIMEOUT
        detail = "the stream stood still for too long" if timeout else fault.detail
        self.fault = Fault(FailureKind.TIMEOUT if timeout else FailureKind.INTERRUPTED, detail)

    def _take(self, events: list[bytes]) -> None:
        for event in events:
            if self.ended or self.fault:
                return
            if event == DONE:
                self.ended = True
                return
            chunk = parsed_chunk(event)
            if not isinstance(chunk, Mapping):
                self.fault = Fault(FailureKind.INTERRUPTED, "something else than JSON in the middle of a stream")
            elif (error := error_in(chunk)) is not None:
                said = of_error(self._path, error, {}, wall=0.0)
                self.fault = Fault(FailureKind.INTERRUPTED, said.detail)
            else:
                self.ready.append(dict(chunk))


class _Base:
    def __init__(self, sending: Sending, opening: Opening, decision: Decision, finish: Finish) -> None:
        self._tail = _Tail(sending, opening)
        self._sending = sending
        self._finish: Finish | None = finish
        self._stall = sending.upstreams.stall_timeout
        self._error: SendingFailed | None = None
        self.decision = decision

    def _over(self, failure: FailureKind | None) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(failure)

    def _broken(self, fault: Fault) -> SendingFailed:
        """Put on record that the stream broke; return the error to raise, the same one each time."""
        if self._error is None:
            self._sending.amend(fault.kind, fault.detail)
            self.decision = self._sending.decision()
            self._error = sending_failed(fault, self._sending.records, self.decision)
        return self._error


class InvokeStream(_Base):
    """An iterator of chunks (dicts) as they come; also a context manager.

    `decision` says which way it took. Closing it, or dropping it, closes the upstream's connection. A stream
    that breaks raises `UpstreamUnavailable`, one that stands still `DeadlineExceeded`, after the chunks that came.
    """

    def __init__(self, sending: Sending, opening: Opening, live: Opened, *, decision: Decision, finish: Finish) -> None:
        super().__init__(sending, opening, decision, finish)
        self._live: Opened | None = live

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        tail = self._tail
        # one limit per token, not per read: keep-alive comments must not hold it open
        deadline = monotonic() + self._stall
        while tail.waiting and self._live is not None:
            try:
                tail.feed(self._live.next(deadline))
            except SendFault as cut:
                tail.cut(cut)
        if tail.ready:
            return tail.ready.popleft()
        if tail.fault is not None:
            error = self._broken(tail.fault)
            self._close(tail.fault.kind)
            raise error
        self._drain()
        self._close(None if tail.ended else FailureKind.CANCELLED)
        raise StopIteration

    def close(self) -> None:
        """Close the upstream; what was not read is lost. May be called again."""
        self._tail.ready.clear()
        self._close(None if self._tail.ended else FailureKind.CANCELLED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_live", None) is not None:
            self.close()

    def _drain(self) -> None:
        try:
            while self._live is not None and self._live.next(monotonic() + _LINGER_SECONDS):
                pass
        except SendFault:
            pass  # it has said [DONE]; how it hangs up is its own affair

    def _close(self, failure: FailureKind | None) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.close()
        self._over(failure)


class AsyncInvokeStream(_Base):
    """As `InvokeStream`, with `async for`, `async with` and `aclose`.

    Close it, or read it to its end: Python cannot close a connection when the last reference goes.
    """

    def __init__(
        self, sending: Sending, opening: Opening, live: AsyncOpened, *, decision: Decision, finish: Finish
    ) -> None:
        super().__init__(sending, opening, decision, finish)
        self._live: AsyncOpened | None = live

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        tail = self._tail
        try:
            if tail.waiting and self._live is not None:
                await self._fill(self._live)
        except BaseException:
            await self._close(FailureKind.CANCELLED)
            raise
        if tail.ready:
            return tail.ready.popleft()
        if tail.fault is not None:
            error = self._broken(tail.fault)
            await self._close(tail.fault.kind)
            raise error
        await self._drain()
        await self._close(None if tail.ended else FailureKind.CANCELLED)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the upstream; what was not read is lost. May be called again."""
        self._tail.ready.clear()
        await self._close(None if self._tail.ended else FailureKind.CANCELLED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _fill(self, live: AsyncOpened) -> None:
        # one limit per token, not per read: keep-alive comments must not hold it open
        try:
            async with asyncio.timeout(self._stall):
                while self._tail.waiting:
                    self._tail.feed(await live.next())
        except SendFault as cut:
            self._tail.cut(cut)
        except TimeoutError:
            self._tail.cut(SendFault(FailureKind.TIMEOUT, ""))

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while self._live is not None and await self._live.next():
                    pass
        except (SendFault, TimeoutError):
            pass  # it has said [DONE]; how it hangs up is its own affair

    async def _close(self, failure: FailureKind | None) -> None:
        live, self._live = self._live, None
        if live is not None:
            await live.close()
        self._over(failure)
