"""Measure what a caller gets from LiteLLM alone for each fault: the official SDK, LiteLLM's own retries and fallbacks.

    python -m tests.faults.alone

Writes `litellm_alone.json` beside this file: for each row and way of asking the answer, the calls that reached the
upstream and the seconds. LiteLLM retries twice, falls back over the same three models and cools nothing down; it
gives each read 5 seconds. The SDK's own two retries are switched off; they would come on top, three times each number.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import openai

from rollout.gateway.config import alias
from rollout.simulator import World, running
from tests.faults.callers import is_whole
from tests.faults.rows import ONCE, ONLY, Cell, Row
from tests.faults.script import fault_of, response_format_of
from tests.faults.table import ROWS
from tests.faults.upstreams import (
    MASTER_KEY,
    QUESTION,
    Gateway,
    cool,
    cool_down,
    free_port,
    litellm,
    steady_wall,
    warm,
)

MEASURED: Final = Path(__file__).with_name("litellm_alone.json")
CAP_SECONDS: Final = 15.0
READ_SECONDS: Final = 5.0
_AT_ONCE: Final = 8


def by_itself(config: dict[str, Any]) -> None:
    """Configure LiteLLM as one would without us: its own retries, its own fallbacks, a time limit for each read."""
    config["router_settings"].update(num_retries=2)
    config["litellm_settings"].update(num_retries=2, request_timeout=READ_SECONDS)
    del config["litellm_settings"]["REPEATED_STREAMING_CHUNK_LIMIT"]
    only = json.loads(json.dumps(config["model_list"][0])) | {"model_name": "only"}
    config["model_list"].append(only)


def by_itself_and_cooling(config: dict[str, Any]) -> None:
    """Configure it so that its own breaker acts, too."""
    by_itself(config)
    cool_down(config)


async def _asked(client: openai.AsyncOpenAI, cell: Cell) -> str:
    """Ask once; return in a few words what came."""
    body: dict[str, Any] = {
        "model": "only" if cell.row.meets in (ONCE, ONLY) else "free-1",
        "messages": QUESTION,
        "user": cell.id,
        "stream": cell.stream,
    }
    if (wanted := response_format_of(cell.row)) is not None:
        body["response_format"] = wanted
    content, finish = "", None
    try:
        async with asyncio.timeout(CAP_SECONDS):
            answer: Any = await client.chat.completions.create(**body)
            if not cell.stream:
                content, finish = answer.choices[0].message.content or "", answer.choices[0].finish_reason
            else:
                async for chunk in answer:
                    for choice in chunk.choices:
                        content += choice.delta.content or ""
                        finish = choice.finish_reason or finish
    except TimeoutError:
        return "nothing in time" if not content else "a part, then nothing"
    except openai.APIStatusError as error:
        return f"HTTP {error.status_code}"
    except openai.APIError as error:
        return f"{'an error after a part' if content else 'an error'} ({type(error).__name__})"
    except ValueError:
        return "the SDK broke"
    return _judged(cell, content, finish)


def _judged(cell: Cell, content: str, finish: str | None) -> str:
    """Say what an answer that the SDK took for one is worth."""
    if not content:
        return "“success”, empty"
    if content.count(QUESTION[0]["content"]) > 1:
        return "“success”, and more behind its end"
    if not is_whole(cell, content) and not content.endswith("x" * 20):
        return "“success”, broken JSON" if cell.row.asks == "schema" else "“success”, half of it"
    if finish is None:
        return "“success”, without an end"
    return "served"


async def _measure(cells: list[Cell], urls: dict[str, str], world: World, killed: Gateway) -> dict[str, Any]:
    turn = asyncio.Semaphore(_AT_ONCE)
    found: dict[str, Any] = {}

    async def one(cell: Cell) -> None:
        key = "sk-another" if cell.row.gateway_is == "strange" else MASTER_KEY
        async with (
            turn,
            openai.AsyncOpenAI(
                api_key=key, base_url=f"{urls[cell.row.gateway_is]}/v1", max_retries=0, timeout=CAP_SECONDS
            ) as client,
        ):
            began = time.monotonic()
            answer = await _asked(client, cell)
            took = time.monotonic() - began
            await asyncio.sleep(0.5 if took < CAP_SECONDS else 0)
            mine = [entry for entry in world.record if entry.user == cell.id]
            found[cell.id] = {"answer": answer, "calls": len(mine), "seconds": round(took, 1)}
            print(f"{cell.id:70} {answer}, {len(mine)} calls, {took:.1f} s", flush=True)

    await asyncio.gather(*(one(cell) for cell in cells if cell.row.gateway_is != "killed"))
    last = [asyncio.ensure_future(one(cell)) for cell in cells if cell.row.gateway_is == "killed"]
    await asyncio.sleep(3)
    killed.kill()
    await asyncio.gather(*last)
    return found


def _cells() -> list[Cell]:
    def played(row: Row) -> bool:
        return row.name != "Nothing" and not row.leaves

    return [Cell(row, "gateway", stream, "sdk") for row in ROWS if played(row) for stream in (False, True)]


def main() -> None:
    """Measure everything and write it down."""
    world = World(seed=3, clock=steady_wall(), withdrawn=())
    cells = _cells()
    with ExitStack() as stack:
        base_url = stack.enter_context(running(world))
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        real = stack.enter_context(litellm(folders[0], base_url, by_itself))
        cooling = stack.enter_context(litellm(folders[1], base_url, by_itself_and_cooling))
        for gateway in (real, cooling):
            gateway.wait_until_it_answers()
        warm(real)
        cool(cooling, world, [alias(place) for place in (1, 2, 3)])
        world.script.play([fault for cell in cells if (fault := fault_of(cell)) is not None])
        nobody = f"http://127.0.0.1:{free_port()}"
        urls = {"real": real.url, "strange": real.url, "killed": real.url, "cooling": cooling.url, "refusing": nobody}
        found = asyncio.run(_measure(cells, urls, world, real))
    MEASURED.write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{MEASURED}: {len(found)} measured")


if __name__ == "__main__":
    main()
