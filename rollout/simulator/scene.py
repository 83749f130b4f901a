"""What an answer is played with, and how it is sent as it should be."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rollout.simulator.answers import DONE, KEEP_ALIVE, Answer, Chunks, plain_document
from rollout.simulator.exchange import EVENTS, JSON, Exchange
from rollout.simulator.faults import Fault
from rollout.simulator.world import World


@dataclass(slots=True)
class Scene:
    """What a fault is played with: the answer as it would have been, and the way to the client."""

    world: World
    exchange: Exchange
    fault: Fault
    answer: Answer
    stream: bool

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers of a normal answer."""
        return head_of(self.answer, stream=self.stream)


def head_of(answer: Answer, *, stream: bool) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of an answer."""
    return (EVENTS if stream else JSON, (b"x-generation-id", answer.id.encode()))


async def send_answer(exchange: Exchange, answer: Answer, *, stream: bool, between: float = 0.0) -> None:
    """Send an answer as it should be, with a pause of `between` seconds between the chunks of a stream."""
    if not stream:
        await exchange.respond(200, head_of(answer, stream=False), json.dumps(plain_document(answer)).encode())
        return
    exchange.watch()
    await exchange.start(200, head_of(answer, stream=True))
    await exchange.write(KEEP_ALIVE)
    await send_rest(exchange, Chunks(answer), between)


async def send_rest(exchange: Exchange, chunks: Chunks, between: float = 0.0) -> None:
    """Send a stream from its role to its end."""
    await exchange.write(chunks.role())
    for piece in chunks.content():
        if between:
            await exchange.pause(between)
        await exchange.write(piece)
    await exchange.end(chunks.finish() + chunks.usage() + DONE)


async def send_plain(scene: Scene, change: Callable[[dict[str, Any]], None]) -> None:
    """Send the answer as one document that `change` has changed."""
    document = plain_document(scene.answer)
    change(document)
    await scene.exchange.respond(200, scene.headers, json.dumps(document).encode())
