"""LiteLLM's SDK, run by the Python it is installed for: one order per line in, milliseconds per call out."""

import asyncio
import json
import sys
from importlib import import_module
from time import perf_counter
from typing import Any


async def carry_out(order: dict[str, Any]) -> list[float]:
    # by name: it is installed in an environment of its own, and type checkers do not know it
    litellm = import_module("litellm")

    async def one() -> float:
        began = perf_counter()
        answer = await litellm.acompletion(
            **order["request"], api_base=order["url"], api_key=order["key"], num_retries=0
        )
        assert answer.choices[0].message.content
        return (perf_counter() - began) * 1000

    return [await one() for _ in range(order["calls"])]


def main() -> None:
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            print(json.dumps(runner.run(carry_out(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
