"""What free models do without any fault in it, and what a client has to cope with all the same."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from rollout.simulator.answers import DONE, KEEP_ALIVE, Chunks
from rollout.simulator.faults import Kind
from rollout.simulator.scene import Scene, send_answer, send_plain


async def _fenced(scene: Scene) -> None:
    text = f"```json\n{scene.answer.text}\n```" if scene.answer.text is not None else None
    await send_answer(scene.exchange, replace(scene.answer, text=text), stream=scene.stream)


async def _thought_in_tags(scene: Scene) -> None:
    text = f"<think>Hm. Who asks?</think>{scene.answer.text or ''}"
    if scene.stream:
        await send_answer(scene.exchange, replace(scene.answer, text=text), stream=True)
        return

    def change(document: dict[str, Any]) -> None:
        document["choices"][0]["message"].update(content=text)
        del document["choices"][0]["message"]["reasoning"]

    await send_plain(scene, change)


async def _another_finish(scene: Scene) -> None:
    reason = "stop" if scene.fault.kind is Kind.STOP_AFTER_TOOL_CALL else "simulated"
    if scene.stream:
        chunks = Chunks(scene.answer)
        await scene.exchange.start(200, scene.headers)
        await scene.exchange.end(
            chunks.role() + b"".join(chunks.content()) + chunks.finish(reason) + chunks.usage() + DONE
        )
        return
    await send_plain(
        scene, lambda document: document["choices"][0].update(finish_reason=reason, native_finish_reason=reason)
    )


async def _end_mark_in_text(scene: Scene) -> None:
    answer = scene.answer
    if answer.tool is None:
        text = answer.text or ""
        middle = len(text) // 2
        answer = replace(answer, text=f"{text[:middle]} data: [DONE] {text[middle:]}")
    else:
        answer = replace(answer, arguments=json.dumps({"said": "data: [DONE]"}))
    if not scene.stream:
        await send_answer(scene.exchange, answer, stream=False)
        return
    chunks = Chunks(answer)
    await scene.exchange.start(200, scene.headers)
    await scene.exchange.write(KEEP_ALIVE + chunks.role())
    for piece in chunks.content(around="data: [DONE]"):
        await scene.exchange.write(piece)
    await scene.exchange.end(chunks.finish() + chunks.usage() + DONE)


async def _broken_arguments(scene: Scene) -> None:
    arguments = scene.answer.arguments[: len(scene.answer.arguments) // 2]
    await send_answer(scene.exchange, replace(scene.answer, arguments=arguments), stream=scene.stream)


async def _events_without_meaning(scene: Scene) -> None:
    if not scene.stream:
        await send_answer(scene.exchange, scene.answer, stream=False)
        return
    chunks = Chunks(scene.answer)
    await scene.exchange.start(200, scene.headers)
    await scene.exchange.write(b"data: null\n\n: busy\n\nevent: begun\nid: 1\nretry: 3000\n\n" + chunks.role())
    for piece in chunks.content():
        await scene.exchange.write(b"event: piece\nid: 2\n" + piece + b"data:\n\ndata: null\r\n\r\n:\n\n")
    ended = chunks.finish() + chunks.usage() + b"data:[DONE] \n\n"
    late = b" \n\n: late\n\ndata: null\n\n" + b"".join(chunks.content()) + DONE
    await scene.exchange.end(ended + late)


HABITS: Final[dict[Kind, Callable[[Scene], Awaitable[None]]]] = {
    Kind.FENCED: _fenced,
    Kind.THOUGHT_IN_TAGS: _thought_in_tags,
    Kind.STOP_AFTER_TOOL_CALL: _another_finish,
    Kind.UNKNOWN_FINISH: _another_finish,
    Kind.END_MARK_IN_TEXT: _end_mark_in_text,
    Kind.BROKEN_ARGUMENTS: _broken_arguments,
    Kind.EVENTS_WITHOUT_MEANING: _events_without_meaning,
}
"""How each is played."""
