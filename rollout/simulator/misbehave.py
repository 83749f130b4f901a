"""How each scripted fault is played: a table from kind to a coroutine."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from rollout.simulator import refusals
from rollout.simulator.account import Exhausted, Window
from rollout.simulator.answers import DONE, KEEP_ALIVE, Chunks, plain_document
from rollout.simulator.exchange import HTML
from rollout.simulator.faults import Fault, Kind
from rollout.simulator.habits import HABITS
from rollout.simulator.refusals import Refusal
from rollout.simulator.scene import Scene, send_answer, send_plain, send_rest
from rollout.simulator.world import World

_MARK: Final = b'"content": "@@"'  # unescaped quotes: no id or text can hold it
_BLOCK: Final = 64 * 1024
_APART_SECONDS: Final = 0.15
_PROVIDER_ERROR: Final = {"code": 502, "message": "Provider disconnected"}
_EQUAL_PIECES: Final = 300  # LiteLLM gives up after 100
_DEFAULT_LIMITS: Final = {Window.MINUTE: 20, Window.DAY: 50}
_HTML_PAGE: Final = (
    b"<!DOCTYPE html><html><head><title>Checking your browser</title></head><body>One moment</body></html>"
)


def scripted_refusal(fault: Fault, world: World, model: str, provider: str) -> Refusal | None:
    """Return the error answer a fault stands for, or None when it goes wrong in another way."""

    def limited(window: Window) -> Refusal:
        limit = world.account.limit(window) or _DEFAULT_LIMITS[window]
        said = fault.parameter("seconds")
        reset_ms = int((world.clock() + said) * 1000) if said else world.account.reset_ms(window)
        return refusals.rate_limited(Exhausted(window, limit, reset_ms))

    match fault.kind:
        case Kind.ERROR_500:
            return refusals.error_500()
        case Kind.ERROR_502:
            return refusals.error_502(provider)
        case Kind.ERROR_503_RETRY_AFTER:
            return refusals.error_503(model, fault.parameter("seconds"))
        case Kind.RATE_LIMIT_MINUTE:
            return limited(Window.MINUTE)
        case Kind.RATE_LIMIT_DAY:
            return limited(Window.DAY)
        case Kind.UPSTREAM_BUSY:
            return refusals.upstream_busy(model, provider)
        case Kind.PAYMENT_REQUIRED:
            return refusals.payment_required()
        case Kind.FORBIDDEN:
            return refusals.forbidden(model)
        case Kind.UNAUTHORIZED:
            return refusals.unauthorized()
        case Kind.NOT_FOUND_FREE_VARIANT_ENDED:
            return refusals.free_variant_ended(model)
        case Kind.NOT_FOUND_DATA_POLICY:
            return refusals.no_data_policy(model)
        case Kind.PROVIDER_REFUSED:
            return refusals.provider_refused(provider)
        case Kind.CONTEXT_TOO_LONG:
            return refusals.context_too_long(provider)
        case Kind.REGION_RESTRICTED:
            return refusals.region_restricted()
        case _:
            return None


async def _begin(scene: Scene) -> Chunks:
    """Start a stream and send its first token; what goes wrong comes a moment later, in a packet of its own."""
    chunks = Chunks(scene.answer)
    await scene.exchange.start(200, scene.headers)
    await scene.exchange.write(KEEP_ALIVE + chunks.role() + chunks.content()[0])
    await scene.exchange.pause(_APART_SECONDS)
    return chunks


def _body(scene: Scene) -> bytes:
    return json.dumps(plain_document(scene.answer)).encode()


async def _hang(scene: Scene) -> None:
    await scene.exchange.silence()


async def _headers_then_silence(scene: Scene) -> None:
    await scene.exchange.start(200, scene.headers)
    await scene.exchange.write(b"")
    await scene.exchange.silence()


async def _comments_forever(scene: Scene) -> None:
    await scene.exchange.start(200, scene.headers)
    while True:
        await scene.exchange.write(KEEP_ALIVE)
        await scene.exchange.pause(scene.fault.parameter("seconds"))


async def _one_token_then_silence(scene: Scene) -> None:
    if scene.stream:
        await _begin(scene)
    else:
        await scene.exchange.start(200, scene.headers)
        await scene.exchange.write(_body(scene)[:40])
    await scene.exchange.silence()


async def _slow(scene: Scene) -> None:
    if not scene.stream:
        await scene.exchange.pause(scene.fault.parameter("seconds"))
        await send_answer(scene.exchange, scene.answer, stream=False)
        return
    await scene.exchange.start(200, scene.headers)
    await scene.exchange.write(KEEP_ALIVE)
    await scene.exchange.pause(scene.fault.parameter("seconds"))
    await send_rest(scene.exchange, Chunks(scene.answer), scene.fault.parameter("chunk_seconds"))


async def _finish_reason_error(scene: Scene) -> None:
    at_once = scene.fault.kind is Kind.FINISH_REASON_ERROR_AT_ONCE
    failed = {"finish_reason": "error", "native_finish_reason": "error", "error": _PROVIDER_ERROR}
    if scene.stream:
        if at_once:
            chunks = Chunks(scene.answer)
            await scene.exchange.start(200, scene.headers)
            await scene.exchange.write(KEEP_ALIVE + chunks.role())
        else:
            chunks = await _begin(scene)
        last = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, **failed}
        await scene.exchange.end(chunks.event(choices=[last]) + chunks.usage() + DONE)
        return

    def change(document: dict[str, Any]) -> None:
        choice = document["choices"][0]
        choice.update(failed)
        choice["message"].update(content="" if at_once else (scene.answer.text or "")[:20])
        choice["message"].pop("tool_calls", None)

    await send_plain(scene, change)


async def _error_in_200_body(scene: Scene) -> None:
    document = json.dumps({"error": _PROVIDER_ERROR, "user_id": refusals.USER_ID}).encode()
    if scene.stream:
        await scene.exchange.start(200, scene.headers)
        await scene.exchange.end(KEEP_ALIVE + b"data: " + document + b"\n\n")
    else:
        await scene.exchange.respond(200, scene.headers, document)


async def _mid_stream_error(scene: Scene) -> None:
    if not scene.stream:
        await _error_in_200_body(scene)
        return
    chunks = await _begin(scene)
    await scene.exchange.end(chunks.delta({"content": ""}, "error", error=_PROVIDER_ERROR))


async def _empty_content(scene: Scene) -> None:
    await send_answer(
        scene.exchange,
        replace(scene.answer, text="", tool=None, arguments="", completion_tokens=0),
        stream=scene.stream,
    )


async def _no_done(scene: Scene) -> None:
    chunks = await _begin(scene)
    await scene.exchange.end(b"".join(chunks.content()[1:]) + chunks.finish() + chunks.usage())


async def _truncated_json(scene: Scene) -> None:
    if scene.stream:
        chunks = await _begin(scene)
        await scene.exchange.end(chunks.finish()[:60])
    else:
        await scene.exchange.respond(200, scene.headers, _body(scene)[:-40])


async def _truncated_content(scene: Scene) -> None:
    text = scene.answer.text or ""
    await send_answer(scene.exchange, replace(scene.answer, text=text[: len(text) // 2]), stream=scene.stream)


async def _html_200(scene: Scene) -> None:
    await scene.exchange.respond(200, (HTML,), _HTML_PAGE)


async def _garbage_lines(scene: Scene) -> None:
    garbage = b"\xff\xfe\x00 no event\ndata: {not json}\n\n<br>\nevent: ???\n\n"
    if not scene.stream:
        await scene.exchange.respond(200, scene.headers, garbage + _body(scene))
        return
    chunks = await _begin(scene)
    await scene.exchange.write(garbage)
    await scene.exchange.end(b"".join(chunks.content()[1:]) + chunks.finish() + chunks.usage() + DONE)


async def _giant_line(scene: Scene) -> None:
    left = int(scene.fault.parameter("size_bytes"))
    if scene.stream:
        whole = Chunks(scene.answer).delta({"role": "assistant", "content": "@@"})
        after = DONE
    else:
        document = plain_document(scene.answer)
        document["choices"][0]["message"]["content"] = "@@"
        whole, after = json.dumps(document).encode(), b""
    head, tail = whole.split(_MARK)
    await scene.exchange.start(200, scene.headers)
    await scene.exchange.write(head + _MARK[:-3])
    while left:
        block = min(left, _BLOCK)
        await scene.exchange.write(b"x" * block)
        left -= block
    await scene.exchange.end(b'"' + tail + after)


async def _odd_first_chunk(scene: Scene) -> None:
    if not scene.stream:
        await send_plain(scene, lambda document: document["choices"][0]["message"].pop("role"))
        return
    chunks = Chunks(scene.answer)
    await scene.exchange.start(200, scene.headers)
    await scene.exchange.write(chunks.event(service_tier="default"))
    await send_rest(scene.exchange, chunks)


async def _odd_last_chunk(scene: Scene) -> None:
    chunks = await _begin(scene)
    last = chunks.event(choices=None, usage=scene.answer.usage)
    await scene.exchange.end(b"".join(chunks.content()[1:]) + chunks.finish() + last + DONE)


async def _equal_pieces(scene: Scene) -> None:
    piece = "----"
    if not scene.stream:
        text = piece * _EQUAL_PIECES + (scene.answer.text or "")
        await send_answer(scene.exchange, replace(scene.answer, text=text), stream=False)
        return
    chunks = Chunks(scene.answer)
    await scene.exchange.start(200, scene.headers)
    await scene.exchange.write(chunks.delta({"role": "assistant", "content": piece}) * _EQUAL_PIECES)
    await send_rest(scene.exchange, chunks)


async def _cut_connection(scene: Scene) -> None:
    # Returning before the body's announced end makes the server close the socket.
    if scene.stream:
        await _begin(scene)
    else:
        body = _body(scene)
        await scene.exchange.start(200, (*scene.headers, (b"content-length", b"%d" % len(body))))
        await scene.exchange.write(body[: len(body) // 2])


async def _costs_money(scene: Scene) -> None:
    cost = scene.fault.parameter("cost")
    scene.world.account.spent += cost
    await send_answer(scene.exchange, replace(scene.answer, cost=cost), stream=scene.stream)


async def _bills_own_key(scene: Scene) -> None:
    answer = replace(scene.answer, cost=0, cost_of_own_key=scene.fault.parameter("cost"))
    await send_answer(scene.exchange, answer, stream=scene.stream)


_PLAYED: Final[dict[Kind, Callable[[Scene], Awaitable[None]]]] = {
    Kind.HANG: _hang,
    Kind.HEADERS_THEN_SILENCE: _headers_then_silence,
    Kind.COMMENTS_FOREVER: _comments_forever,
    Kind.ONE_TOKEN_THEN_SILENCE: _one_token_then_silence,
    Kind.SLOW: _slow,
    Kind.FINISH_REASON_ERROR: _finish_reason_error,
    Kind.FINISH_REASON_ERROR_AT_ONCE: _finish_reason_error,
    Kind.ERROR_IN_200_BODY: _error_in_200_body,
    Kind.MID_STREAM_ERROR: _mid_stream_error,
    Kind.EMPTY_CONTENT: _empty_content,
    Kind.NO_DONE: _no_done,
    Kind.TRUNCATED_JSON: _truncated_json,
    Kind.TRUNCATED_CONTENT: _truncated_content,
    Kind.HTML_200: _html_200,
    Kind.GARBAGE_LINES: _garbage_lines,
    Kind.GIANT_LINE: _giant_line,
    Kind.ODD_FIRST_CHUNK: _odd_first_chunk,
    Kind.ODD_LAST_CHUNK: _odd_last_chunk,
    Kind.EQUAL_PIECES: _equal_pieces,
    Kind.CUT_CONNECTION: _cut_connection,
    Kind.COSTS_MONEY: _costs_money,
    Kind.BILLS_OWN_KEY: _bills_own_key,
    **HABITS,
}


async def play(scene: Scene) -> None:
    """Play a fault that is not an error answer; raises ClientLeft when the client leaves before its end."""
    scene.exchange.watch()
    await _PLAYED[scene.fault.kind](scene)
