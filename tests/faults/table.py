"""The fault table: what goes wrong, and what has to come of it. Data; `rows.py` says how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rollout.simulator import Kind
from tests.faults.rows import ALL, FIRST, GATEWAY_ONLY, ONCE, ONLY, Cell, Row


def _moves_on(
    name: str, kind: Kind, counted: str, error: str, *, rescued: bool, by_gateway: str | None = None, **more: Any
) -> tuple[Row, Row]:
    """Return two rows of a fault that is answered with the next model: the first model's, and everyone's.

    `rescued` says whether the direct path takes over from the gateway; `by_gateway` is what is counted there.
    """
    theirs = by_gateway or counted
    first = {"direct": f"d1:{counted} d2:ok", "gateway": f"g1:{theirs} g2:ok"}
    everyone = {
        "direct": f"d1:{counted} d2:{counted} d3:{counted} -> {error}",
        "gateway": f"g1:{theirs} g2:{theirs} g3:{theirs} -> {error}",
    }
    if rescued:
        first["gateway"] = f"g1:{theirs} d2:ok"
        everyone["gateway"] = f"g1:{theirs} d2:{counted} d3:{counted} d1:{counted} -> {error}"
    of_first, of_all = more.pop("of_first", {}), more.pop("of_all", {})
    return (
        Row(name=name, kind=kind, meets=FIRST, **{**first, **more, **of_first}),
        Row(name=name, kind=kind, meets=ALL, **{**everyone, **more, **of_all}),
    )


UNAVAILABLE, REJECTED, LIMITED, LATE = "UpstreamUnavailable", "UpstreamRejected", "RateLimited", "DeadlineExceeded"

SHORT: Final = {"total_timeout": 6.0, "attempt_timeout": 2.0, "first_token_timeout": 1.0, "stall_timeout": 1.0}
_SILENT: Final[Mapping[str, Any]] = {
    "closed": True,
    "limits": SHORT,
    "within": 9.0,
    # the deadline over all attempts ends it: the gateway's turn and two of the direct path's, or three direct ones
    "of_all": {"gateway": f"g1:timeout d2:timeout d3:timeout -> {LATE}",
               "gateway_stream": f"g1:timeout d2:timeout d3:timeout d1:timeout -> {LATE}"},
}  # fmt: skip
_PARTIAL: Final[Mapping[str, Any]] = {
    "direct_stream": f"d1:interrupted -> part, {UNAVAILABLE}",
    "gateway_stream": f"g1:interrupted -> part, {UNAVAILABLE}",
}

ROWS: Final[tuple[Row, ...]] = (
    Row(name="Nothing", direct="d1:ok", gateway="g1:ok"),
    # what the account is told
    Row(
        name="429, requests of the minute",
        kind=Kind.RATE_LIMIT_MINUTE,
        meets=ALL,
        parameters={"seconds": 40.0},
        direct=f"d1:minute_cap -> {LIMITED}",
        gateway=f"g1:minute_cap -> {LIMITED}",
        then=(f"-> {LIMITED}", f"-> {LIMITED}"),
        retry_after=(30, 60),
    ),
    Row(
        name="429, requests of the minute, over within the deadline",
        kind=Kind.RATE_LIMIT_MINUTE,
        meets=ONCE,
        parameters={"seconds": 2.0},
        waits=(1.8, 1.8),
        direct="d1:minute_cap d1:ok",
        gateway="g1:minute_cap g1:ok",
    ),
    Row(
        name="429, requests of the day",
        kind=Kind.RATE_LIMIT_DAY,
        meets=ALL,
        direct=f"d1:day_cap -> {LIMITED}",
        gateway=f"g1:day_cap -> {LIMITED}",
        then=(f"-> {LIMITED}", f"-> {LIMITED}"),
        retry_after=(11 * 3600, 12 * 3600),
        note="nothing more is sent on either path until 00:00 UTC",
    ),
    *_moves_on("429, the model's pool is busy", Kind.UPSTREAM_BUSY, "upstream_busy", LIMITED, rescued=False),
    Row(
        name="402, no credit",
        kind=Kind.PAYMENT_REQUIRED,
        meets=ALL,
        direct=f"d1:payment_required -> {REJECTED}",
        gateway=f"g1:payment_required -> {REJECTED}",
    ),
    Row(
        name="401, our key",
        kind=Kind.UNAUTHORIZED,
        meets=ALL,
        direct=f"d1:unauthorized -> {REJECTED}",
        gateway=f"g1:unauthorized d1:unauthorized -> {REJECTED}",
        note="never shown as the caller's key being wrong",
    ),
    Row(
        name="401, the gateway's key alone",
        kind=Kind.UNAUTHORIZED,
        meets=GATEWAY_ONLY,
        gateway="g1:unauthorized d1:ok",
    ),
    Row(
        name="403, moderation",
        kind=Kind.FORBIDDEN,
        meets=ALL,
        direct=f"d1:rejected -> {REJECTED}",
        gateway=f"g1:rejected -> {REJECTED}",
        note="shown as 400: a 403 would say that the caller's key is wrong",
    ),
    *_moves_on(
        "404, the free variant has ended", Kind.NOT_FOUND_FREE_VARIANT_ENDED, "model_gone", REJECTED, rescued=False,
        of_first={"then": ("d2:ok", "g2:ok"), "note": "the paid twin it suggests is never asked"},
    ),
    *_moves_on("404, data policy", Kind.NOT_FOUND_DATA_POLICY, "model_gone", REJECTED, rescued=False),
    *_moves_on(
        "400, a provider's refusal", Kind.PROVIDER_REFUSED, "model_refused", REJECTED, rescued=False,
        of_all={"note": "shown as 400, in the provider's words"},
    ),
    Row(
        name="400, longer than the model's context",
        kind=Kind.CONTEXT_TOO_LONG,
        direct="d1:model_refused d2:ok",
        gateway="g1:model_refused g2:ok",
    ),
    Row(
        name="403, not in this region",
        kind=Kind.REGION_RESTRICTED,
        direct="d1:model_refused d2:ok",
        gateway="g1:model_refused g2:ok",
        then=("d1:model_refused d2:ok", "g1:model_refused g2:ok"),
        note="it speaks neither against our key nor against the path",
    ),
    Row(
        name="400, the request itself",
        asks="impossible",
        direct=f"d1:rejected -> {REJECTED}",
        gateway=f"g1:rejected -> {REJECTED}",
    ),
    # what the upstream fails with
    *_moves_on("500", Kind.ERROR_500, "server_error", UNAVAILABLE, rescued=True),
    Row(
        name="500, the retry budget is empty",
        kind=Kind.ERROR_500,
        meets=ONLY,
        spent=True,
        direct=f"d1:server_error -> {UNAVAILABLE}",
        gateway=f"g1:server_error d1:server_error -> {UNAVAILABLE}",
        note="the rescue costs no retry, and with other models there is no retry",
    ),
    Row(
        name="500, by the gateway alone",
        kind=Kind.ERROR_500,
        meets=GATEWAY_ONLY,
        gateway="g1:server_error d2:ok",
        note="it might as well be the model, so another is asked first",
    ),
    *_moves_on("502", Kind.ERROR_502, "server_error", UNAVAILABLE, rescued=True),
    *_moves_on(
        "503, Retry-After 1", Kind.ERROR_503_RETRY_AFTER, "server_error", UNAVAILABLE, rescued=True,
        parameters={"seconds": 1.0}, of_all={"retry_after": (1, 1)},
    ),
    Row(
        name="503, Retry-After 1, then well",
        kind=Kind.ERROR_503_RETRY_AFTER,
        meets=ONCE,
        parameters={"seconds": 1.0},
        waits=(0.9, 0.0),
        direct="d1:server_error d1:ok",
        gateway="g1:server_error d1:ok",
        note="there is no other model, so it is waited for",
    ),
    Row(
        name="503, Retry-After 999999",
        kind=Kind.ERROR_503_RETRY_AFTER,
        meets=FIRST,
        parameters={"seconds": 999_999.0},
        direct="d1:server_error d2:ok",
        gateway="g1:server_error d2:ok",
    ),
    Row(
        name="503, Retry-After 999999",
        kind=Kind.ERROR_503_RETRY_AFTER,
        meets=ONLY,
        parameters={"seconds": 999_999.0},
        direct=f"d1:server_error d1:server_error d1:server_error -> {UNAVAILABLE}",
        gateway=f"g1:server_error d1:server_error d1:server_error d1:server_error -> {UNAVAILABLE}",
        note="what is absurd is not believed",
    ),
    # what never comes
    *_moves_on("Hangs", Kind.HANG, "timeout", LATE, rescued=True, **_SILENT),
    *_moves_on("Headers, then silence", Kind.HEADERS_THEN_SILENCE, "timeout", LATE, rescued=True, **_SILENT),
    *_moves_on(
        "Comments for ever", Kind.COMMENTS_FOREVER, "timeout", LATE, rescued=True,
        parameters={"seconds": 0.2}, **_SILENT,
    ),
    Row(
        name="One piece, then silence",
        kind=Kind.ONE_TOKEN_THEN_SILENCE,
        direct="d1:timeout d2:ok",
        direct_stream=f"d1:timeout -> part, {LATE}",
        gateway="g1:timeout d2:ok",
        gateway_stream=f"g1:timeout -> part, {LATE}",
        closed=True,
        limits={**SHORT, "first_token_timeout": 4.0},
        within=9.0,
    ),
    Row(
        name="Slow",
        kind=Kind.SLOW,
        meets=ALL,
        parameters={"seconds": 0.4, "chunk_seconds": 0.3},
        direct="d1:ok",
        gateway="g1:ok",
        note="within every deadline: it is waited for",
    ),
    Row(
        name="Too slow",
        kind=Kind.SLOW,
        parameters={"seconds": 5.0},
        direct="d1:timeout d2:ok",
        gateway="g1:timeout d2:ok",
        closed=True,
        limits=SHORT,
        within=9.0,
    ),
    # what only looks like an answer
    *_moves_on(
        "finish_reason error", Kind.FINISH_REASON_ERROR, "error_finish", UNAVAILABLE, rescued=False,
        direct_stream=f"d1:error_finish -> part, {UNAVAILABLE}",
        gateway_stream="g1:ok -> half",
        limit="in a stream LiteLLM turns it into “stop” without a trace: half an answer passes as a whole one",
    ),
    *_moves_on(
        "finish_reason error, no content", Kind.FINISH_REASON_ERROR_AT_ONCE, "error_finish", UNAVAILABLE, rescued=False,
        of_first={"gateway_stream": "g1:empty g2:ok"},
        of_all={"gateway_stream": f"g1:empty g2:empty g3:empty -> {UNAVAILABLE}"},
    ),
    *_moves_on("Empty content", Kind.EMPTY_CONTENT, "empty", UNAVAILABLE, rescued=False),
    *_moves_on("An error inside HTTP 200", Kind.ERROR_IN_200_BODY, "server_error", UNAVAILABLE, rescued=True),
    *_moves_on(
        "HTML in HTTP 200", Kind.HTML_200, "no_answer", UNAVAILABLE, rescued=True, by_gateway="server_error",
        of_first={"gateway_stream": "g1:empty g2:ok"},
        of_all={"gateway_stream": f"g1:empty g2:empty g3:empty -> {UNAVAILABLE}"},
    ),
    Row(
        name="An error in mid-stream",
        kind=Kind.MID_STREAM_ERROR,
        direct="d1:server_error d2:ok",
        gateway="g1:server_error d2:ok",
        **_PARTIAL,
    ),
    Row(
        name="No [DONE]",
        kind=Kind.NO_DONE,
        direct="d1:ok",
        direct_stream=f"d1:truncated -> part, {UNAVAILABLE}",
        gateway="g1:ok",
        gateway_stream="g1:ok",
        limit="LiteLLM puts a missing [DONE] there itself, so that behind it nobody can tell",
    ),
    *_moves_on(
        "Truncated JSON for a schema", Kind.TRUNCATED_CONTENT, "invalid_json", UNAVAILABLE, rescued=False,
        asks="schema",
        direct_stream=f"d1:invalid_json -> part, {UNAVAILABLE}",
        gateway_stream=f"g1:invalid_json -> part, {UNAVAILABLE}",
    ),
    Row(
        name="JSON in a Markdown fence",
        kind=Kind.FENCED,
        meets=ALL,
        asks="schema",
        direct="d1:ok",
        gateway="g1:ok",
        note="one fence around the whole is accepted, and delivered as it came",
    ),
    Row(
        name="Events without meaning",
        kind=Kind.EVENTS_WITHOUT_MEANING,
        meets=ALL,
        direct="d1:ok",
        gateway="g1:ok",
        note="`null`, empty data, other fields and all that follows `[DONE]` are left out",
    ),
    Row(
        name="[DONE] in a piece of the text",
        kind=Kind.END_MARK_IN_TEXT,
        direct="d1:ok",
        gateway="g1:ok",
        gateway_stream=f"g1:interrupted -> part, {UNAVAILABLE}",
        limit="LiteLLM takes a piece of a stream with [DONE] in it for the end and drops it, and if it is the answer's "
        "last piece nothing shows it; a stream whose request speaks of [DONE] is therefore asked directly",
    ),
    Row(
        name="Half a document",
        kind=Kind.TRUNCATED_JSON,
        direct="d1:no_answer d2:ok",
        gateway="g1:server_error d2:ok",
        direct_stream=f"d1:interrupted -> part, {UNAVAILABLE}",
        gateway_stream=f"g1:truncated -> part, {UNAVAILABLE}",
    ),
    Row(
        name="Garbage lines",
        kind=Kind.GARBAGE_LINES,
        direct="d1:no_answer d2:ok",
        gateway="g1:server_error d2:ok",
        direct_stream=f"d1:interrupted -> part, {UNAVAILABLE}",
        gateway_stream="g1:ok",
        note="LiteLLM leaves such lines out, and the answer is whole",
    ),
    Row(
        name="A first chunk without choices; a plain answer without a role",
        kind=Kind.ODD_FIRST_CHUNK,
        direct="d1:ok",
        gateway="g1:gateway_error d1:ok",
        note="LiteLLM's own code fails on it, and the direct path takes over",
    ),
    Row(
        name="A last chunk whose choices are null",
        kind=Kind.ODD_LAST_CHUNK,
        direct="d1:ok",
        gateway="g1:ok",
        gateway_stream=f"g1:interrupted -> part, {UNAVAILABLE}",
        note="LiteLLM's own code fails on it, which is counted against the gateway",
    ),
    Row(
        name="300 equal pieces in a row",
        kind=Kind.EQUAL_PIECES,
        direct="d1:ok",
        gateway="g1:ok",
        note="LiteLLM breaks a stream off after 100, unless it is configured as here",
    ),
    Row(
        name="One line of 40 MiB",
        kind=Kind.GIANT_LINE,
        parameters={"size_bytes": 40 * 1024 * 1024},
        direct="d1:no_answer d2:ok",
        gateway="g1:no_answer d2:ok",
        limits={"total_timeout": 60.0},
        within=60.0,
        apart=True,
    ),
    Row(
        name="The connection is cut",
        kind=Kind.CUT_CONNECTION,
        direct="d1:no_answer d2:ok",
        gateway="g1:server_error d2:ok",
        direct_stream=f"d1:interrupted -> part, {UNAVAILABLE}",
        gateway_stream=f"g1:interrupted -> part, {UNAVAILABLE} or "
        "g1:server_error d2:ok",
        note="LiteLLM may lose what it has read of a stream that is cut, and then nothing was delivered yet",
    ),
    Row(
        name="The answer costs money",
        kind=Kind.COSTS_MONEY,
        direct="d1:ok",
        gateway="g1:ok",
        then=("d2:ok", "g2:ok"),
        note="the model is asked no more, on either path, until a person allows it",
    ),
    # the caller itself
    Row(
        name="The caller leaves before anything came",
        kind=Kind.HANG,
        leaves=True,
        direct="d1:cancelled -> left",
        gateway="g1:cancelled -> left",
        closed=True,
        note="the upstream's connection is closed, on both paths",
    ),
    Row(
        name="The caller leaves a plain answer or a stream in the middle",
        kind=Kind.ONE_TOKEN_THEN_SILENCE,
        leaves=True,
        direct="d1:cancelled -> left",
        gateway="g1:cancelled -> left",
        direct_stream="d1:ok -> left",
        gateway_stream="g1:ok -> left",
        closed=True,
        note="the upstream's connection is closed, on both paths",
    ),
    # the gateway itself
    Row(name="The gateway refuses connections", gateway_is="refusing", gateway="(g1:unreachable) d1:ok"),
    Row(name="The gateway cools down", gateway_is="cooling", gateway="(g1:gateway_cooldown) d1:ok"),
    Row(name="The gateway does not know our key", gateway_is="strange", gateway="(g1:unauthorized) d1:ok"),
    Row(
        name="The gateway is killed while it holds the request",
        kind=Kind.HANG,
        meets=GATEWAY_ONLY,
        gateway_is="killed",
        gateway="g1:unreachable d1:ok",
        within=30.0,
    ),
    Row(
        name="The gateway is killed in mid-answer",
        kind=Kind.ONE_TOKEN_THEN_SILENCE,
        meets=GATEWAY_ONLY,
        gateway_is="killed",
        gateway="g1:unreachable d1:ok",
        gateway_stream=f"g1:interrupted -> part, {UNAVAILABLE}",
        within=30.0,
    ),
)  # fmt: skip


COLUMNS: Final = tuple(
    (path, stream, caller)
    for path in ("direct", "gateway")
    for stream in (False, True)
    for caller in ("sync", "async", "endpoint")
)


def cells() -> list[Cell]:
    """Return every cell that is played."""
    return [
        Cell(row, path, stream, caller)
        for row in ROWS
        for path, stream, caller in COLUMNS
        if row.way(path, stream=stream) is not None and not _cannot(row, stream=stream, caller=caller)
    ]


def _cannot(row: Row, *, stream: bool, caller: str) -> bool:
    """Say whether a caller cannot do what a row is about: a synchronous one leaves nothing but a stream that began."""
    return row.leaves and caller == "sync" and not (stream and row.kind is Kind.ONE_TOKEN_THEN_SILENCE)
