"""Applications on other people's Python clients, run in an environment of their own; each says what it saw, as JSON.

python python_program.py CLIENT BASE_URL MODEL FENCING_MODEL ODD_MODEL

The three models say the same. One fences its JSON, one streams events without meaning beside its answer.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pydantic

ACCESS, QUESTION = "an-access-token-of-the-table", "Hej Åsa"
HEJ: Any = [{"role": "user", "content": QUESTION}]


class Verdict(pydantic.BaseModel):
    """Say what you think."""

    good: bool
    why: str


class Said(pydantic.BaseModel):
    """What the simulated models answer to whoever wants a JSON object."""

    simulated: bool
    you_said: str


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"It rains in {city}."


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def with_openai(url: str, model: str, fencing: str, odd: str) -> dict[str, Any]:
    from openai import OpenAI

    with OpenAI(base_url=url, api_key=ACCESS) as client:
        create = client.chat.completions.create
        streamed = create(model=odd, messages=HEJ, stream=True, stream_options={"include_usage": True})
        text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
        with client.chat.completions.stream(model=odd, messages=HEJ, response_format=Verdict) as events:
            parsed_stream = events.get_final_completion().choices[0].message.parsed
        with client.chat.completions.stream(model=odd, messages=HEJ, tools=[TOOL], tool_choice="required") as events:
            called_stream = events.get_final_completion().choices[0].message.tool_calls
        called = create(model=model, messages=HEJ, tools=[TOOL], tool_choice="required").choices[0].message.tool_calls
        parsed = client.chat.completions.parse(model=model, messages=HEJ, response_format=Verdict)
        fenced = create(model=fencing, messages=HEJ, response_format={"type": "json_object"})
        return {
            "plain": create(model=model, messages=HEJ).choices[0].message.content,
            "stream": text,
            "json": isinstance(parsed.choices[0].message.parsed, Verdict) and isinstance(parsed_stream, Verdict),
            "tools": [each.function.name for each in (*(called or ()), *(called_stream or ()))],
            "fenced": str(fenced.choices[0].message.content).startswith("```json\n"),
        }


def with_langchain(url: str, model: str, fencing: str, odd: str) -> dict[str, Any]:
    from langchain_openai import ChatOpenAI

    def chat(name: str) -> Any:
        return ChatOpenAI(base_url=url, api_key=ACCESS, model=name)

    json_mode = chat(fencing).with_structured_output(Said, method="json_mode")
    bound = (chat(name).bind_tools([weather], tool_choice="weather") for name in (model, odd))
    called = [next(bound).invoke(QUESTION), None]
    for chunk in next(bound).stream(QUESTION):
        called[1] = chunk if called[1] is None else called[1] + chunk
    structured = [
        chat(name).with_structured_output(Verdict, method=method).invoke(QUESTION)
        for name, method in ((model, "json_schema"), (model, "function_calling"))
    ]
    *_, streamed = json_mode.stream(QUESTION)
    return {
        "plain": chat(model).invoke(QUESTION).content,
        "stream": "".join(chunk.content for chunk in chat(odd).stream(QUESTION)),
        "json": all(isinstance(each, Verdict) for each in structured),
        "tools": [call["name"] for each in called if each is not None for call in each.tool_calls],
        "fenced": [json_mode.invoke(QUESTION).you_said, streamed.you_said] == [QUESTION] * 2,
    }


def with_instructor(url: str, model: str, _fencing: str, odd: str) -> dict[str, Any]:
    import instructor
    from openai import OpenAI

    with OpenAI(base_url=url, api_key=ACCESS) as client:
        tools = instructor.from_openai(client, mode=instructor.Mode.TOOLS)
        reads_json = instructor.from_openai(client, mode=instructor.Mode.JSON)
        verdict = tools.chat.completions.create(model=model, messages=HEJ, response_model=Verdict, max_retries=0)
        *_, partial = tools.chat.completions.create_partial(
            model=odd, messages=HEJ, response_model=Verdict, max_retries=0
        )
        said = reads_json.chat.completions.create(model=model, messages=HEJ, response_model=Said, max_retries=0)
        *_, piece = reads_json.chat.completions.create_partial(
            model=odd, messages=HEJ, response_model=Said, max_retries=0
        )
        return {
            "json": isinstance(verdict, Verdict) and partial.good == verdict.good and said.simulated is piece.simulated,
        }


async def _pydantic_ai(url: str, model: str, odd: str) -> dict[str, Any]:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openrouter import OpenRouterModel
    from pydantic_ai.providers.openrouter import OpenRouterProvider

    async with AsyncOpenAI(base_url=url, api_key=ACCESS) as client:

        def agent(name: str, **more: Any) -> Any:
            provider = OpenRouterProvider(openai_client=client)
            return Agent(OpenRouterModel(name, provider=provider), retries=0, **more)

        async def whole(pieces: AsyncIterator[str]) -> str:
            return "".join([each async for each in pieces])

        async with agent(odd).run_stream(QUESTION) as result:
            text = await whole(result.stream_text(delta=True))
        async with agent(odd, output_type=Verdict).run_stream(QUESTION) as result:
            streamed = await result.get_output()
        called = (await agent(model, output_type=Verdict).run(QUESTION)).output
        return {
            "plain": (await agent(model).run(QUESTION)).output,
            "stream": text,
            "json": isinstance(called, Verdict) and streamed == called,
        }


def with_pydantic_ai(url: str, model: str, _fencing: str, odd: str) -> dict[str, Any]:
    return asyncio.run(_pydantic_ai(url, model, odd))


CLIENTS: dict[str, Callable[[str, str, str, str], dict[str, Any]]] = {
    "openai": with_openai,
    "langchain": with_langchain,
    "instructor": with_instructor,
    "pydantic_ai": with_pydantic_ai,
}

if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    print(json.dumps(CLIENTS[name](*rest)))
