"""The three callers of the fault table: `invoke_llm`, `ainvoke_llm` and HTTP, and what each of them got."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from rollout.dispatch.dispatcher import Dispatcher
from rollout.domain.errors import SendingFailed
from rollout.simulator import Kind
from tests.faults.rows import Cell
from tests.faults.upstreams import QUESTION

ACCESS: Final = "an-access-token-of-the-table"
_LEAVES_AFTER: Final = 0.8


@dataclass(slots=True)
class Got:
    """What a caller got: `answer` as the table writes it, the rest where there was an error."""

    answer: str = "served"
    content: str = ""
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    shown: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def is_whole(cell: Cell, content: str) -> bool:
    """Say whether an answer is all that the upstream says to such a question."""
    question = QUESTION[0]["content"]
    if cell.row.asks == "schema":
        answer = '{"city": "simulated", "people": 0}'
        return content == (f"```json\n{answer}\n```" if cell.row.kind is Kind.FENCED else answer)
    if cell.row.kind is Kind.END_MARK_IN_TEXT and "data: [DONE]" not in content:
        return False
    return content.endswith(question) and content.count(question) == 1


def _patience(cell: Cell) -> float | None:
    """Return after how many seconds the caller leaves, None where it does not, or only once a piece has come."""
    comes = cell.stream and cell.row.kind is not Kind.HANG
    return _LEAVES_AFTER if cell.row.leaves and not comes else None


def _failed(error: SendingFailed, content: str) -> Got:
    name = type(error).__name__
    code = str(error.attempts[-1].failure) if error.attempts else None
    return Got(
        f"part, {name}" if content else name, content, error.status, code, error.retry_after, shown=str(error)
    )  # fmt: skip


def _piece(chunk: Any) -> str:
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    delta = choices[0].get("delta") if choices else None
    return str((delta or {}).get("content") or "")


def _plain_content(document: Any) -> str:
    return str(document["choices"][0]["message"]["content"])


def synchronously(dispatcher: Dispatcher, cell: Cell, body: dict[str, Any]) -> Got:
    content = ""
    try:
        result: Any = dispatcher.invoke(body)
        if not body.get("stream"):
            return Got(content=_plain_content(result))
        for chunk in result:
            content += _piece(chunk)
            if cell.row.leaves and content:
                result.close()
                return Got("left")
    except SendingFailed as error:
        return _failed(error, content)
    return Got(content=content)


async def asynchronously(dispatcher: Dispatcher, cell: Cell, body: dict[str, Any]) -> Got:
    content = ""
    try:
        async with asyncio.timeout(_patience(cell)):
            result: Any = await dispatcher.ainvoke(body)
        if not body.get("stream"):
            return Got(content=_plain_content(result))
        async for chunk in result:
            content += _piece(chunk)
            if cell.row.leaves and content:
                await result.aclose()
                return Got("left")
    except SendingFailed as error:
        return _failed(error, content)
    except TimeoutError:
        return Got("left")
    finally:
        await dispatcher.aclose()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left over: {left}"
    return Got(content=content)


_CLASSES: Final = {504: "DeadlineExceeded", 429: "RateLimited", 400: "UpstreamRejected"}
_REFUSED: Final = {"payment_required", "unauthorized", "model_gone", "not_free", "rejected"}


def _class_of(status: int | None, code: str | None) -> str:
    """Name the error that Python's callers get where HTTP's get this status and code."""
    if code == "timeout" and status is None:
        return "DeadlineExceeded"
    if status in _CLASSES:
        return _CLASSES[status]
    return "UpstreamRejected" if code in _REFUSED else "UpstreamUnavailable"


def over_http(url: str, cell: Cell, body: dict[str, Any]) -> Got:
    headers = {"authorization": f"Bearer {ACCESS}", "x-cell": cell.id}
    try:
        with (
            httpx.Client(trust_env=False, timeout=_patience(cell) or 90) as http,
            http.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as answer,
        ):
            heads, raw = dict(answer.headers), b""
            for part in answer.iter_raw():
                raw += part
                if cell.row.leaves:
                    return Got("left")
    except httpx.ReadTimeout:
        return Got("left")
    if answer.status_code != 200:
        error = json.loads(raw)["error"]
        after = heads.get("retry-after")
        assert heads.get("x-should-retry") == "false"
        return Got(
            _class_of(answer.status_code, error["code"]), "", answer.status_code, error["code"],
            float(after) if after else None, error["message"], heads,
        )  # fmt: skip
    if not body.get("stream"):
        return Got(content=_plain_content(json.loads(raw)), headers=heads)
    return _streamed(raw, heads)


def _streamed(raw: bytes, heads: dict[str, str]) -> Got:
    content, done = "", False
    for event in raw.decode("utf-8", "replace").split("\n\n"):
        for line in event.splitlines():
            if not line.startswith("data: ") or done:
                continue
            if line == "data: [DONE]":
                done = True
                continue
            try:
                document = json.loads(line.removeprefix("data: "))
            except ValueError:
                continue
            error = document.get("error") if isinstance(document, dict) else None
            if isinstance(error, dict):
                # the upstream's own words have a number as their code; they are passed on as they came
                code = None if str(error["code"]).isdigit() else error["code"]
                name = _class_of(None, code)
                return Got(f"part, {name}" if content else name, content, None, code, None, error["message"])
            content += _piece(document)
    return Got("served" if done else "served without its end", content, headers=heads)
