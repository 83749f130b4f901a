"""A stream in Python: an iterator of parsed chunks that knows its decision and closes its upstream."""

from __future__ import annotations

from asyncio import get_running_loop
from typing import Any, Self

from rollout.dispatch.classify import Fault
from rollout.dispatch.decision import Decision, Finish
from rollout.dispatch.failing import sending_failed
from rollout.dispatch.opening import Opening
from rollout.dispatch.passing import drain, drain_now, let_go, next_token, read_token
from rollout.dispatch.senders.seam import AsyncOpened, Opened
from rollout.dispatch.sending import Sending
from rollout.dispatch.tail import Tail
from rollout.domain.errors import SendingFailed
from rollout.domain.failure import FailureKind


class _Base:
    def __init__(self, sending: Sending, opening: Opening, decision: Decision, finish: Finish) -> None:
        last = sending.records[-1]
        says_cost = sending.gate.streams_say_cost
        self._tail = Tail(opening, sending.wanted, path=last.path, model=last.model, keep=True, says_cost=says_cost)
        self._sending = sending
        self._finish: Finish | None = finish
        self._stall = sending.upstreams.stall_timeout
        self._error: SendingFailed | None = None
        self.decision = decision

    def _over(self, failure: FailureKind | None) -> None:
        finish, self._finish = self._finish, None
        if finish is not None:
            self._sending.used(self._tail.usage)
            if failure is None:
                self.decision = self._sending.decision()
            finish(failure)

    def _ended(self) -> FailureKind | None:
        """Return how it ended, if it is left now."""
        fault = self._tail.fault
        return fault.kind if fault is not None else None if self._tail.done else FailureKind.CANCELLED

    def _broken(self, fault: Fault) -> SendingFailed:
        """Put on record that the stream broke; return the error to raise, the same one each time."""
        if self._error is None:
            self._sending.used(self._tail.usage)
            self._sending.amend(fault)
            self.decision = self._sending.decision()
            self._error = sending_failed(fault, self.decision)
        return self._error


class InvokeStream(_Base):
    """An iterator of chunks (dicts) as they come; also a context manager.

    `decision` says which way it took. Closing it, or dropping it, closes the upstream's connection. A stream
    that breaks, or ends without having served, raises `UpstreamUnavailable`, one that stands still
    `DeadlineExceeded`, after the chunks that came.
    """

    def __init__(self, sending: Sending, opening: Opening, live: Opened, *, decision: Decision, finish: Finish) -> None:
        super().__init__(sending, opening, decision, finish)
        self._live: Opened | None = live

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        tail = self._tail
        while tail.waiting and self._live is not None:
            read_token(self._live, tail, self._stall)
        if tail.ready:
            return tail.ready.popleft()
        if tail.fault is not None:
            error = self._broken(tail.fault)
            self._close(tail.fault.kind)
            raise error
        if self._live is not None:
            drain_now(self._live)
        self._close(self._ended())
        raise StopIteration

    def close(self) -> None:
        """Close the upstream; what was not read is lost. May be called again."""
        self._tail.ready.clear()
        self._close(self._ended())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_live", None) is not None:
            self.close()

    def _close(self, failure: FailureKind | None) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.close()
        self._over(failure)


class AsyncInvokeStream(_Base):
    """As `InvokeStream`, with `async for`, `async with` and `aclose`; made and read on one event loop.

    Dropping it leaves the closing to that loop, which does it at its next turn.
    """

    def __init__(
        self, sending: Sending, opening: Opening, live: AsyncOpened, *, decision: Decision, finish: Finish
    ) -> None:
        super().__init__(sending, opening, decision, finish)
        self._loop = get_running_loop()
        self._live: AsyncOpened | None = live

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        tail = self._tail
        try:
            while tail.waiting and self._live is not None:
                await next_token(self._live, tail, self._stall)
        except BaseException:
            await self._close(FailureKind.CANCELLED)
            raise
        if tail.ready:
            return tail.ready.popleft()
        if tail.fault is not None:
            error = self._broken(tail.fault)
            await self._close(tail.fault.kind)
            raise error
        if self._live is not None:
            await drain(self._live)
        await self._close(self._ended())
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the upstream; what was not read is lost. May be called again."""
        self._tail.ready.clear()
        await self._close(self._ended())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_live", None) is not None:
            let_go(self._loop, self._dropped)

    def _dropped(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.abort()
        self._over(self._ended())

    async def _close(self, failure: FailureKind | None) -> None:
        live, self._live = self._live, None
        if live is not None:
            await live.close()
        self._over(failure)
