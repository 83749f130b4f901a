import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from rollout.dispatch.asgi import (
    BodyTooLong,
    CallerLeft,
    UnknownEncoding,
    UnreadableBody,
    WhileCallerStays,
    read_body,
    unpack,
)
from rollout.dispatch.senders.per_loop import PerLoop


def messages(*given: dict[str, Any]) -> Any:
    left: Iterator[dict[str, Any]] = iter(given)

    async def receive() -> dict[str, Any]:
        return next(left)

    return receive


def piece(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


async def test_a_body_is_put_together_from_its_pieces() -> None:
    assert await read_body(messages(piece(b"a", more=True), piece(b"b", more=False)), None, 2) == b"ab"


@pytest.mark.parametrize(
    ("receive", "declared"),
    [
        (messages(), b"3"),
        (messages(piece(b"abc", more=False)), None),
        (messages(piece(b"ab", more=True), piece(b"c", more=True)), b"nonsense"),
    ],
)
async def test_a_body_over_the_limit_is_not_read_on(receive: Any, declared: bytes | None) -> None:
    with pytest.raises(BodyTooLong):
        await read_body(receive, declared, 2)


@pytest.mark.parametrize("before", [(), (piece(b"a", more=True),)])
async def test_a_caller_that_leaves_while_it_sends_is_noticed(before: Any) -> None:
    with pytest.raises(CallerLeft):
        await read_body(messages(*before, GONE), None, 9)


async def test_a_block_is_cancelled_when_the_caller_leaves_and_ends_quietly() -> None:
    async with WhileCallerStays(messages(piece(b"", more=False), GONE)) as staying:
        await asyncio.sleep(60)
    assert staying.left
    await asyncio.sleep(0)  # no cancellation is left over


async def test_a_caller_that_leaves_at_the_very_end_leaves_no_cancellation_behind() -> None:
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        gone.set()
        return GONE

    async with WhileCallerStays(receive) as staying:
        await gone.wait()  # the listener cancels this task, which has by then nothing left to wait for
    assert staying.left
    await asyncio.sleep(0)


async def test_another_error_passes_although_the_caller_left() -> None:
    async def block() -> None:
        async with WhileCallerStays(messages(GONE)):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise ZeroDivisionError from None

    with pytest.raises(ZeroDivisionError):
        await block()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_from_elsewhere_passes() -> None:
    async def block() -> None:
        async with WhileCallerStays(asyncio.Event().wait):  # type: ignore[arg-type]  # a receive that never returns
            await asyncio.sleep(60)

    task = asyncio.ensure_future(block())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_each_loop_has_its_own_thing_and_it_is_closed_with_the_loop() -> None:
    made, closed = [], []

    def make() -> object:
        made.append(object())
        return made[-1]

    async def close(thing: object) -> None:
        await asyncio.sleep(0)
        closed.append(thing)

    things = PerLoop(make, close)

    async def use() -> object:
        assert await things.get() is await things.get()
        return await things.get()

    first, second = asyncio.run(use()), asyncio.run(use())
    assert made == closed == [first, second]

    async def use_and_close() -> None:
        await use()
        await things.aclose()
        await things.aclose()

    asyncio.run(use_and_close())
    assert made == closed


PLAIN = b'{"messages": [{"role": "user", "content": "Hej"}]}' * 20


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (PLAIN, None),
        (PLAIN, b""),
        (PLAIN, b"identity"),
        (gzip.compress(PLAIN), b"gzip"),
        (gzip.compress(PLAIN), b" X-GZip "),
        (gzip.compress(PLAIN[:100]) + gzip.compress(PLAIN[100:]), b"gzip"),
        (zlib.compress(PLAIN), b"deflate"),
        (b"", b"gzip"),
    ],
)
async def test_a_body_is_unpacked_as_its_encoding_says(raw: bytes, encoding: bytes | None) -> None:
    assert await unpack(raw, encoding, len(PLAIN)) == (PLAIN if raw else b"")


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"compress", b"\xff", b"x" * 5_000])
async def test_another_encoding_is_named_as_what_is_not_taken(encoding: bytes) -> None:
    with pytest.raises(UnknownEncoding, match="gzip or deflate") as refused:
        await unpack(b"abc", encoding, 9)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    "raw", [PLAIN, gzip.compress(PLAIN)[:-1], gzip.compress(PLAIN)[:5], gzip.compress(PLAIN) + b"more", b"\x1f\x8b"]
)
async def test_a_body_that_is_not_what_it_says_is_refused(raw: bytes) -> None:
    with pytest.raises(UnreadableBody):
        await unpack(raw, b"gzip", 1_000_000)


async def test_a_body_may_be_compressed_in_blocks_and_not_in_hundreds_of_thousands() -> None:
    blocks = b"".join(gzip.compress(PLAIN[at : at + 1]) for at in range(900))
    assert await unpack(blocks, b"gzip", 1_000) == PLAIN[:900]
    with pytest.raises(UnreadableBody, match="compress it as one"):
        await unpack(gzip.compress(b"") * 500_000, b"gzip", 1_000)


async def test_a_member_may_be_longer_than_what_is_read_at_once() -> None:
    noise = bytes(hash((at, "noise")) & 255 for at in range(100_000))
    assert await unpack(gzip.compress(noise) * 2, b"gzip", 200_000) == noise * 2


@pytest.mark.parametrize("members", [1, 20])
async def test_a_bomb_is_not_unpacked_past_the_limit(members: int) -> None:
    bomb = gzip.compress(bytes(50_000_000 // members)) * members
    assert len(bomb) < 60_000
    tracemalloc.start()
    with pytest.raises(BodyTooLong):
        await unpack(bomb, b"gzip", 1_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000
