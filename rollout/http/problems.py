"""Errors over HTTP: one table from the error tree to a status, and RFC 9457 documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from rollout.domain import errors
from rollout.domain.cascade import Cascade
from rollout.domain.flag import Flag
from rollout.wire.documents import cascade_document
from rollout.wire.snapshot import flag_document

STATUS: Final[tuple[tuple[type[errors.RolloutError], int, str], ...]] = (
    (errors.InvalidValue, 422, "That value cannot be stored"),
    (errors.InvalidRequest, 400, "That request cannot be read"),
    (errors.NotFound, 404, "There is no such thing"),
    (errors.StaleChange, 412, "It changed meanwhile"),
    (errors.PreflightFailed, 409, "The preflight speaks against it"),
    (errors.ChangeRefused, 409, "The change was refused"),
    (errors.NotSignedIn, 401, "Sign in first"),
    (errors.ForeignOrigin, 403, "That did not come from these pages"),
    (errors.NotAllowed, 403, "Your role does not reach that far"),
    (errors.StoreFailed, 503, "The database cannot be used"),
    (errors.RolloutError, 500, "Something went wrong"),
)
"""The first row whose class fits decides."""


_SHOWN: Final = 120
_FAULTS: Final = 20
_WORDS: Final = {
    "extra_forbidden": "there is no such field",
    "missing": "this field is needed",
    "string_unicode": "it holds half a surrogate pair",
    "model_attributes_type": "it has to be a JSON object",
}

Answer = Callable[[Request, Exception], Response]


class Problem(Exception):
    """A refusal that belongs to HTTP itself, such as a missing If-Match."""

    def __init__(self, status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.headers = status, title, detail, headers or {}


def status_of(error: errors.RolloutError) -> tuple[int, str]:
    """Return an error's HTTP status and title."""
    return next((status, title) for kind, status, title in STATUS if isinstance(error, kind))


class _ProblemJson(JSONResponse):
    """ASCII, because a problem quotes what came in, and half a surrogate pair cannot be written as UTF-8."""

    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        """Write the document."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def problem_response(
    status: int, title: str, detail: str, *, headers: dict[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Return an `application/problem+json` answer."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return _ProblemJson(body, status, headers)


def current_document(current: object) -> object:
    """Return the state a stale change ran into, as the API shows it."""
    if isinstance(current, Flag):
        return flag_document(current)
    if isinstance(current, Cascade):
        return cascade_document(current)
    return None


def answer_rollout_error(_request: Request, error: Exception) -> Response:
    """Answer an error of our own tree."""
    assert isinstance(error, errors.RolloutError)  # noqa: S101 - registered for this class alone
    return error_response(error)


def error_response(error: errors.RolloutError, **more: Any) -> Response:
    """Return an error of our own tree as a document, with members of its own beside the standard ones."""
    status, title = status_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, errors.StaleChange):
        more |= {"current": current_document(error.current), "seen": error.seen, "now": error.now}
        headers["ETag"] = f'"{error.now}"'
    elif isinstance(error, errors.PreflightFailed):
        more |= {"problems": list(error.problems)}
    elif isinstance(error, errors.NotSignedIn):
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, errors.InvalidRequest) and error.field:
        more |= {"field": error.field}
    return problem_response(status, title, error.message, headers=headers, **more)


def answer_problem(_request: Request, error: Exception) -> Response:
    """Answer a refusal of HTTP's own."""
    assert isinstance(error, Problem)  # noqa: S101 - registered for this class alone
    return problem_response(error.status, error.title, error.detail, headers=error.headers)


def answer_http_exception(_request: Request, error: Exception) -> Response:
    """Answer what the router itself refuses: unknown routes and methods."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    titles = {404: "There is no such route", 405: "That method is not for this route"}
    title = titles.get(error.status_code, "That request cannot be served")
    details = {
        404: "GET /api/v1/openapi.json lists the routes; they need a host name of their own, none works below a path",
        405: "the Allow header names those that are",
    }
    detail = details.get(error.status_code, str(error.detail))
    return problem_response(error.status_code, title, detail, headers=dict(error.headers or {}))


def answer_validation_error(_request: Request, error: Exception) -> Response:
    """Answer a body or parameter of the wrong shape, every fault at once and no value echoed."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    faults = [
        {
            "field": ".".join(map(str, fault["loc"][1:]))[:_SHOWN],
            "message": _WORDS.get(fault["type"], fault["msg"].removeprefix("Value error, ")),
        }
        for fault in error.errors()[:_FAULTS]
    ]
    detail = "; ".join(f"{fault['field'] or 'body'}: {fault['message']}" for fault in faults)
    return problem_response(422, "That request has the wrong shape", f"{detail}. Nothing was changed.", errors=faults)


def answer_anything(_request: Request, _error: Exception) -> Response:
    """Answer a fault of ours; what it was stands in the log alone, because it may quote anything."""
    return problem_response(500, "Something went wrong", "the server met an error it did not expect; its log says more")
