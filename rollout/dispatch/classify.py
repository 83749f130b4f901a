"""An HTTP answer as a success or a failure kind. Pure.

| answer | kind |
|---|---|
| 401, 403; the gateway's 400 for a wrong key | unauthorized: our key, never the caller's |
| 403 by moderation | rejected |
| 402 | payment_required |
| 404, 400 for a model that is none; a privacy switch | model_gone; a paid model that is suggested is never taken |
| 404 because of `max_price` | not_free |
| 408 (the gateway's word for a time-out), 504 | timeout |
| 429 by the account's minute, its day | minute_cap, day_cap |
| 429 of the pool behind a model | upstream_busy |
| 429 of the gateway's own breaker | gateway_cooldown |
| any other 429 | rate_limited |
| other 5xx; the gateway not knowing a model | server_error |
| other 4xx | rejected: this request, now and on a second try |
| 200 with an `error` | by the code in it |
| 200 with HTML, no JSON or no choices; 1xx, 3xx | no_answer |

The gateway passes an upstream's error on as text inside its own message, and the upstream's headers with the
prefix `llm_provider-`; both are read, and the message's text is searched where it cannot be parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from math import ceil, isfinite
from typing import Any, Final, NamedTuple

from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.wire.chat import error_in, is_completion, parse_json

MAX_RETRY_AFTER: Final = 86_400.0
"""Seconds; the longest wait that makes sense is until the next day's quota."""

MINUTE_SECONDS: Final = 60.0

_LONGEST_DETAIL: Final = 500
_LONGEST_TEXT: Final = 16_384
_OF_PROVIDER: Final = ("", "llm_provider-")
_QUOTES: Final = "OpenrouterException - "
_QUOTED_SENTENCE: Final = re.compile(r"OpenrouterException - Message: (.*?), Metadata: ", re.DOTALL)
_ACCOUNT: Final = re.compile(r""",?\s*["']?\buser[ _]id["']?\s*:.*""", re.DOTALL | re.IGNORECASE)
_RESET_IN_TEXT: Final = re.compile(r"x-ratelimit-reset\W{1,8}(\d{10,16})", re.IGNORECASE)
_BODY_IN_TEXT: Final = re.compile(
    r"(?:,? ?Original Response:|received_args=|Got unexpected response from OpenRouter:|same chunk =|Traceback \().*",
    re.DOTALL,
)
"""Where the gateway's message goes on with an answer, or with what it was asked: no part of a sentence for people."""
_AGAIN_IN_TEXT: Final = re.compile(r"try again in (\d{1,6}(?:\.\d+)?) ?s", re.IGNORECASE)


class Fault(NamedTuple):
    """Why an answer is none.

    `detail` is for people; `retry_after` in seconds where the upstream named a time. `fits` is false where the
    model cannot do what this one request asks for, which speaks neither against it nor against its path. `cut` is
    true where the connection was cut, false where an error was told.
    """

    kind: FailureKind
    detail: str
    retry_after: float | None = None
    fits: bool = True
    cut: bool = False

    def blames(self, path: Path) -> FailureKind:
        """Return what it speaks against, as a kind for the gate."""
        if not self.fits:
            return FailureKind.REJECTED  # this request alone
        if self.cut and path is Path.LITELLM:
            return FailureKind.UNREACHABLE  # the gateway tells what fails behind it: its own process hung up or died
        return self.kind


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
    except (TypeError, ValueError, OverflowError):
        status = 0
    if 400 <= status <= 599:
        return of_status(path, status, headers, error, wall=wall)
    return Fault(FailureKind.NO_ANSWER, sentence(error, "an error inside HTTP 200"))


