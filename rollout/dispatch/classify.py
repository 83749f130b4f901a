"""An HTTP answer as a success or a failure kind. Pure.

| answer | kind |
|---|---|
| the gateway's own code failed on an answer that others can read | gateway_error |
| a provider, a region, a limit of the model, the routing of this request | model_refused: another model may answer |
| moderation, a guardrail of the account | rejected |
| 401, 403; the gateway's 400 for a wrong key | unauthorized: our key, never the caller's |
| 402 | payment_required |
| 404, 400 for a model that does not exist; a privacy switch | model_gone; a suggested paid model is never taken |
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

Structure comes first (`metadata.provider_name`, `raw`, `error_type`, `failed_routing_step`, `availability.code`), known
phrases second. The gateway passes an upstream's error on as text inside its own message (`quoting`), and the upstream's
headers with the prefix `llm_provider-`; both are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from math import ceil, isfinite
from typing import Any, Final, NamedTuple

from rollout.dispatch.quoting import is_own_code, upstreams_error
from rollout.dispatch.words import LONGEST_TEXT, QUOTES, sentence
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path
from rollout.wire.chat import error_in, is_completion, parse_json
from rollout.wire.sse import BOM

MAX_RETRY_AFTER: Final = 86_400.0
"""Seconds; the longest wait that makes sense is until the next day's quota."""

MINUTE_SECONDS: Final = 60.0

_OF_PROVIDER: Final = ("", "llm_provider-")
_RESET_IN_TEXT: Final = re.compile(r"x-ratelimit-reset\W{1,8}(\d{10,16})", re.IGNORECASE)
_AGAIN_IN_TEXT: Final = re.compile(r"try again in (\d{1,6}(?:\.\d+)?) ?s", re.IGNORECASE)

_PER_MODEL: Final = frozenset(
    {
        "context_length_exceeded",
        "max_tokens_exceeded",
        "string_too_long",
        "image_too_large",
        "image_too_small",
        "unsupported_image_format",
    }
)
"""Values of OpenRouter's `error_type` that tell of a limit of one model or its provider."""

_OF_CONTENT: Final = frozenset({"content_policy_violation", "refusal"})
_TOO_LONG: Final = re.compile(
    r"context[ _](?:length|window|size)|(?:prompt|input|messages?|request) (?:is |are )?too (?:long|large)"
    r"|reduce (?:the|your) (?:length|prompt|input)|too many (?:\w+ )?tokens"
    r"|max(?:imum)?[ _](?:\w+[ _])?tokens.{0,60}?(?:too (?:large|high)|exceed|at most|support)"
    r"|(?:tokens?|length|prompt|input)\b.{0,60}?\bexceed.{0,60}?\b(?:limit|max|supported|allowed)"
    r"|tokens?\b.{0,60}?(?:must|should) (?:be|not).{0,20}?(?:<|less|fewer|at most|below|exceed|over)"
    r"|supports? (?:at most|up to|a maximum)",
    re.IGNORECASE,
)
_CANNOT: Final = re.compile(
    r"no endpoints found (?:that (?:support|can)|for the request)|no allowed providers"
    r"|(?:does not|doesn't|do not|don't|cannot|can't|not) (?:\w+ )?support|not supported|unsupported"
    r"|not enabled for|is mandatory for|only available|not available (?:on|for|with)|(?:is|are) unavailable"
    r"|provider returned error",
    re.IGNORECASE,
)
_ELSEWHERE: Final = re.compile(
    r"\b(?:your|this|the|user'?s?) (?:country|region|location|territory)\b|country, region|unsupported_country"
    r"|\bregion\w*.{0,40}(?:restrict|block|unavailable|not (?:available|supported|allowed))|regionerror"
    r"|\bgeo(?:\w*[ -]?(?:restrict|block|fenc)|graph|location)|not available in\b|\blegal reasons\b",
    re.IGNORECASE,
)
_OF_MODEL: Final = re.compile(r"\b(?:models?|providers?)\b", re.IGNORECASE)
_OF_KEY: Final = re.compile(r"\b(?:api[ _-]?)?keys?\b|credential|authenti", re.IGNORECASE)


