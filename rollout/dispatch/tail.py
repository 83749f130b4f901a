"""What follows a stream's opening: bytes in, chunks out, and what is wrong as soon as something is. Pure.

Once the caller got something nothing can be sent again, so a failure here is told, in the stream itself by the
endpoint and as an exception by the iterators, and counted.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from rollout.dispatch.classify import Fault, interrupted
from rollout.dispatch.opening import Opening, parsed_chunk
from rollout.dispatch.parity import restore_chunk, usage_is_estimated
from rollout.dispatch.senders.seam import SendFault
from rollout.dispatch.substance import EMPTY, JsonShape, Wanted, error_finish
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.wire.chat import DONE, Usage, choices_in, delivers, error_in, error_of_choice, serves, usage_in
from rollout.wire.sse import EventTooLong

_CUT_OFF: Final = Fault(FailureKind.TRUNCATED, "the stream ended without [DONE]")


class Tail:
    """The rest of a stream. `keep` says whether chunks are to be handed out; else they are only looked at.

    Chunks of the gateway are handed out in the upstream's shape; `model` is the one that was asked.

    Attributes:
        ready: chunks nobody took yet.
        done: whether `[DONE]` came.
        fault: why the stream broke, None while it has not.
        usage: what the stream says it used.
        moved: whether a token came since this was last set to False.
        patience: seconds that may still be waited for the next one; kept by whoever waits.
    """

    __slots__ = (
        "_estimated",
        "_finish",
        "_json",
        "_limited",
        "_model",
        "_of_gateway",
        "_parser",
        "_release",
        "_served",
        "done",
        "fault",
        "keep",
        "moved",
        "patience",
        "ready",
        "usage",
    )

    def __init__(self, opening: Opening, wanted: Wanted, *, path: Path, model: str, keep: bool) -> None:
        self._of_gateway = path is Path.LITELLM
        self._model = model
        self._estimated = False
        self._parser = opening.parser
        self._release = opening.release
        self._json = JsonShape() if wanted.json else None
        self._limited = wanted.limited
        self._served = False
        self._finish: object = None
        self.keep = keep
        self.ready: deque[dict[str, Any]] = deque()
        self.done = False
        self.moved = True
        self.patience = 0.0
        self.fault: Fault | None = None
        self.usage: Usage | None = None
        self._take(opening.events)
        opening.events = []

    @property
    def waiting(self) -> bool:
        """Say whether more bytes are needed before anything else can happen."""
        return not (self.ready or self.done or self.fault)

    def feed(self, data: bytes) -> None:
        """Take the next bytes; empty bytes are the end of the stream."""
        try:
            self._take(self._parser.feed(data) if data else self._parser.end())
        except EventTooLong as error:
            self.fault = Fault(FailureKind.INTERRUPTED, str(error))
        if not data and not self.done and self.fault is None:
            self.fault = _CUT_OFF

    def cut(self, fault: SendFault) -> None:
        """Take that no more bytes will come, and why."""
        if fault.kind is FailureKind.TIMEOUT:
            self.fault = Fault(FailureKind.TIMEOUT, "the stream stood still for too long")
        else:
            self.fault = Fault(FailureKind.INTERRUPTED, fault.detail, cut=True)

    def _take(self, events: list[bytes]) -> None:
        for event in events:
            if self.done or self.fault is not None:
                return
            if event == DONE:
                self.done = True
                self.fault = self._lacking()
                return
            chunk = parsed_chunk(event)
            if isinstance(chunk, dict):
                self._look(chunk, suspect=b"error" in event)
            else:
                self.fault = Fault(FailureKind.INTERRUPTED, "something else than JSON in the middle of a stream")

    def _look(self, chunk: dict[str, Any], *, suspect: bool) -> None:
        """Look at a chunk; `suspect` where the word error is in it, without which it holds none."""
        if "usage" in chunk and (usage := usage_in(chunk)) is not None:
            self.usage, self.moved = usage, True
            self._estimated = self._of_gateway and usage_is_estimated(chunk, release=self._release)
        if suspect and (error := error_in(chunk)) is not None:
            self.fault = interrupted(Path.LITELLM if self._of_gateway else Path.OPENROUTER, error)
            return
        for choice in choices_in(chunk):
            if suspect and (failed := error_of_choice(choice)) is not None:
                self.fault = error_finish(failed)
                return
            self._choice(choice)
        if self.keep:
            if self._of_gateway:
                restore_chunk(chunk, model=self._model)
            self.ready.append(chunk)

    def _choice(self, choice: dict[str, Any]) -> None:
        if not self.moved:
            self.moved = delivers(choice)
        if finish := choice.get("finish_reason"):
            self._finish, self.moved = finish, True
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            self._served = self._served or bool(choice.get("text"))
            return
        if not self._served:
            self._served = serves(delta)
        if self._json is not None:
            if delta.get("tool_calls") or delta.get("refusal") or choice.get("index"):
                self._json = None  # an answer of another kind, or one of several
            elif isinstance(content := delta.get("content"), str):
                self._json.feed(content)

    def _lacking(self) -> Fault | None:
        """Return what is missing from a stream that came to its proper end."""
        if self._estimated:
            return Fault(FailureKind.TRUNCATED, "the stream broke off behind the gateway, which made up its end")
        if self._limited and self._finish == "length":
            return None
        if not self._served:
            return EMPTY
        if self._json is not None and not self._json.is_whole:
            return Fault(FailureKind.INVALID_JSON, "JSON was asked for, and the text is no whole document")
        return None
