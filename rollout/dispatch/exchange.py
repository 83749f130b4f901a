"""Perform one attempt, synchronously or asynchronously: post it, judge the answer, put it on record.

A stream counts as answered at its first token; until then everything is held back and another path may still
answer. What an attempt fails with is a value; only a caller that leaves (a cancellation) passes as an exception.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from rollout.dispatch.classify import Fault, classify
from rollout.dispatch.opening import Opening
from rollout.dispatch.parity import in_doubt, restore, upstream_model
from rollout.dispatch.paths import Call
from rollout.dispatch.senders.seam import AsyncOpened, AsyncSender, Opened, Sender, SendFault, too_late
from rollout.dispatch.sending import Sending
from rollout.dispatch.substance import judge_answer
from rollout.dispatch.within import Within
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.resilience.policy import Attempt, Outcome
from rollout.wire.chat import DONE, dump_json, served_model, usage_in

Clock = Callable[[], float]

_OpenedT = TypeVar("_OpenedT", Opened, AsyncOpened)


class Answer(NamedTuple):
    """What an attempt brought.

    A plain answer: `body` as it came and `document` parsed, `restored` where the document is no longer what the body
    says, `rewrites` names what may be different and cannot be put back; `raw` gives the bytes for a caller. A stream:
    `opening` holds what was read of it so far and `live` where the rest comes from, a synchronous or an asynchronous
    one. `fault` says why there is none.
    """

    fault: Fault | None
    body: bytes = b""
    document: Any = None
    content_type: str = ""
    opening: Opening | None = None
    live: Any = None
    restored: bool = False
    rewrites: tuple[str, ...] = ()

    def raw(self) -> bytes:
        """Return the bytes a caller gets: as they came, written anew only where something was put back."""
        return dump_json(self.document) if self.restored else self.body


def attempt_once(
    sending: Sending, attempt: Attempt, sender: Sender, *, clock: Clock, wall: Clock
) -> tuple[Outcome, Answer]:
    """Perform an attempt synchronously.

    Raises:
        InvalidRequest: it cannot be sent at all; nothing was.
    """
    call = sending.call(attempt)
    if _would_be_eaten(sending, attempt, call):
        return _withheld(sending, attempt)
    # the policy counts by the clock it was given, sockets by the real one
    deadline = monotonic() + max(0.0, attempt.deadline - clock())
    opened: Opened | None = None
    kept = False
    try:
        opened = sender.open(call, deadline)
        if sending.stream and is_stream(opened.status, opened.headers):
            opening = Opening(attempt.path, opened.headers, limited=sending.wanted.limited)
            fault = None
            while fault is None and not opening.committed:
                data = opened.next(deadline)
                fault = opening.feed(data, wall=wall()) if data else opening.end(wall=wall())
            kept = fault is None
            return _streamed(sending, attempt, opened, opening, fault)
        body = opened.read(deadline)
        return _plain(sending, attempt, opened.status, opened.headers, body, wall=wall())
    except SendFault as fault:
        return _silent(sending, attempt, opened, fault)
    finally:
        if opened is not None and not kept:
            opened.close()


async def attempt_once_async(
    sending: Sending, attempt: Attempt, sender: AsyncSender, *, clock: Clock, wall: Clock
) -> tuple[Outcome, Answer]:
    """Perform an attempt asynchronously; a cancellation closes the upstream and passes on.

    Raises:
        InvalidRequest: it cannot be sent at all; nothing was.
    """
    call = sending.call(attempt)
    if _would_be_eaten(sending, attempt, call):
        return _withheld(sending, attempt)
    opened: AsyncOpened | None = None
    kept = False
    try:
        with Within(max(0.0, attempt.deadline - clock())):
            opened = await sender.open(call)
            if sending.stream and is_stream(opened.status, opened.headers):
                opening = Opening(attempt.path, opened.headers, limited=sending.wanted.limited)
                fault = None
                while fault is None and not opening.committed:
                    data = await opened.next()
                    fault = opening.feed(data, wall=wall()) if data else opening.end(wall=wall())
                kept = fault is None
                return _streamed(sending, attempt, opened, opening, fault)
            body = await opened.read()
            return _plain(sending, attempt, opened.status, opened.headers, body, wall=wall())
    except SendFault as fault:
        return _silent(sending, attempt, opened, fault)
    except TimeoutError:
        return _silent(sending, attempt, opened, too_late("the answer"))
    finally:
        if opened is not None and not kept:
            await opened.close()


def is_stream(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether an answer is a stream of events; everything else is read whole and judged as a plain one."""
    return status == 200 and headers.get("content-type", "").lower().startswith("text/event-stream")


def _would_be_eaten(sending: Sending, attempt: Attempt, call: Call) -> bool:
    """Tell whether LiteLLM would eat of the stream that a request asks for.

    It takes every piece whose text holds the end mark for the stream's end, and drops it. Nothing shows that in an
    answer's last piece, so a request that speaks of the end mark is streamed on the direct path, if that is possible.
    """
    return attempt.path is Path.LITELLM and sending.stream and DONE in call.body and sending.can_leave_the_gateway


def _withheld(sending: Sending, attempt: Attempt) -> tuple[Outcome, Answer]:
    fault = Fault(
        FailureKind.UNREACHABLE,
        "LiteLLM would lose the pieces of this stream that hold [DONE], so it was not asked",
        fits=False,
    )
    return sending.note(attempt, fault, status=None, sent=False), Answer(fault)


def _streamed(
    sending: Sending, attempt: Attempt, opened: _OpenedT, opening: Opening, fault: Fault | None
) -> tuple[Outcome, Answer]:
    headers, usage, committed = opened.headers, opening.usage, fault is None
    outcome = sending.note(
        attempt,
        fault,
        status=opened.status,
        model=_served(attempt, opening.model),
        headers=headers,
        usage=usage,
        committed=committed,
    )
    return outcome, Answer(fault, content_type=headers.get("content-type", ""), opening=opening, live=opened)


def _served(attempt: Attempt, said: str | None) -> str | None:
    return upstream_model(said, attempt.model) if said is not None and attempt.path is Path.LITELLM else said


def _plain(
    sending: Sending, attempt: Attempt, status: int, headers: Mapping[str, str], body: bytes, *, wall: float
) -> tuple[Outcome, Answer]:
    fault, document = classify(attempt.path, status, headers, body, wall=wall)
    model = usage = None
    restored, rewrites = False, tuple[str, ...]()
    if fault is None:
        if attempt.path is Path.LITELLM:
            rewrites = in_doubt(document)
            restored = restore(document, model=attempt.model)
        model, usage = served_model(document), usage_in(document)
        if sending.stream:
            fault = Fault(FailureKind.NO_ANSWER, "a plain answer where a stream was asked for")
        else:
            fault = judge_answer(document, sending.wanted)
    outcome = sending.note(attempt, fault, status=status, model=model, headers=headers, usage=usage)
    content_type = headers.get("content-type", "")
    return outcome, Answer(fault, body, document, content_type, restored=restored, rewrites=rewrites)


def _silent(
    sending: Sending, attempt: Attempt, opened: Opened | AsyncOpened | None, cut: SendFault
) -> tuple[Outcome, Answer]:
    # cut off before anything reached the caller: as good as never answered, so that another path may answer
    kind = FailureKind.NO_ANSWER if cut.kind is FailureKind.INTERRUPTED else cut.kind
    fault = Fault(kind, cut.detail, cut=cut.kind is FailureKind.INTERRUPTED)
    status = opened.status if opened else None
    return sending.note(attempt, fault, status=status, sent=cut.sent), Answer(fault)
