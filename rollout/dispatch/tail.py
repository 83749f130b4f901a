"""What follows a stream's opening: bytes in, chunks out, and what is wrong as soon as something is. Pure.

Once the caller got something nothing can be sent again, so a failure here is told, in the stream itself by the
endpoint and as an exception by the iterators, and counted.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from rollout.dispatch.assembling import MAX_CHARACTERS, Assembly
from rollout.dispatch.classify import Fault, interrupted
from rollout.dispatch.opening import LOST, Opening
from rollout.dispatch.parity import restore_chunk, usage_is_estimated
from rollout.dispatch.senders.seam import SendFault
from rollout.dispatch.substance import EMPTY, Wanted, error_finish, judge_answer
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.domain.release import streams_say_cost
from rollout.wire.chat import Usage, choices_in, delivers, error_in, error_of_choice, read_event, serves, usage_in
from rollout.wire.sse import EventTooLong

_CUT_OFF: Final = Fault(FailureKind.TRUNCATED, "the stream ended without [DONE]")
_TOO_LONG: Final = Fault(FailureKind.INTERRUPTED, f"more than {MAX_CHARACTERS:,} characters of an answer to be judged")


class Tail:
    """The rest of a stream. `keep` says whether chunks are handed out; else there is a verdict on each event.

    Chunks of the gateway are handed out in the upstream's shape; `model` is the one that was asked. `says_cost` says
    whether a stream of this gateway said a cost before; it counts only if the gateway does not say its release.

    Attributes:
        ready: chunks nobody took yet.
        verdicts: for each event before the end, whether it goes on to the caller; taken by whoever passes them on.
        done: whether `[DONE]` came.
        fault: why the stream broke, None while it has not.
        usage: what the stream says it used.
        moved: whether a token came since this was last set to False.
        patience: seconds that may still be waited for the next one; kept by whoever waits.
    """

    __slots__ = (
        "_assembly",
        "_behind_usage",
        "_estimated",
        "_finish",
        "_model",
        "_of_gateway",
        "_parser",
        "_release",
        "_says_cost",
        "_served",
        "_several",
        "_wanted",
        "done",
        "fault",
        "keep",
        "moved",
        "patience",
        "ready",
        "usage",
        "verdicts",
    )

    def __init__(
        self, opening: Opening, wanted: Wanted, *, path: Path, model: str, keep: bool, says_cost: bool = False
    ) -> None:
        self._of_gateway = path is Path.LITELLM
        self._model = model
        self._estimated = False
        self._parser = opening.parser
        self._release = opening.release
        self._says_cost = says_cost
        self._wanted = wanted
        self._assembly = Assembly() if wanted.has_shape else None
        self._served = False
        self._several = False
        self._finish: object = None
        self._behind_usage = False
        self.keep = keep
        self.ready: deque[dict[str, Any]] = deque()
        self.verdicts: deque[bool] = deque()
        self.done = False
        self.moved = True
        self.patience = 0.0
        self.fault: Fault | None = None
        self.usage: Usage | None = None
        self._take(opening.events)
        opening.events = []

    @property
    def odd(self) -> bool:
        """Tell whether anything came that says nothing, beside data, comments and empty lines."""
        return self._parser.odd

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more is to be read."""
        return self.done or self.fault is not None

    @property
    def waiting(self) -> bool:
        """Tell whether more bytes are needed before anything else can happen."""
        return not (self.ready or self.is_over)

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
            try:
                chunk = read_event(event)
            except ValueError:
                self.fault = Fault(FailureKind.INTERRUPTED, "something else than a JSON object in a stream")
                return
            if isinstance(chunk, bytes):
                self.done = True
                self.fault = self._lacking()
                return
            goes_on = chunk is not None and self._look(chunk, suspect=b"error" in event)
            if not goes_on and self.is_over:
                return
            if not self.keep:
                self.verdicts.append(goes_on)
            elif goes_on and chunk is not None:
                if self._of_gateway:
                    restore_chunk(chunk, model=self._model)
                self.ready.append(chunk)

    def _look(self, chunk: dict[str, Any], *, suspect: bool) -> bool:
        """Look at a chunk and say whether it goes on; `suspect` if the word error is in it, else it tells no error."""
        if self._finish is not None and self._of_gateway and self._is_late(chunk):
            return False
        if "usage" in chunk and (usage := usage_in(chunk)) is not None:
            self.usage, self.moved = usage, True
            self._estimated = (
                self._of_gateway
                and usage_is_estimated(chunk)
                and streams_say_cost(self._release, unknown=self._says_cost)
            )
            self._behind_usage = self._finish is not None
        if suspect and (error := error_in(chunk)) is not None:
            self.fault = interrupted(Path.LITELLM if self._of_gateway else Path.OPENROUTER, error)
            return False
        for choice in choices_in(chunk):
            if suspect and (failed := error_of_choice(choice)) is not None:
                self.fault = error_finish(failed)
                return False
            self._choice(choice)
        return self.fault is None

    def _is_late(self, chunk: dict[str, Any]) -> bool:
        """Tell whether a chunk that comes after the end of the gateway's only choice brings more of it.

        After the usage, which LiteLLM sends last, the upstream sent it behind its own end mark: nothing of the answer.
        Before, LiteLLM took a piece of the answer for the end mark, and that piece is gone.
        """
        if self._several or not any(serves(choice.get("delta")) for choice in choices_in(chunk)):
            return False
        if not self._behind_usage:
            self.fault = LOST._replace(kind=FailureKind.INTERRUPTED)
        return True

    def _choice(self, choice: dict[str, Any]) -> None:
        if choice.get("index"):
            self._several = True
        if self._assembly is not None:
            self._assembly.take(choice)
            if self._assembly.is_too_long:
                self.fault = _TOO_LONG
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

    def _lacking(self) -> Fault | None:
        """Return what is missing from a stream that came to its proper end."""
        if self._estimated:
            return Fault(FailureKind.TRUNCATED, "the stream broke off behind the gateway, which made up its end")
        if self._assembly is not None:
            # the gateway loses why any choice but the first one ended: it may have been the caller's limit
            lost = "length" if self._of_gateway and self._several else None
            return judge_answer(self._assembly.document(unknown_finish=lost), self._wanted)
        if self._wanted.limited and self._finish == "length":
            return None
        return None if self._served else EMPTY