class Fault(NamedTuple):
    """Why an answer is none.

    `detail` is for people; `retry_after` in seconds if the upstream named a time. `fits` is false if this one request
    alone brings it about, which speaks neither against the model nor against the path. `cut` is true if the connection
    was cut, false if an error was told. `of_gateway` is true if the gateway's own code failed in mid-stream.
    """

    kind: FailureKind
    detail: str
    retry_after: float | None = None
    fits: bool = True
    cut: bool = False
    of_gateway: bool = False

    def blames(self, path: Path) -> FailureKind:
        """Return what it speaks against, as a kind for the gate."""
        if not self.fits:
            return FailureKind.REJECTED  # this request alone
        if self.cut and path is Path.LITELLM:
            return FailureKind.UNREACHABLE  # the gateway tells what fails behind it: its own process hung up or died
        return FailureKind.GATEWAY_ERROR if self.of_gateway else self.kind


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
        document = parse_json(body.removeprefix(BOM))
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
    said = _of_upstream(path, error) or error
    if (status := _code(said) or _code(error)) is not None:
        return of_status(path, status, headers, error, wall=wall)
    detail = sentence(said, "an error inside HTTP 200")
    return Fault(FailureKind.MODEL_REFUSED if _is_per_model(said) else FailureKind.NO_ANSWER, detail)


def interrupted(path: Path, error: Mapping[str, Any]) -> Fault:
    """Judge an error that a stream tells after the caller got something."""
    said = _of_upstream(path, error) or error
    ours = path is Path.LITELLM and said is error and is_own_code(error)
    detail = sentence(said, "an error in the middle of a stream")
    return Fault(FailureKind.INTERRUPTED, _of_own_code(detail) if ours else detail, of_gateway=ours)


def of_status(
    path: Path, status: int, headers: Mapping[str, str], error: Mapping[str, Any] | None, *, wall: float
) -> Fault:
    """Judge an answer by its status and the error it carries."""
    said = error or {}
    if (quoted := _of_upstream(path, said)) is not None:
        status, said = _code(quoted) or status, {**said, **quoted}
    elif path is Path.LITELLM and (fault := _of_gateway(status, said)) is not None:
        return fault
    detail = sentence(said, f"HTTP {status}")
    match status:
        case 429:
            kind = _of_429(path, said)
            return Fault(kind, detail, _wait_of_429(kind, headers, said, wall))
        case _ if status not in (401, 402) and _is_per_model(said):
            return Fault(FailureKind.MODEL_REFUSED, detail)
        case 503:
            return Fault(FailureKind.SERVER_ERROR, detail, _retry_after(headers, said, wall))
        case _ if 400 <= status < 500 and status != 408:
            return _of_refusal(status, said, detail)
        case _:
            return Fault(_of_any(status), detail)


