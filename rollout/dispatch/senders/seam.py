"""The seam between what is sent and what sends it: two small protocols, and how a sender says that it failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from rollout.dispatch.paths import Call
from rollout.domain.failure import FailureKind

CONNECT_SECONDS: Final = 5.0
"""A gateway that cannot be connected to within this is not there; waiting longer only delays the rescue."""

KEEP_ALIVE_SECONDS: Final = 4.0
"""Shorter than the 5 s after which uvicorn, and so LiteLLM, drops an idle connection under our feet."""

MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""A plain answer longer than this is refused rather than held in memory."""


class SendFault(Exception):
    """A call got no answer; stays inside this part, where failures are values.

    `sent` is False where no byte of it can have reached the other side.
    """

    def __init__(self, kind: FailureKind, detail: str, *, sent: bool = True) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.sent = sent


def too_long() -> SendFault:
    """Return the fault of an answer past `MAX_ANSWER_BYTES`."""
    return SendFault(FailureKind.NO_ANSWER, f"an answer of more than {MAX_ANSWER_BYTES:,} bytes")


def too_late(what: str, *, sent: bool = True) -> SendFault:
    """Return the fault of something that was not there in time."""
    return SendFault(FailureKind.TIMEOUT, f"{what} was not there in time", sent=sent)


class Opened(Protocol):
    """An answer whose head is there. `headers` are looked up in lower case."""

    status: int
    headers: Mapping[str, str]

    def read(self, deadline: float) -> bytes:
        """Return the whole body; raise SendFault where it is not there by the deadline."""
        ...

    def next(self, deadline: float) -> bytes:
        """Return the next bytes as they come, empty at the end; raise SendFault."""
        ...

    def close(self) -> None:
        """Close the connection unless the body was read to its end; may be called again."""
        ...


class Sender(Protocol):
    """Something that posts synchronously. Deadlines are `time.monotonic` seconds and hold over all phases."""

    def open(self, call: Call, deadline: float) -> Opened:
        """Post a call and return once the head of its answer is there; raise SendFault."""
        ...


class AsyncOpened(Protocol):
    """As `Opened`. Time limits are the caller's, by `asyncio.timeout`."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """Return the whole body; raise SendFault."""
        ...

    async def next(self) -> bytes:
        """Return the next bytes as they come, empty at the end; raise SendFault."""
        ...

    async def close(self) -> None:
        """Close the connection unless the body was read to its end; may be called again."""
        ...

    def abort(self) -> None:
        """Close the connection without waiting, where nobody is left who could; call it on the loop it is of."""
        ...


class AsyncSender(Protocol):
    """Something that posts asynchronously, from any event loop."""

    async def open(self, call: Call) -> AsyncOpened:
        """Post a call and return once the head of its answer is there; raise SendFault."""
        ...

    async def aclose(self) -> None:
        """Close what this event loop holds open; the next call opens it anew."""
        ...
