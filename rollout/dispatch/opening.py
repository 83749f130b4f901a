"""A stream's beginning: held back until it delivers something, because only until then another path can answer.

Pure: bytes go in, and as soon as it is decided a verdict comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rollout.dispatch.classify import Fault, of_error
from rollout.dispatch.substance import EMPTY, error_finish
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.wire.chat import (
    Usage,
    choices_in,
    delivers,
    error_in,
    error_of_choice,
    read_event,
    served_model,
    serves,
    usage_in,
)
from rollout.wire.sse import EventParser, EventTooLong

MAX_HELD_BYTES: Final = 16 * 1024 * 1024
"""What may come before the first token; an upstream that sends more has nothing to say."""


_NOT_YET: Final = object()

LOST: Final = Fault(
    FailureKind.NO_ANSWER,
    "LiteLLM lost a piece of the stream: it takes a piece whose text holds [DONE] for the stream's end",
    fits=False,
)
"""A piece of an answer came after its end, through the gateway. It speaks against neither the gateway nor the model:
the text of one answer brings it about."""


class Opening:
    """What was read of a stream so far.

    `held` are the bytes as they came, `events` the data of the complete events among them, `parser` goes on
    where they end. `committed` says that something for the caller is among them.
    """

    __slots__ = ("_finished", "_headers", "_path", "committed", "events", "held", "limited", "model", "parser", "usage")

    def __init__(self, path: Path, headers: Mapping[str, str], *, limited: bool = False) -> None:
        self._path = path
        self._headers = headers
        self.limited = limited
        self._finished: object = _NOT_YET  # the index of the choice that ended first
        self.committed = False
        self.events: list[bytes] = []
        self.held = bytearray()
        self.model: str | None = None
        self.usage: Usage | None = None
        self.parser = EventParser()

    @property
    def release(self) -> str | None:
        """Return which LiteLLM the gateway says that it is, None if it does not say or if this is the direct path."""
        return self._headers.get("x-litellm-version")

    def feed(self, data: bytes, *, wall: float) -> Fault | None:
        """Take the next bytes; return what is wrong as soon as something is. Ask `committed` after each."""
        self.held += data
        try:
            events = self.parser.feed(data)
        except EventTooLong as error:
            return Fault(FailureKind.NO_ANSWER, str(error))
        fault = self._judge(events, wall) if events else None
        if fault is None and not self.committed and len(self.held) > MAX_HELD_BYTES:
            return Fault(FailureKind.NO_ANSWER, f"{MAX_HELD_BYTES:,} bytes of a stream without a token in them")
        return fault

    def end(self, *, wall: float) -> Fault | None:
        """Take the end of the stream; return what is wrong, None where something was delivered after all."""
        self.held += b"\n\n"  # what was cut off is handed out, so it is whole for whoever reads on, too
        fault = self._judge(self.parser.end(), wall)
        if fault is not None or self.committed:
            return fault
        if self.events:
            return Fault(FailureKind.TRUNCATED, "a stream that ended before its first token and without [DONE]")
        return Fault(FailureKind.NO_ANSWER, "a stream that ended before its first token")

    def _judge(self, events: list[bytes], wall: float) -> Fault | None:
        self.events += events
        for event in events:
            if self.committed:
                return None
            try:
                chunk = read_event(event)
            except ValueError:
                return Fault(FailureKind.NO_ANSWER, "a stream with something else than a JSON object in it")
            if chunk is None:
                continue
            if isinstance(chunk, bytes):
                return EMPTY  # the end mark
            if (error := error_in(chunk)) is not None:
                return of_error(self._path, error, self._headers, wall=wall)
            self.model = self.model or served_model(chunk)
            self.usage = usage_in(chunk) or self.usage
            if (failed := self._choices(chunk)) is not None:
                return failed
        return None

    def _choices(self, chunk: dict[str, Any]) -> Fault | None:
        for choice in choices_in(chunk):
            if (error := error_of_choice(choice)) is not None:
                return error_finish(error)
            if self.limited and choice.get("finish_reason") == "length":
                self.committed = True  # the caller's own limit left nothing over: that is the answer
            self.committed = self.committed or delivers(choice)
            if self._path is Path.LITELLM:
                if self._finished == choice.get("index") and serves(choice.get("delta")):
                    return LOST
                if choice.get("finish_reason") and self._finished is _NOT_YET:
                    self._finished = choice.get("index")
        return None