def _of_upstream(path: Path, error: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return upstreams_error(error) if path is Path.LITELLM else None


def _of_own_code(detail: str) -> str:
    return f"the gateway's own code failed on the answer ({detail})"


def _code(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that an error names as its code, None if it names none."""
    try:
        status = int(error.get("code") or 0)
    except (TypeError, ValueError, OverflowError):
        return None
    return status if 400 <= status <= 599 else None


def _of_gateway(status: int, error: Mapping[str, Any]) -> Fault | None:
    """Judge an error that is the gateway's own; None if it may be the upstream's in other words."""
    detail, text = sentence(error, f"HTTP {status}"), _text(error)
    if status == 400:
        # measured: without a database the gateway answers a wrong key so, and an unknown model likewise with 400
        if error.get("type") == "no_db_connection" or "No connected db" in text:
            return Fault(FailureKind.UNAUTHORIZED, detail)
        if "Invalid model name passed" in text or "no healthy deployments" in text:
            return Fault(FailureKind.SERVER_ERROR, detail)
    if is_own_code(error):
        return Fault(FailureKind.GATEWAY_ERROR, _of_own_code(detail))
    if "UnsupportedParamsError" in text:  # it would have had to pass the field on
        return Fault(FailureKind.GATEWAY_ERROR, detail, fits=False)
    if status == 400 and QUOTES.search(text) and not _is_per_model(error) and not _speaks_of_model(400, error):
        # it says so of any error without a code in a good answer: the direct path will tell whose fault it is
        return Fault(FailureKind.NO_ANSWER, detail, fits=False)
    return None


def _of_refusal(status: int, error: Mapping[str, Any], detail: str) -> Fault:
    """Judge a 4xx that is neither a time-out nor a limit of use."""
    if _is_of_content(error):
        return Fault(FailureKind.REJECTED, detail)
    text = _text(error)
    if status == 404 and re.search(r"\bmax[ _]price\b", text, re.IGNORECASE):
        return Fault(FailureKind.NOT_FREE, f"it would cost money ({detail})")
    if any(each in text for each in ("data policy", "privacy_restricted", "Filter by Guardrails")):
        switch = "allow free models in the privacy settings of the OpenRouter account"
        return Fault(FailureKind.MODEL_GONE, f"the account's privacy settings exclude every endpoint of it: {switch}")
    if "free_variant_ended" in text:
        return Fault(FailureKind.MODEL_GONE, "its free variant has ended; a paid one is suggested and never asked")
    if "model_not_found" in text or "is not a valid model ID" in text:
        return Fault(FailureKind.MODEL_GONE, detail)
    if _speaks_of_model(status, error):
        return Fault(FailureKind.MODEL_REFUSED, detail)
    return Fault(FailureKind.MODEL_GONE if status == 404 else _of_any(status), detail)


def _speaks_of_model(status: int, error: Mapping[str, Any]) -> bool:
    """Tell whether a 4xx speaks of a provider, a region, a limit of the model, or of how this request is routed."""
    metadata = _metadata(error)
    if metadata.get("provider_name") or metadata.get("raw") is not None:
        return True
    if status in (401, 402):
        return False  # our key and our account
    if any(
        metadata.get(name) for name in ("failed_routing_step", "routing_funnel", "previous_errors", "provider_code")
    ):
        return True
    text = _text(error)
    if "constraint_filtered" in text or "wrong_endpoint" in text or _ELSEWHERE.search(text):
        return True
    if status == 403:
        if _OF_KEY.search(text):
            return False
        if _OF_MODEL.search(text) or "guardrail" in text.lower():
            return True
    return status == 451 or _CANNOT.search(text) is not None  # 451: forbidden by the law of some place


def _is_per_model(error: Mapping[str, Any]) -> bool:
    """Tell whether an error, of whatever status, tells of a limit of the one model that was asked."""
    return _metadata(error).get("error_type") in _PER_MODEL or _TOO_LONG.search(_text(error)) is not None


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


def _is_of_content(error: Mapping[str, Any]) -> bool:
    """Tell whether an error is about what was said: moderation, a guardrail of the account, the router's own wall."""
    text, metadata = _text(error).lower(), _metadata(error)
    if "patterns" in metadata or metadata.get("error_type") in _OF_CONTENT:
        return True
    return any(each in text for each in ("flagged", "moderation", "request blocked", "by security policy"))


def _metadata(error: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = error.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}


def _text(error: Mapping[str, Any]) -> str:
    """Return everything in an error that signatures are looked for in."""
    metadata, availability = _metadata(error), error.get("availability")
    words = [error.get("message"), error.get("type"), error.get("code")]
    words += [metadata.get("limit_source"), metadata.get("raw"), metadata.get("failed_routing_step")]
    if "flagged_input" in metadata:
        words.append("flagged_input")
    if isinstance(availability, dict):
        words += [availability.get("code"), availability.get("constraint")]
    return " ".join(str(each)[:LONGEST_TEXT] for each in words if each)


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
    found = _AGAIN_IN_TEXT.search(str(error.get("message"))[:LONGEST_TEXT])
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
    if found := _RESET_IN_TEXT.search(str(error.get("message"))[:LONGEST_TEXT]):
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
