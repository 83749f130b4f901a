"""Write docs/faults.md from the fault table and from what was measured of LiteLLM alone.

python -m tests.faults.document
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.faults.rows import FIRST, Cell, Row, Way, way, ways
from tests.faults.table import ROWS
from tests.faults.upstreams import ROOT

PAGE: Final = ROOT / "docs" / "faults.md"
MEASURED: Final = Path(__file__).with_name("litellm_alone.json")

_HEAD: Final = """\
# Faults

What a caller gets for each fault, and what is sent for it. This page is generated from the table that the tests play:
every line on both paths, plain and streaming, through `invoke_llm`, `ainvoke_llm` and the completions endpoint, the
gateway's columns through the real LiteLLM. To write it again: `python -m tests.faults.document`.

## How to read it

`d1` is an attempt on the direct path with the first model of the cascade, `g2` one through the gateway with the second,
and so on; the word after it is what was counted, as it stands in `decision.attempts`. An attempt in brackets never
reached the upstream. Then what the caller got: **served**, or a typed error, or a **part** and then the typed error in
the stream. Where a fault is about silence the deadlines are short: 6 s over all attempts, 2 s for a plain one, 1 s to a
stream's first piece and between pieces. Where a fault meets the first model alone, the others are well.

“LiteLLM alone” is what the official SDK got from the same LiteLLM without us, measured, not asserted: two retries, the
same three models as fallbacks, no cooldown, 5 s for each read. In brackets: the calls that reached the upstream, and
the seconds. The SDK's own two retries were switched off (each would send it all again); it hung up after 15 s.

"""

_LIMITS: Final = """
## What cannot be seen behind the gateway

LiteLLM rewrites what an upstream sends. What it restores or drops without a trace cannot be told from a good answer:

"""

_LEGEND: Final = """
## What counts as an answer

One rule judges plain answers and streams; a stream is put together again for it, if the request asks for JSON or offers
tools.

- **JSON** (`response_format`): the whole text is one JSON document, of any root; an object if the schema says so, with
  the keys that the schema requires at its root. One Markdown fence around the whole (three or more backticks or tildes,
  with or without a word for the language, on lines of their own or not) is accepted and delivered as it came. Text
  outside the fence, a second fence, or anything else than JSON inside is a failure. A tool call or a refusal is an
  answer of its own.
- **Tool calls**: the arguments are JSON, or empty for a tool that requires none.
- What the caller's own `max_tokens` cut off is judged by neither.

In a stream, what says nothing is skipped, wherever it stands and for every reader: comments, empty data, `data: null`,
the fields `event`, `id` and `retry` and unknown ones, a byte order mark, every kind of line end. Comments still reach
the callers of the endpoint and the transports, as they keep a connection alive; the rest does not, because clients
stumble over it. A number, a text, a list, true or false as an event's data are garbage. The end mark may have white
space around it. Nothing that stands behind it is delivered.

## The errors

| Error | HTTP | When |
|---|---|---|
| `UpstreamUnavailable` | 502 | the upstream failed, or answered something that is no answer |
| `UpstreamRejected` | 502; a wrong request: the upstream's own 4xx | a key, a credit or a model is missing |
| `RateLimited` | 429 with `Retry-After` | a quota is used up, or the models are busy |
| `DeadlineExceeded` | 504 | time ran out |

An upstream's 401, 402 or 403 is never shown as such: it is about the key that we hold, not about the caller's. In a
stream that has begun the error comes as an event with `error` in it, and `[DONE]` does not follow.
"""

_STORMS: Final = """
## Storms

60 requests in 10 s, five models, no limit of the account; both paths with the real parts, beside the same LiteLLM with
the fallback chain that is generated for it. The calls are those that reached the upstream, rescues from the gateway
included. First attempts fail in turn with a busy pool, 503, an empty answer and `finish_reason: "error"`.
`tests/faults/test_storm.py` plays them. `tests/resilience/test_storm.py` plays every kind of failure, one to five
models, sixty callers or one, equal and different bodies, in turn and all at once: there at least 57 of 60 are served if
every first attempt fails, and an outage costs 72 calls at the most.

| What fails | Direct | Gateway | LiteLLM alone |
|---|---|---|---|
| every first attempt | 60 served, 120 calls | 60 served, 120 calls | 30 served, 90 calls |
| 3 first attempts in 10 | 60 served, 78 calls | 60 served, 78 calls | 51 served, 69 calls |
| one model, always busy | 60 served, 64 calls | 60 served, 68 calls | 60 served, 120 calls |
| everything | 0 served, 13 calls | 0 served, 23 calls | 0 served, 180 calls |

One body that the gateway fails on, sent five or fifty times by one caller, opens no breaker that others share: they
stay on the gateway, with the first model, and the one caller is served by the direct path.
"""


def render(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page."""
    lines = [_HEAD + "## The table\n"]
    lines.append("| Fault | Meets | Direct | Gateway | LiteLLM alone |")
    lines.append("|---|---|---|---|---|")
    lines += [_line(row, measured) for row in ROWS]
    limits = "\n".join(f"- {row.name}: {row.limit}." for row in ROWS if row.limit and row.meets == FIRST)
    return "\n".join(lines) + "\n" + _LIMITS + limits + "\n" + _STORMS + _LEGEND


def _line(row: Row, measured: Mapping[str, Mapping[str, Any]]) -> str:
    name = row.name + (f"; {row.note}" if row.note else "")
    meets = row.meets if row.kind else ""
    return f"| {name} | {meets} | {_ways(row, 'direct')} | {_ways(row, 'gateway')} | {_alone(row, measured)} |"


def _ways(row: Row, path: str) -> str:
    plain, stream = row.way(path, stream=False), row.way(path, stream=True)
    if plain is None or stream is None:
        return ""
    text = _all(plain) if plain == stream else f"plain: {_all(plain)}<br>stream: {_all(stream)}"
    if row.then is not None:
        again = way(row.then[0 if path == "direct" else 1])
        text += f"<br>and then: {_way(again) if again.steps else f'nothing is sent, `{again.error}`'}"
    return text


_OTHERWISE: Final = {"half": "half an answer, taken for a whole one", "left": "closed"}


def _all(text: str) -> str:
    return ", or ".join(_way(right) for right in ways(text))


def _way(right: Way) -> str:
    steps = [f"`{step.place}` {step.counted.replace('_', ' ')}" for step in right.steps]
    sent = ", ".join(text if step.arrived else f"({text})" for step, text in zip(right.steps, steps, strict=True))
    if right.otherwise:
        return f"{sent}: {_OTHERWISE[right.otherwise]}"
    got = "**served**" if right.error is None else f"**part**, `{right.error}`" if right.part else f"`{right.error}`"
    return f"{sent}: {got}"


def _alone(row: Row, measured: Mapping[str, Mapping[str, Any]]) -> str:
    plain, stream = (_measured(Cell(row, "gateway", stream, "sdk"), measured) for stream in (False, True))
    if plain is None or stream is None:
        return ""
    return f"plain: {plain}<br>stream: {stream}"


def _measured(cell: Cell, measured: Mapping[str, Mapping[str, Any]]) -> str | None:
    found = measured.get(cell.id)
    if found is None:
        return None
    calls = found["calls"]
    return f"{found['answer']} ({calls} {'call' if calls == 1 else 'calls'}, {found['seconds']:.0f} s)"


def page() -> str:
    """Return the page as it has to be."""
    return render(json.loads(MEASURED.read_text(encoding="utf-8")))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
