"""A chat completion as an HTTP request and as its answer, with no server and no client around it. Pure.

The endpoint and the transports read the same requests and give the same answers, headers included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final, NamedTuple

from rollout.dispatch.asgi import JSON, Headers
from rollout.dispatch.decision import Decision
from rollout.dispatch.failures import FACES, http_status
from rollout.dispatch.parity import REWRITES_HEADER, STREAM_REWRITES
from rollout.dispatch.paths import NOT_THE_CALLERS
from rollout.dispatch.request import Request, checked_model, checked_stream, checked_user, unpacked
from rollout.dispatch.shape import check_shape
from rollout.domain.errors import InvalidRequest, SendingFailed
from rollout.domain.failure import AttemptRecord, FailureKind
from rollout.domain.flag import Path
from rollout.domain.identity import user_from_header
from rollout.wire.chat import dump_json, error_document, parse_json

STREAM_HEADERS: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))

# the OpenAI SDK sends a failed request three times by itself; retrying is our business
NO_RETRY: Final = (b"x-should-retry", b"false")

_REWRITES: Final = REWRITES_HEADER.lower().encode()
_STREAM_REWRITES: Final = (_REWRITES, ",".join(STREAM_REWRITES).encode())


class Refused(Exception):
    """A request that is answered with an error before anything is sent."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        headers: Headers | None = None,
        **more: str | None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or []
        self.document = error_document(message, kind=kind, **more)

    def reply(self) -> Reply:
        """Return it as an answer."""
        return Reply(self.status, [JSON, NO_RETRY, *self.headers], dump_json(self.document))


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


def read_document(content_type: bytes, raw: bytes) -> Any:
    """Return a request's body, parsed.

    Raises:
        Refused: it is not JSON in UTF-8, or does not say that it is.
    """
    checked_content_type(content_type)
    try:
        return parse_json(raw)
    except UnicodeDecodeError:
        raise Refused(400, "the body is not UTF-8; encode it so") from None
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}"[:300]) from None


def checked_content_type(content_type: bytes) -> None:
    """Check what a request says its body is.

    Raises:
        Refused: something else than JSON.
    """
    said = content_type.partition(b";")[0].strip().lower()
    if said != b"application/json":
        shown = said.decode("latin-1") or "nothing"
        raise Refused(415, f"the body must be application/json, not {shown!r:.100}; set the Content-Type header")


def asked(headers: Mapping[bytes, bytes], body: Any) -> Request:
    """Return what a request asks for, its body as it came; `headers` have lower-case names.

    Raises:
        Refused: it cannot be sent.
    """
    if not isinstance(body, dict):
        raise Refused(400, "the body must be an object with `messages`")
    try:
        body = unpacked(body)
        request = Request(body, checked_model(body.get("model")), checked_stream(body), _user(headers, body))
        check_shape(body)
    except InvalidRequest as error:
        raise refusal(error) from None
    return request


def _user(headers: Mapping[bytes, bytes], body: Mapping[str, Any]) -> str | None:
    given = headers.get(b"x-rollout-user")
    if given and (user := user_from_header(given)):  # one that says nothing does not beat the body
        return _checked(user, "X-Rollout-User")
    said = body.get("user")
    if said is None:
        return None
    if not isinstance(said, str):
        raise Refused(400, "`user` must be a text", param="user")
    return _checked(said, "user")


def _checked(user: str, name: str) -> str | None:
    try:
        return checked_user(user, field=name)
    except InvalidRequest as error:
        raise Refused(400, error.message, param="user") from None


def refusal(error: InvalidRequest) -> Refused:
    """Return an invalid request as an answer; what whoever runs this has to put right is no fault of the caller."""
    if error.field in NOT_THE_CALLERS:
        return Refused(503, error.message, kind="configuration_error", code="not_configured")
    return Refused(400, error.message, param=error.field)


def decided(decision: Decision) -> Headers:
    """Return the headers that say which way a request took."""
    headers = [
        (b"x-rollout-path", decision.path.encode()),
        (b"x-rollout-reason", decision.reason.encode()),
        (b"x-rollout-cause", decision.cause.encode()),
        (b"x-rollout-revision", b"%d" % decision.revision),
        (b"x-rollout-model", _one_line(decision.model)),
        (b"x-rollout-attempts", b"%d" % len(decision.attempts)),
    ]
    if decision.attempts:
        headers.append((b"x-rollout-attempt-log", _one_line(attempt_log(decision.attempts))))
    if decision.served_by is not None:
        headers.append((b"x-rollout-served-by", decision.served_by.encode()))
    if decision.bucket is not None:
        headers.append((b"x-rollout-bucket", b"%d" % decision.bucket))
    if decision.model_substituted:
        headers.append((b"x-rollout-model-substituted", b"true"))
    return headers


def stream_headers(decision: Decision, content_type: str) -> Headers:
    """Return the headers of a stream that is passed on as the bytes it came in."""
    headers = [*decided(decision), (b"content-type", content_type.encode("latin-1", "replace")), *STREAM_HEADERS]
    if decision.served_by is Path.LITELLM:
        headers.append(_STREAM_REWRITES)
    return headers


def plain_headers(decision: Decision, content_type: str, rewrites: Sequence[str]) -> Headers:
    """Return the headers of a plain answer; `rewrites` names what the gateway may have changed in it."""
    headers = [*decided(decision), (b"content-type", content_type.encode("latin-1", "replace") or JSON[1])]
    if rewrites:
        headers.append((_REWRITES, ",".join(rewrites).encode()))
    return headers


def failure_reply(error: SendingFailed, kind: FailureKind) -> Reply:
    """Return the answer for a request that nobody answered, in OpenAI's shape."""
    headers = [JSON, NO_RETRY]
    if isinstance(error.decision, Decision):
        headers += decided(error.decision)
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % ceil(error.retry_after)))
    document = error_document(error.message, kind=FACES[kind].kind, code=kind.value)
    return Reply(http_status(kind, error.status, sent=bool(error.attempts)), headers, dump_json(document))


def attempt_log(attempts: Sequence[AttemptRecord]) -> str:
    """Return attempts as one line: `litellm a/b:free timeout 20013ms; openrouter a/b:free ok 812ms`."""
    return "; ".join(f"{each.path} {each.model} {each.failure or 'ok'} {each.milliseconds:.0f}ms" for each in attempts)


def _one_line(text: str) -> bytes:
    # a model's name comes from people; a line break in it must not become a header of its own
    shown = text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
    return shown.encode("latin-1", "replace")
