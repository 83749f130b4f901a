"""Pass a stream's bytes on as they come; look at them on their way, and say in the stream when it breaks.

What has no meaning is left out, because clients stumble over it: events that say nothing, fields beside the data, a
byte order mark, whatever follows the end mark. Everything else stays as it came.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from time import monotonic
from typing import Final

from rollout.dispatch.asgi import Headers, Send
from rollout.dispatch.failures import FACES
from rollout.dispatch.opening import Opening
from rollout.dispatch.senders.seam import AsyncOpened, Opened, SendFault, too_late
from rollout.dispatch.sending import Sending
from rollout.dispatch.tail import Tail
from rollout.dispatch.within import Within
from rollout.domain.failure import FailureKind
from rollout.wire.chat import DONE, error_event
from rollout.wire.sse import WholeEvents, blocks_of

LINGER_SECONDS: Final = 0.05
"""How long to wait for the connection's own end after `[DONE]`; a connection read to its end is used again."""

_END: Final = b"data: %b\n\n" % DONE


class Passage:
    """What of a stream goes on to the caller; no sockets. Whole events as they came, then one more where it broke.

    What was passed before a break cannot be taken back, so the break is told as an error event, in the form in
    which clients of OpenAI look for it. It stands in the place of the upstream's own: each path has another shape
    for those.

    Read into `tail` with `next_token` or `read_token` and hand each piece to `passable`, the empty one at a break
    too, until `is_over`; call `end` once, also where the caller left.

    Attributes:
        first: what was held back of the stream.
        is_delivered: whether the caller has all of it, to its end mark; many clients hang up there.
        stall: seconds without a token that are too long.
        tail: what is read into.
    """

    __slots__ = ("_events", "_sending", "first", "is_delivered", "stall", "tail")

    def __init__(self, sending: Sending, opening: Opening) -> None:
        self._sending = sending
        self._events = WholeEvents()
        self.is_delivered = False
        self.stall = sending.upstreams.stall_timeout
        self.first = bytes(opening.held)
        opening.held.clear()
        last = sending.records[-1]
        says_cost = sending.gate.streams_say_cost
        self.tail = Tail(opening, sending.wanted, path=last.path, model=last.model, keep=False, says_cost=says_cost)

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more is to be read."""
        return self.tail.is_over

    def passable(self, piece: bytes) -> bytes:
        """Return how much of a piece that the tail has looked at goes to the caller."""
        events = self._events.feed(piece)
        tail = self.tail
        if not (self.is_over or tail.odd or False in tail.verdicts):
            tail.verdicts.clear()
            return events
        if self.is_over:
            events += self._events.end()
        return self._meant(events)

    def _meant(self, events: bytes) -> bytes:
        """Return the events that go on, up to the first that no client could read, tells an error or is `[DONE]`."""
        goes_on = self.tail.verdicts
        passed = []
        for block, has_data in blocks_of(events):
            if not has_data:
                passed.append(block)
            elif not goes_on:
                break
            elif goes_on.popleft():
                passed.append(block)
        if self.tail.done and self.tail.fault is None:
            passed.append(_END)
        return b"".join(passed)

    def end(self) -> tuple[bytes, FailureKind | None]:
        """Put on record how it ended; return the last bytes for the caller, and why it broke or was left."""
        self._sending.used(self.tail.usage)
        fault = self.tail.fault
        if fault is None:
            return b"", None if self.tail.done else FailureKind.CANCELLED
        self._sending.amend(fault)
        # as it is on record: there our keys are no longer in what an upstream said
        said = self._sending.records[-1].detail or fault.kind.value
        return b"\n\n" + error_event(said, kind=FACES[fault.kind].kind, code=fault.kind.value), fault.kind


async def pass_on(passage: Passage, live: AsyncOpened, send: Send, headers: Headers) -> FailureKind | None:
    """Send the head, what was held back, then the rest; return why it broke, None where it came to its end.

    The upstream is closed in any case.
    """
    ended = False
    try:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        piece = passage.first
        while True:
            if body := passage.passable(piece):
                await send({"type": "http.response.body", "body": body, "more_body": True})
            if passage.is_over:
                break
            piece = await next_token(live, passage.tail, passage.stall)
        if passage.tail.fault is None:
            passage.is_delivered = True
            await drain(live)
        ended = True
    finally:
        await live.close()
        if not ended:
            passage.end()
    event, failure = passage.end()
    await send({"type": "http.response.body", "body": event})
    return failure


async def next_token(live: AsyncOpened, tail: Tail, stall: float) -> bytes:
    """Read the next piece into a tail and return it, empty where there is none.

    What brings no token, as comments and chunks with a role alone, uses up the time until one must come. Only
    waiting counts: a reader that takes its time is not the upstream's fault.
    """
    started = _ready(tail, stall)
    try:
        with Within(tail.patience):
            piece = await live.next()
    except TimeoutError:
        tail.cut(too_late("the next token"))
        return b""
    except SendFault as cut:
        tail.cut(cut)
        return b""
    tail.feed(piece)
    tail.patience -= monotonic() - started
    return piece


def read_token(live: Opened, tail: Tail, stall: float) -> bytes:
    """Do what `next_token` does, synchronously."""
    started = _ready(tail, stall)
    try:
        piece = live.next(started + tail.patience)
    except SendFault as cut:
        tail.cut(cut)
        return b""
    tail.feed(piece)
    tail.patience -= monotonic() - started
    return piece


def let_go(loop: AbstractEventLoop, end: Callable[[], None]) -> None:
    """Have what ends a dropped stream run on the event loop it is of; here, where that loop is closed.

    Objects are dropped in any thread, and in the middle of anything, also of what holds a lock.
    """
    try:
        loop.call_soon_threadsafe(end)
    except RuntimeError:
        end()


async def drain(live: AsyncOpened) -> None:
    """Read what follows `[DONE]`, for a moment; how the upstream hangs up is its own affair."""
    try:
        with Within(LINGER_SECONDS):
            while await live.next():
                pass
    except (SendFault, TimeoutError):
        pass


def drain_now(live: Opened) -> None:
    """Do what `drain` does, synchronously."""
    deadline = monotonic() + LINGER_SECONDS
    try:
        while live.next(deadline):
            pass
    except SendFault:
        pass


def _ready(tail: Tail, stall: float) -> float:
    if tail.moved:
        tail.moved, tail.patience = False, stall
    return monotonic()
