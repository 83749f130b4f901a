"""Bodies that LiteLLM would rewrite, refuse or take for its own if it could see them, and usual ones beside them."""

from typing import Any, Final

MODEL: Final = "qwen/qwen3-coder:free"
HEJ: Final = {"role": "user", "content": "Hej"}
PIXEL: Final = "data:image/png;base64,iVBORw0KGgo="


def any_of(*values: Any) -> tuple[Any, ...]:
    """Return values of any kinds as they are, for a table to go through."""
    return values


def tool(name: str = "look", **properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


def asks(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [*messages] or [HEJ], **fields}


def parts(*contents: Any, role: str = "user", **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": [*contents], **fields}


CALL: Final = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
TURN: Final = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TEXT: Final = {"type": "text", "text": "Hej"}
CACHED: Final = {"type": "ephemeral", "ttl": "1h"}
ALLOWED: Final = [{"type": "function", "function": {"name": "look"}}]

UNCHANGED: Final[dict[str, Any]] = {
    "a question": asks(),
    "more than four stops": asks(stop=["a", "b", "c", "d", "e", "f"]),
    "one stop": asks(stop="END"),
    "a developer with a name": asks({"role": "developer", "content": "Be brief", "name": "boss"}, HEJ),
    "a developer alone": asks({"role": "developer", "content": "Be brief"}),
    "two systems": asks({"role": "system", "content": "a"}, {"role": "system", "content": "b"}, HEJ),
    "a name": asks({**HEJ, "name": "Åsa Öberg"}),
    "an assistant last": asks(HEJ, {"role": "assistant", "content": "Well, ", "prefix": True}),
    "an empty text": asks({"role": "user", "content": ""}),
    "white space at the ends": asks({"role": "user", "content": "  Hej \n\n"}),
    "a tool's parameter named cache_control": asks(tools=[tool(cache_control={"type": "string"})]),
    "cache_control beside a function": asks(tools=[{**tool(), "cache_control": CACHED}]),
    "cache_control on parts": asks(parts({**TEXT, "cache_control": CACHED}, TEXT)),
    "cache_control on a message": asks({**HEJ, "cache_control": CACHED}),
    "cache_control on the body": asks(cache_control=CACHED),
    "an image in a tool's result": asks(
        HEJ,
        TURN,
        parts(TEXT, {"type": "image_url", "image_url": {"url": PIXEL}}, role="tool", tool_call_id="c1"),
        tools=[tool()],
    ),
    "a tool's result without its call": asks({"role": "tool", "tool_call_id": "none", "content": "42"}),
    "an old function's result": asks({"role": "function", "name": "look", "content": "42"}),
    "old functions": asks(functions=[{"name": "look", "parameters": {}}], function_call="auto"),
    "an old function call": asks({"role": "assistant", "content": "", "function_call": {"name": "a", "arguments": ""}}),
    "arguments that are not JSON": asks(
        HEJ, {**TURN, "tool_calls": [{**CALL, "function": {"name": "look", "arguments": "{"}}]}, tools=[tool()]
    ),
    "allowed tools": asks(
        tools=[tool()],
        tool_choice={"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": ALLOWED}},
    ),
    "a tool that is required": asks(tools=[tool(), tool("other")], tool_choice="required"),
    "a strict tool with references": asks(
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "strict": True,
                    "parameters": {
                        "$defs": {"a": {"type": "string"}},
                        "type": "object",
                        "properties": {"x": {"$ref": "#/$defs/a"}},
                        "additionalProperties": False,
                    },
                },
            }
        ]
    ),
    "a schema": asks(
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    ),
    "a format nobody knows": asks(response_format={"type": "grammar", "grammar": "root ::= 'a'"}),
    "an image at an address": asks(parts(TEXT, {"type": "image_url", "image_url": {"url": "https://a.b/c.PNG?d"}})),
    "an image as a text": asks(parts({"type": "image_url", "image_url": PIXEL})),
    "an image with a detail": asks(parts({"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}})),
    "sound": asks(parts({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}})),
    "film": asks(parts({"type": "video_url", "video_url": {"url": "https://a.b/c.mp4"}})),
    "input_text": asks(parts({"type": "input_text", "text": "Hej"})),
    "reasoning to be replayed": asks(
        HEJ,
        {
            "role": "assistant",
            "content": "Hej",
            "reasoning": "hm",
            "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "x", "index": 0}],
        },
        HEJ,
    ),
    "annotations to be replayed": asks({"role": "assistant", "content": "a", "annotations": [{"type": "file"}]}, HEJ),
    "fields of a message that nobody knows": asks({**HEJ, "x_unknown": {"deep": [1, None, {"a": []}]}}),
    "fields that nobody knows": asks(x_unknown={"kept": [1, 2.5, None]}, y_unknown=None),
    "settings of LiteLLM's": asks(
        additional_drop_params=["provider", "seed"],
        allowed_openai_params=["x"],
        cache={"no-cache": False},
        caching=True,
        custom_llm_provider="openai",
        disable_fallbacks=False,
        drop_params=True,
        extra_headers={"X-Title": "mine"},
        fallbacks=[{"model": "openai/gpt-5"}],
        headers={"X-Title": "mine"},
        litellm_metadata={"tags": ["a"]},
        max_retries=9,
        metadata={"team": "shop", "prompt": "p"},
        mock_response="made up",
        mock_timeout=True,
        num_retries=5,
        request_timeout=0.001,
        seed=1,
        stream_timeout=0.001,
        tags=["a"],
        timeout=-5,
    ),
    "reasoning at its most": asks(reasoning_effort="max", reasoning={"effort": "xhigh", "exclude": True}),
    "thinking": asks(thinking={"type": "enabled", "budget_tokens": 1024}),
    "limits": asks(max_tokens=7, max_completion_tokens=9),
    "numbers": asks(temperature=0, top_p=1, top_k=0, min_p=0.0, seed=2**53 + 1, logit_bias={"50256": -100}),
    "penalties": asks(frequency_penalty=-0.5, presence_penalty=0.5, repetition_penalty=1.1, top_a=0.1),
    "log probabilities": asks(logprobs=True, top_logprobs=3),
    "two choices": asks(n=2),
    "nothing said": asks(temperature=None, tools=None, stop=None, response_format=None, tool_choice=None),
    "a user": asks(user="user-42"),
    "OpenRouter's own": asks(session_id="s", trace={"id": "t"}, verbosity="low", usage={"include": True}, debug={}),
    "transforms": asks(transforms=["middle-out"]),
    "plugins that are free": asks(
        plugins=[{"id": "context-compression", "enabled": False}, {"id": "web", "enabled": False}]
    ),
    "options of a stream": asks(stream_options={"include_usage": False, "include_obfuscation": False}),
    "preferences": asks(provider={"sort": "price", "data_collection": "deny", "max_price": {"prompt": 5}}),
    "a prediction": asks(prediction={"type": "content", "content": [TEXT]}),
    "a long text": asks({"role": "user", "content": "Å👋" * 50_000}),
    "many messages": asks(*[HEJ, {"role": "assistant", "content": "Hej"}] * 200),
    "deep": asks(x_unknown=[[[[[[[[[[[[[[[[[[[[{"a": 1}]]]]]]]]]]]]]]]]]]]]),
}
"""What reaches OpenRouter of each is what was said, on both paths; the guard on the price is ours."""

WITH_A_FILE: Final[dict[str, Any]] = {
    "a file at an address": parts(TEXT, {"type": "file", "file": {"filename": "a.pdf", "file_data": "https://a.b/c"}}),
    "a file's bytes": parts({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}}),
    "a file by its id": parts({"type": "file", "file": {"file_id": "f1"}}),
    "a file in a tool's result": parts({"type": "file", "file": {"file_data": "x"}}, role="tool", tool_call_id="c1"),
    "a file in a system's words": parts({"type": "file", "file": {"file_data": "x"}}, role="system"),
    "file_url": parts({"type": "file_url", "file_url": {"url": "https://a.b/c", "mime_type": "application/pdf"}}),
    "input_file": parts({"type": "input_file", "file_url": "https://a.b/c.pdf"}),
    "a document": parts({"type": "document", "source": {"type": "url", "url": "https://a.b/c.pdf"}}),
    "a file within a part": parts(
        {"type": "tool_result", "content": [{"type": "file", "file": {"file_data": "x"}}]},
    ),
    "a type nobody knows": parts(TEXT, {"type": "hologram", "hologram": 1}),
    "a PDF that is called an image": parts({"type": "image_url", "image_url": {"url": "https://a.b/c.PDF"}}),
    "a PDF's bytes that are called an image": parts(
        {"type": "image_url", "image_url": "data:application/pdf;base64,J"}
    ),
    "an image nobody knows": parts({"type": "image_url", "image_url": {"url": "https://a.b/c"}}),
}
"""Messages that may hold a file whose parser would be billed; all of them name the free one on their way."""
