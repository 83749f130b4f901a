"""What a simulated model says, as one document and as the chunks of a stream."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rollout.simulator.models import Model
from rollout.simulator.schemas import smallest

_CLIP: Final = 200
_PIECES: Final = 5
DONE: Final = b"data: [DONE]\n\n"
KEEP_ALIVE: Final = b": OPENROUTER PROCESSING\n\n"
"""A comment; it says nothing about whether an answer will ever come."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer.

    Attributes:
        id: `gen-...`.
        created: epoch seconds.
        model: the id that answered.
        provider: who is said to have run it.
        text: the content, or None when a tool is called instead.
        tool: the called function's name, or None.
        arguments: the call's arguments as JSON text.
        prompt_tokens: a quarter of the characters asked.
        completion_tokens: a quarter of the characters answered.
        cost: in US dollars.
        cost_of_own_key: what a provider bills to the account's own key, in US dollars; None if no such key was used.
    """

    id: str
    created: int
    model: str
    provider: str
    text: str | None
    tool: str | None
    arguments: str
    prompt_tokens: int
    completion_tokens: int
    cost: float
    cost_of_own_key: float | None = None

    @property
    def finish_reason(self) -> str:
        """Say why the answer ended."""
        return "tool_calls" if self.tool is not None else "stop"

    @property
    def usage(self) -> dict[str, Any]:
        """Write what was used."""
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "cost": self.cost,
        }
        if self.cost_of_own_key is not None:
            usage |= {"is_byok": True, "cost_details": {"upstream_inference_cost": self.cost_of_own_key}}
        return usage

    def call(self) -> dict[str, Any]:
        """Write the tool call."""
        return {
            "id": f"call_{self.id[-12:]}",
            "type": "function",
            "function": {"name": self.tool, "arguments": self.arguments},
        }


def text_of(content: object) -> str:
    """Return the text of a message's content, given as text or as a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(part for part in parts if isinstance(part, str))


def answer_to(body: Mapping[str, Any], model: Model, *, generation_id: str, now: float) -> Answer:
    """Answer a request that was found to be in order; the same request always gets the same text.

    Raises:
        SchemaError: a schema in the request cannot be fitted.
    """
    asked = [text_of(message.get("content")) for message in body["messages"]]
    said = [text for text, message in zip(asked, body["messages"], strict=True) if message.get("role") == "user"]
    tool = forced_tool(body)
    text, name, arguments = None, None, ""
    if tool is not None:
        name = tool["name"]
        arguments = json.dumps(smallest(tool.get("parameters") or {"type": "object"}))
    else:
        text = _text(body, model.id, said[-1] if said else "")
    prompt_tokens = max(1, sum(map(len, asked)) // 4)
    completion_tokens = max(1, len(text or arguments) // 4)
    cost = model.cost(prompt_tokens, completion_tokens)
    return Answer(
        generation_id, int(now), model.id, model.provider, text, name, arguments, prompt_tokens, completion_tokens, cost
    )


def _text(body: Mapping[str, Any], model: str, said: str) -> str:
    wanted: dict[str, Any] = body.get("response_format") or {}
    match wanted.get("type"):
        case "json_schema":
            return json.dumps(smallest(wanted["json_schema"]["schema"]))
        case "json_object":
            return json.dumps({"simulated": True, "model": model, "you_said": said[:_CLIP]})
        case _:
            clipped = said if len(said) <= _CLIP else said[:_CLIP] + "..."
            return f"This is a simulated answer of {model}; no real model was asked. You said: {clipped}"


def forced_tool(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the function that `tool_choice` forces: the named one, or the first for "required"."""
    functions = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice")
    if choice == "required":
        return functions[0] if functions else None
    if isinstance(choice, dict):
        name = choice["function"]["name"]
        return next((each for each in functions if each["name"] == name), None)
    return None


def plain_document(answer: Answer) -> dict[str, Any]:
    """Write the answer as one document."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "reasoning": None}
    if answer.tool is not None:
        message["tool_calls"] = [answer.call()]
    return {
        "id": answer.id,
        "provider": answer.provider,
        "model": answer.model,
        "object": "chat.completion",
        "created": answer.created,
        "choices": [
            {
                "logprobs": None,
                "finish_reason": answer.finish_reason,
                "native_finish_reason": answer.finish_reason,
                "index": 0,
                "message": message,
            }
        ],
        "usage": answer.usage,
    }


class Chunks:
    """The chunks of one answer's stream, each a complete event; the common head is built once."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        head = {
            "id": answer.id,
            "provider": answer.provider,
            "model": answer.model,
            "object": "chat.completion.chunk",
            "created": answer.created,
        }
        self._head = "data: " + json.dumps(head)[:-1]

    def event(self, **more: object) -> bytes:
        """Write a chunk with these top-level fields."""
        return f"{self._head}, {json.dumps(more)[1:]}\n\n".encode()

    def delta(self, delta: Mapping[str, Any], finish_reason: str | None = None, **more: object) -> bytes:
        """Write a chunk with one choice."""
        choice = {
            "index": 0,
            "delta": delta,
            "finish_reason": finish_reason,
            "native_finish_reason": finish_reason,
            "logprobs": None,
        }
        return self.event(choices=[choice], **more)

    def role(self) -> bytes:
        """Write the first chunk: the role, no content."""
        return self.delta({"role": "assistant", "content": ""})

    def content(self, around: str = "") -> list[bytes]:
        """Write the chunks of the text, or of the tool call; `around` a text there are three, with it in the middle."""
        answer = self.answer
        whole = (answer.text if answer.tool is None else answer.arguments) or ""
        pieces = list(whole.partition(around)) if around else _pieces(whole)
        if answer.tool is None:
            return [self.delta({"role": "assistant", "content": piece}) for piece in pieces]
        call = answer.call() | {"index": 0}
        call["function"] = {"name": answer.tool, "arguments": ""}
        rest = [{"index": 0, "function": {"arguments": piece}} for piece in pieces]
        return [self.delta({"role": "assistant", "content": None, "tool_calls": [each]}) for each in (call, *rest)]

    def finish(self, finish_reason: str | None = None) -> bytes:
        """Write the chunk that says why the answer ended."""
        return self.delta({"role": "assistant", "content": ""}, finish_reason or self.answer.finish_reason)

    def usage(self) -> bytes:
        """Write the last chunk: what was used."""
        return self.event(choices=[], usage=self.answer.usage)


def _pieces(text: str) -> list[str]:
    size = max(1, -(-len(text) // _PIECES))
    return [text[start : start + size] for start in range(0, len(text), size)]
