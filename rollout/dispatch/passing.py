"""Pass a stream's bytes on as they come, untouched; look at them on their way, and say in the stream when it breaks."""

from __future__ import annotations

from time import monotonic
from typing import Final

from rollout.dispatch.asgi import Send
from rollout.dispatch.failures import FACES
from rollout.dispatch.opening import Opening, parsed_chunk
from rollout.dispatch.senders.seam import AsyncOpened, Opened, SendFault, too_late
from rollout.dispatch.sending import Sending
from rollout.dispatch.tail import Tail
from rollout.dispatch.within import Within
from rollout.domain.failure import FailureKind
from rollout.wire.chat import error_event
from rollout.wire.sse import WholeLines

LINGER_SECONDS: Final = 0.05
"""How long to wait for the connection's own end after `[DONE]`; a connection read to its end is used again."""

_LAST: Final = b"data: [DONE]"
_SOUND_SO_FAR: Final = (FailureKind.ERROR_FINISH, FailureKind.EMPTY, FailureKind.INVALID_JSON)


class Passage:
    """What of a stream goes on to the caller; no sockets. Whole lines as they came, then an event where it broke.

    What was passed before a break cannot be taken back, so the break is told as an error event, in the form in
    which clients of OpenAI look for it, unless the upstream told it so itself.

    Read into `tail` with `next_token` or `read_token` and hand the piece to `passable`, until `is_over`; call `end`
    once, also where the caller left.
    """

    __slots__ = ("_lines", "_sending", "first", "tail")

    def __init__(self, sending: Sending, opening: Opening) -> None:
        self._sending = sending
        self._lines = WholeLines()
        self.first = bytes(opening.held)
        opening.held.clear()
        last = sending.records[-1]
        self.tail = Tail(opening, sending.wanted, path=last.path, model=last.model, keep=False)

    @property
    def is_over(self) -> bool:
        """Say whether nothing more is to be read."""
        return self.tail.done or self.tail.fault is not None

    def passable(self, piece: bytes) -> bytes:
        """Return how much of a piece that the tail has looked at goes to the caller."""
        tail, fault = self.tail, self.tail.fault
        if fault is None:
            return self._lines.feed(piece) + self._lines.end() if tail.done else self._lines.feed(piece)
        if tail.told:
            return self._lines.feed(piece) + self._lines.end()
        if fault.kind in _SOUND_SO_FAR:
            return self._lines.feed(piece).partition(_LAST)[0]  # after [DONE] nobody would read the error
        return self._readable(piece)

    def _readable(self, piece: bytes) -> bytes:
        """Return the lines of a piece before the first that no client could read; what came with a break counts."""
        readable = bytearray()
        for line in self._lines.feed(piece).splitlines(keepends=True):
            if not _is_readable(line):
                break
            readable += line
        return bytes(readable)

    def end(self) -> tuple[bytes, FailureKind | None]:
        """Put on record how it ended; return the last bytes for the caller, and why it broke or was left."""
        self._sending.used(self.tail.usage)
        fault = self.tail.fault
        if fault is None:
            return b"", None if self.tail.done else FailureKind.CANCELLED
        self._sending.amend(fault)
        if self.tail.told:
            return b"", fault.kind
        return b"\n\n" + error_event(fault.detail, kind=FACES[fault.kind].kind, code=fault.kind.value), fault.kind


def _is_readable(line: bytes) -> bool:
    field, _, value = line.strip().partition(b":")
    if field == b"data":
        return isinstance(parsed_chunk(value), dict)
    return field in (b"", b"event", b"id", b"retry")


async def pass_on(sending: Sending, opening: Opening, live: AsyncOpened, send: Send) -> FailureKind | None:
    """Send what was held back, then the rest; return why it broke, None where it came to its end.

    The upstream is closed in any case.
    """
    passage = Passage(sending, opening)
    stall = sending.upstreams.stall_timeout
    ended = False
    try:
        piece = passage.first
        while True:
            if body := passage.passable(piece):
                await send({"type": "http.response.body", "body": body, "more_body": True})
            if passage.is_over:
                break
            piece = await next_token(live, passage.tail, stall)
        if passage.tail.fault is None:
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