def of_status(
    path: Path, status: int, headers: Mapping[str, str], error: Mapping[str, Any] | None, *, wall: float
) -> Fault:
    """Judge an answer by its status and the error it carries."""
    said = error or {}
    if path is Path.LITELLM and (quoted := _quoted(said)) is not None:
        said = {**said, **quoted}
    detail = sentence(said, f"HTTP {status}")
    match status:
        case 429:
            kind = _of_429(path, said)
            return Fault(kind, detail, _wait_of_429(kind, headers, said, wall))
        case 503:
            return Fault(FailureKind.SERVER_ERROR, detail, _retry_after(headers, said, wall))
        case 404:
            return _of_404(said, detail)
        case 400:
            return Fault(_of_400(path, said), detail)
        case 403 if _is_moderation(said):
            return Fault(FailureKind.REJECTED, detail)
        case _:
            return Fault(_of_any(status), detail)


def sentence(error: Mapping[str, Any] | None, otherwise: str) -> str:
    """Return what an error says, as one bounded line; `otherwise` where it says nothing."""
    message = error.get("message") if error else None
    text = " ".join(_BODY_IN_TEXT.sub("", _own_words(str(message)[:_LONGEST_TEXT])).split()) if message else ""
    return (text[:_LONGEST_DETAIL] + "…") if len(text) > _LONGEST_DETAIL else text or otherwise


def _own_words(text: str) -> str:
    """Return the upstream's words out of the gateway's about an error in a stream; never the account's id in them."""
    if _QUOTES not in text:
        return text
    found = _QUOTED_SENTENCE.search(text)
    return found[1] if found else _ACCOUNT.sub("", text)


