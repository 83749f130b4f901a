"""A stream as the bytes it came in, pulled by whoever reads it: for callers that are no ASGI server.

Reading it to its end, closing it and dropping it half-way all close the upstream. A break is told in the stream
itself; nothing is raised for what an upstream did.
"""

from __future__ import annotations

from asyncio import get_running_loop
from typing import Self

from rollout.dispatch.decision import Finish
from rollout.dispatch.opening import Opening
from rollout.dispatch.passing import Passage, drain, drain_now, let_go, next_token, read_token
from rollout.dispatch.senders.seam import AsyncOpened, Opened
from rollout.dispatch.sending import Sending


class _Base:
    def __init__(self, sending: Sending, opening: Opening, finish: Finish) -> None:
        self._finish: Finish | None = finish
        self._passage = Passage(sending, opening)
        self._piece: bytes | None = self._passage.first

    def _body(self) -> bytes:
        """Return what goes to the caller of the piece that was read last."""
        piece, self._piece = self._piece, None
        return self._passage.passable(piece) if piece is not None else b""

    def _over(self) -> bytes:
        """Put on record how it ended, once; return what the caller is to be told of it."""
        finish, self._finish = self._finish, None
        if finish is None:
            return b""
        event, failure = self._passage.end()
        finish(failure)
        return event


class Relay(_Base):
    """An iterator of a stream's bytes.

    Args:
        sending: The request; its last attempt is the one that answers.
        opening: What was read so far.
        live: Where the rest comes from.
        finish: Is told how it ended, once.
    """

    def __init__(self, sending: Sending, opening: Opening, live: Opened, finish: Finish) -> None:
        super().__init__(sending, opening, finish)
        self._live: Opened | None = live

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            while (live := self._live) is not None:
                if body := self._body():
                    return body
                if not self._passage.is_over:
                    self._piece = read_token(live, self._passage.tail, self._passage.stall)
                    continue
                if self._passage.tail.fault is None:
                    drain_now(live)
                self._hang_up()
                if event := self._over():
                    return event
        except BaseException:
            self.close()
            raise
        raise StopIteration

    def close(self) -> None:
        """Close the upstream; what was not read is lost. May be called again."""
        self._hang_up()
        self._over()

    def __del__(self) -> None:
        if getattr(self, "_live", None) is not None:
            self.close()

    def _hang_up(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.close()


class AsyncRelay(_Base):
    """As `Relay`, asynchronously; made and read on one event loop.

    Dropping it leaves the closing to that loop, which does it at its next turn.
    """

    def __init__(self, sending: Sending, opening: Opening, live: AsyncOpened, finish: Finish) -> None:
        super().__init__(sending, opening, finish)
        self._loop = get_running_loop()
        self._live: AsyncOpened | None = live

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            while (live := self._live) is not None:
                if body := self._body():
                    return body
                if not self._passage.is_over:
                    self._piece = await next_token(live, self._passage.tail, self._passage.stall)
                    continue
                if self._passage.tail.fault is None:
                    await drain(live)
                await self._hang_up()
                if event := self._over():
                    return event
        except BaseException:
            await self.aclose()
            raise
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the upstream; what was not read is lost. May be called again."""
        await self._hang_up()
        self._over()

    def __del__(self) -> None:
        if getattr(self, "_live", None) is not None:
            let_go(self._loop, self._dropped)

    def _dropped(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.abort()
        self._over()

    async def _hang_up(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            await live.close()
