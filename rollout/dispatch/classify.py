"""An HTTP answer as a success or a failure kind. Pure.

| answer | kind |
|---|---|
| 401, 403; the gateway's 400 for a wrong key | unauthorized: our key, never the caller's |
| 402 | payment_required |
| 404 | model_gone |
| 408 (the gateway's word for a time-out), 504 | timeout |
| 429 | rate_limited |
| other 5xx; the gateway not knowing a model | server_error |
| other 4xx | rejected: this request, now and on a second try |
| 200 with an `error` | by the code in it |
| 200 with HTML, no JSON or no choices; 1xx, 3xx | no_answer |
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import ceil, isfinite
from typing import Any, Final, NamedTuple

from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.wire.chat import error_in, is_completion, parse_json

MAX_RETRY_AFTER: Final = 86_400.0
"""Seconds; the longest wait that makes sense is until the next day's quota."""

_LONGEST_DETAIL: Final = 500


class Fault(NamedTuple):
    """Why an answer is none: `detail` for people, `retry_after` in seconds where the upstream named a time."""

    kind: FailureKind
    detail: str
    retry_after: float | None = None


def classify(
    path: Path, status: int, headers: Mapping[str, str], body: bytes, *, wall: float
) -> tuple[Fault | None, Any]:
    """Judge a plain answer; return what is wrong with it (None: nothing) and its document (None: no JSON).

    Args:
        path: who answered.
        status: the HTTP status.
        headers: the answer's headers; looked up in lower case.
        body: the answer's body.
        wall: now, in seconds since the epoch, for times an upstream names.
    """
    try:
        document = parse_json(body)
    except ValueError:
        document = None
    if status != 200:
        return of_status(path, status, headers, error_in(document), wall=wall), document
    error = error_in(document)
    if error is not None:
        return of_error(path, error, headers, wall=wall), document
    if document is None:
        shown = "HTML" if body.lstrip()[:1] == b"<" else "nothing" if not body.strip() else "no JSON"
        return Fault(FailureKind.NO_ANSWER, f"HTTP 200 with {shown} in it"), None
    if not is_completion(document):
        return Fault(FailureKind.NO_ANSWER, "HTTP 200 without any choice in it"), document
    return None, document


def of_error(path: Path, error: Mapping[str, Any], headers: Mapping[str, str], *, wall: float) -> Fault:
    """Judge an error that came inside an HTTP 200 or inside a stream: by the code it names."""
    try:
        status = int(error.get("code") or 0)
    except (TypeError, ValueError):
        status = 0
    if 400 <= status <= 599:
        return of_status(path, status, headers, error, wall=wall)
    return Fault(FailureKind.NO_ANSWER, _detail(error, "an error inside HTTP 200"))


def of_status(
    path: Path, status: int, headers: Mapping[str, str], error: Mapping[str, Any] | None, *, wall: float
) -> Fault:
    """Judge an answer by its status and the error it carries."""
    detail = _detail(error, f"HTTP {status}")
    kind = _kind(path, status, error)
    wait = _retry_after(headers, error, wall) if status in (429, 503) else None
    return Fault(kind, detail, wait)


def _kind(path: Path, status: int, error: Mapping[str, Any] | None) -> FailureKind:
    if path is Path.LITELLM and status == 400 and error is not None:
        # measured: without a database the gateway answers a wrong key so, and an unknown model likewise with 400
        if error.get("type") == "no_db_connection" or "No connected db" in str(error.get("message")):
            return FailureKind.UNAUTHORIZED
        if "Invalid model name passed" in str(error.get("message")):
            return FailureKind.SERVER_ERROR
    if status in (401, 403):
        return FailureKind.UNAUTHORIZED
    if status == 402:
        return FailureKind.PAYMENT_REQUIRED
    if status == 404:
        return FailureKind.MODEL_GONE
    if status in (408, 504):
        return FailureKind.TIMEOUT
    if status == 429:
        return FailureKind.RATE_LIMITED
    if status >= 500:
        return FailureKind.SERVER_ERROR
    return FailureKind.REJECTED if status >= 400 else FailureKind.NO_ANSWER


def _detail(error: Mapping[str, Any] | None, otherwise: str) -> str:
    message = error.get("message") if error else None
    text = " ".join(str(message).split()) if message else ""
    return (text[:_LONGEST_DETAIL] + "…") if len(text) > _LONGEST_DETAIL else text or otherwise


def _retry_after(headers: Mapping[str, str], error: Mapping[str, Any] | None, wall: float) -> float | None:
    """Return how many seconds to wait, as far as anything sane was said."""
    for name in ("retry-after", "llm_provider-retry-after"):
        if (text := headers.get(name)) and (seconds := _sane(_delay(text, wall))) is not None:
            return seconds
    metadata = error.get("metadata") if error else None
    nested = metadata.get("headers") if isinstance(metadata, Mapping) else None
    named = {str(name).lower(): value for name, value in nested.items()} if isinstance(nested, Mapping) else {}
    for reset in (headers.get("x-ratelimit-reset"), named.get("x-ratelimit-reset")):
        if reset is not None and (seconds := _sane(_until(reset, wall))) is not None:
            return seconds
    return None


def _delay(text: str, wall: float) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(text).timestamp() - wall
    except (ValueError, OverflowError):
        return None


def _until(reset: object, wall: float) -> float | None:
    # OpenRouter names the reset in milliseconds since the epoch
    try:
        return float(str(reset)) / 1000 - wall
    except ValueError:
        return None


def _sane(seconds: float | None) -> float | None:
    if seconds is None or not isfinite(seconds) or not 0 < seconds <= MAX_RETRY_AFTER:
        return None
    return float(ceil(seconds))
