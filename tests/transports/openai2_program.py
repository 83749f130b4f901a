"""An application on the OpenAI SDK 2.x (httpx), run in an environment of its own; says what it saw, as JSON.

python openai2_program.py MODEL
"""

import asyncio
import json
import sys
from typing import Any

import httpx
import openai
import pydantic

from rollout.transports import AsyncRolloutTransport, RolloutTransport

MODEL = sys.argv[1]
HEJ: Any = [{"role": "user", "content": "Hej"}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


class Verdict(pydantic.BaseModel):
    good: bool


def settings(http_client: Any) -> Any:
    return {
        "api_key": "unused",
        "base_url": "http://nowhere.invalid/v1",
        "max_retries": 5,
        "http_client": http_client,
    }


def refused(error: openai.APIStatusError) -> list[Any]:
    return [type(error).__name__, error.status_code, error.response.headers["x-should-retry"]]


def called(answer: Any) -> str:
    (call,) = answer.choices[0].message.tool_calls
    return str(call.function.name)


def synchronous() -> dict[str, Any]:
    with openai.OpenAI(**settings(httpx.Client(transport=RolloutTransport()))) as sdk:
        create = sdk.chat.completions.create
        seen: dict[str, Any] = {"plain": create(model=MODEL, messages=HEJ).choices[0].message.content}
        chunks = list(create(model=MODEL, messages=HEJ, stream=True))
        seen["stream"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        seen["tool"] = called(create(model=MODEL, messages=HEJ, tools=[TOOL], tool_choice="required"))
        parsed = sdk.chat.completions.parse(model=MODEL, messages=HEJ, response_format=Verdict)
        seen["parsed"] = isinstance(parsed.choices[0].message.parsed, Verdict)
        raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=HEJ)
        seen["raw"] = [raw.headers["x-rollout-path"], raw.headers["x-rollout-attempts"]]
        try:
            create(model="gone/today:free", messages=HEJ)
        except openai.APIStatusError as error:
            seen["error"] = refused(error)
        return seen


async def asynchronous() -> dict[str, Any]:
    async with openai.AsyncOpenAI(**settings(httpx.AsyncClient(transport=AsyncRolloutTransport()))) as sdk:
        create = sdk.chat.completions.create
        answer = await create(model=MODEL, messages=HEJ)
        seen: dict[str, Any] = {"plain": answer.choices[0].message.content}
        chunks = [chunk async for chunk in await create(model=MODEL, messages=HEJ, stream=True)]
        seen["stream"] = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        seen["tool"] = called(await create(model=MODEL, messages=HEJ, tools=[TOOL], tool_choice="required"))
        parsed = await sdk.chat.completions.parse(model=MODEL, messages=HEJ, response_format=Verdict)
        seen["parsed"] = isinstance(parsed.choices[0].message.parsed, Verdict)
        raw = await sdk.chat.completions.with_raw_response.create(model=MODEL, messages=HEJ)
        seen["raw"] = [raw.headers["x-rollout-path"], raw.headers["x-rollout-attempts"]]
        try:
            await create(model="gone/tonight:free", messages=HEJ)
        except openai.APIStatusError as error:
            seen["error"] = refused(error)
        return seen


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "version": openai.__version__,
                "extras": sorted({"aiohttp", "httpx2"} & set(sys.modules)),
                "sync": synchronous(),
                "async": asyncio.run(asynchronous()),
            }
        )
    )