def _quoted(error: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the upstream's own error out of the gateway's message about it, None where there is none to be read."""
    _, mark, text = str(error.get("message"))[:_LONGEST_TEXT].partition(_QUOTES)
    if not mark:
        return None
    for end in (len(text), text.rfind("}") + 1):  # sentences of the gateway's own may follow
        try:
            return error_in(parse_json(text[:end].encode("utf-8", "replace")))
        except ValueError:
            continue
    return None


def _of_any(status: int) -> FailureKind:
    if status in (401, 403):
        return FailureKind.UNAUTHORIZED
    if status == 402:
        return FailureKind.PAYMENT_REQUIRED
    if status in (408, 504):
        return FailureKind.TIMEOUT
    if status >= 500:
        return FailureKind.SERVER_ERROR
    return FailureKind.REJECTED if status >= 400 else FailureKind.NO_ANSWER


def _of_400(path: Path, error: Mapping[str, Any]) -> FailureKind:
    text = _text(error)
    if path is Path.LITELLM:
        # measured: without a database the gateway answers a wrong key so, and an unknown model likewise with 400
        if error.get("type") == "no_db_connection" or "No connected db" in text:
            return FailureKind.UNAUTHORIZED
        if "Invalid model name passed" in text:
            return FailureKind.SERVER_ERROR
    if "model_not_found" in text or "is not a valid model ID" in text:
        return FailureKind.MODEL_GONE
    return FailureKind.REJECTED


def _of_404(error: Mapping[str, Any], detail: str) -> Fault:
    text = _text(error)
    if "max_price" in text:
        return Fault(FailureKind.NOT_FREE, f"it would cost money ({detail})")
    if "data policy" in text or "privacy_restricted" in text:
        switch = "allow free models in the privacy settings of the OpenRouter account"
        return Fault(FailureKind.MODEL_GONE, f"the account's privacy settings exclude every endpoint of it: {switch}")
    if "free_variant_ended" in text:
        return Fault(FailureKind.MODEL_GONE, "its free variant has ended; a paid one is suggested and never asked")
    if "constraint_filtered" in text or "No endpoints found that support" in text:
        return Fault(FailureKind.MODEL_GONE, detail, fits=False)
    return Fault(FailureKind.MODEL_GONE, detail)


def _of_429(path: Path, error: Mapping[str, Any]) -> FailureKind:
    text = _text(error)
    if path is Path.LITELLM and ("all_deployments_in_cooldown" in text or "No deployments available" in text):
        return FailureKind.GATEWAY_COOLDOWN
    if "free-models-per-day" in text or "openrouter_free_tier_daily" in text:
        return FailureKind.DAY_CAP
    if "free-models-per-min" in text:
        return FailureKind.MINUTE_CAP
    pool = ("rate-limited upstream", "upstream_provider_shared_pool", "Provider returned error", "capacity_exhausted")
    return FailureKind.UPSTREAM_BUSY if any(each in text for each in pool) else FailureKind.RATE_LIMITED


def _is_moderation(error: Mapping[str, Any]) -> bool:
    text = _text(error)
    return "flagged" in text or "moderation" in text


def _text(error: Mapping[str, Any]) -> str:
    """Return everything in an error that signatures are looked for in."""
    metadata, availability = error.get("metadata"), error.get("availability")
    words = [error.get("message"), error.get("type"), error.get("code")]
    if isinstance(metadata, dict):
        words += [
            metadata.get("limit_source"),
            metadata.get("raw"),
            *([*metadata] if "flagged_input" in metadata else ()),
        ]
    if isinstance(availability, dict):
        words += [availability.get("code"), availability.get("constraint")]
    return " ".join(str(each)[:_LONGEST_TEXT] for each in words if each)


def _wait_of_429(kind: FailureKind, headers: Mapping[str, str], error: Mapping[str, Any], wall: float) -> float | None:
    if kind is FailureKind.DAY_CAP:
        # a Retry-After beside it is about a smaller limit; the day ends at 00:00 UTC, and never later
        midnight = MAX_RETRY_AFTER - wall % MAX_RETRY_AFTER
        named = _reset(headers, error, wall)
        return min(named, float(ceil(midnight))) if named is not None else float(ceil(midnight))
    if kind is FailureKind.MINUTE_CAP:
        named = _reset(headers, error, wall)
        if named is None:
            named = _retry_after(headers, error, wall)
        return MINUTE_SECONDS if named is None else min(named, MINUTE_SECONDS)
    return _retry_after(headers, error, wall)


def _retry_after(headers: Mapping[str, str], error: Mapping[str, Any], wall: float) -> float | None:
    """Return how many seconds to wait, as far as anything sane was said."""
    for prefix in _OF_PROVIDER:
        if (text := headers.get(f"{prefix}retry-after")) and (seconds := _sane(_delay(text, wall))) is not None:
            return seconds
    availability = error.get("availability")
    named = availability.get("retry_after") if isinstance(availability, dict) else None
    if named is not None and (seconds := _sane(_number(named))) is not None:
        return seconds
    if (seconds := _reset(headers, error, wall)) is not None:
        return seconds
    found = _AGAIN_IN_TEXT.search(str(error.get("message"))[:_LONGEST_TEXT])
    return _sane(_number(found[1])) if found else None


def _reset(headers: Mapping[str, str], error: Mapping[str, Any], wall: float) -> float | None:
    """Return seconds until the moment at which a limit is lifted, where the upstream names a sane one."""
    for reset in _resets(headers, error):
        # OpenRouter names the reset in milliseconds since the epoch
        if (number := _number(reset)) is not None and (seconds := _sane(number / 1000 - wall)) is not None:
            return seconds
    return None


def _resets(headers: Mapping[str, str], error: Mapping[str, Any]) -> Iterator[object]:
    for prefix in _OF_PROVIDER:
        yield headers.get(f"{prefix}x-ratelimit-reset")
    metadata = error.get("metadata")
    nested = metadata.get("headers") if isinstance(metadata, dict) else None
    if isinstance(nested, dict):
        yield from (value for name, value in nested.items() if str(name).lower() == "x-ratelimit-reset")
    if found := _RESET_IN_TEXT.search(str(error.get("message"))[:_LONGEST_TEXT]):
        yield found[1]


def _delay(text: str, wall: float) -> float | None:
    if (seconds := _number(text)) is not None:
        return seconds
    try:
        return parsedate_to_datetime(text).timestamp() - wall
    except (ValueError, OverflowError):
        return None


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None


def _sane(seconds: float | None) -> float | None:
    if seconds is None or not isfinite(seconds) or not 0 < seconds <= MAX_RETRY_AFTER:
        return None
    return float(ceil(seconds))
