"""Pass a stream's bytes on as they come, untouched; say in the stream itself when it breaks."""

from __future__ import annotations

import asyncio
from typing import Final

from rollout.dispatch.asgi import Send
from rollout.dispatch.failures import FACES
from rollout.dispatch.opening import Opening
from rollout.dispatch.senders.seam import AsyncOpened, SendFault
from rollout.dispatch.sending import Sending
from rollout.domain.failure import FailureKind
from rollout.wire.chat import error_event
from rollout.wire.sse import is_keep_alive

_END: Final = {"type": "http.response.body", "body": b""}


async def pass_on(sending: Sending, opening: Opening, live: AsyncOpened, send: Send) -> FailureKind | None:
    """Send what was held back, then the rest; return why it broke, None where it came to its end.

    The upstream is closed in any case; what was sent before a break cannot be taken back, so the break is told
    as an error event, in the form in which clients of OpenAI look for it.
    """
    stall = sending.upstreams.stall_timeout
    fault: SendFault | None = None
    try:
        await send({"type": "http.response.body", "body": bytes(opening.held), "more_body": True})
        opening.held.clear()
        while data := await _next(live, stall, send):
            await send({"type": "http.response.body", "body": data, "more_body": True})
    except SendFault as cut:
        fault = cut
    except TimeoutError:
        fault = SendFault(FailureKind.TIMEOUT, f"the stream stood still for {stall:g} s")
    finally:
        await live.close()
    if fault is None:
        await send(dict(_END))
        return None
    kind = FailureKind.TIMEOUT if fault.kind is FailureKind.TIMEOUT else FailureKind.INTERRUPTED
    sending.amend(kind, fault.detail)
    # the blank line ends whatever event the break cut in two
    event = b"\n\n" + error_event(fault.detail, kind=FACES[kind].kind, code=kind.value)
    await send({"type": "http.response.body", "body": event})
    return kind


async def _next(live: AsyncOpened, stall: float, send: Send) -> bytes:
    """Return the next piece with something in it; keep-alive comments pass, but do not count as progress."""
    async with asyncio.timeout(stall):
        while is_keep_alive(data := await live.next()) and data:
            await send({"type": "http.response.body", "body": data, "more_body": True})
    return data
