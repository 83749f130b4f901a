"""Errors as pages: what was not done, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rollout.domain import errors
from rollout.http.pages.render import plain, see, wants_fragment
from rollout.http.problems import Problem, status_of

_PAGES: Final = frozenset({"", "flags", "audit", "gateway", "connect", "sessions", "sign-in", "sign-out"})
_PROGRAMS: Final = frozenset({"api", "v1", "ofrep", "health", "livez", "readyz", "metrics", "static"})

_ADVICE: Final[Mapping[int, str]] = {
    400: "Go back, correct it, and send it again.",
    403: "Ask somebody with that role, or sign in with a link that carries it: rollout sign-in --role operator.",
    404: "Start from the flag's page.",
    405: "Start from the flag's page.",
    409: "Nothing was changed. Go back and look again.",
    412: "Nothing was changed. Load the page again and repeat what you wanted.",
    422: "Nothing was changed. Go back, correct it, and send it again.",
    503: (
        "Nothing was changed. To stop without the database, on the machine itself: create the kill file "
        "(touch data/kill), or start the process with FORCE_DIRECT_OPENROUTER=1."
    ),
}


def is_page(request: Request) -> bool:
    """Tell whether a request is for a page rather than for a program's route."""
    first = str(request.scope["path"]).lstrip("/").partition("/")[0]
    if first in _PROGRAMS:
        return False
    return first in _PAGES or "text/html" in request.headers.get("accept", "")


def page_error(request: Request, error: Exception) -> Response:
    """Answer any error of a page route: as a page, as a notice to htmx, or by the way to the sign-in."""
    if isinstance(error, errors.NotSignedIn):
        return _to_sign_in(request)
    status, title, detail = _said(error)
    stop = _is_stop(request)
    advice = _ADVICE.get(status, _ADVICE[400] if status < 500 else "The server's log says more.")
    if status == 404 and request.url.path.lstrip("/").partition("/")[0] not in _PAGES:
        advice += " Behind a proxy these pages need a host name of their own; they do not work below a path."
    if isinstance(error, errors.ForeignOrigin):
        advice = "Load the page again and repeat what you wanted. A proxy in front has to keep the Host header."
    values: dict[str, Any] = {"title": title, "detail": detail, "advice": advice, "stop": stop}
    if wants_fragment(request):
        headers = {"HX-Retarget": "#notice", "HX-Reswap": "innerHTML"}
        return plain(request, "problem.html", status=status, headers=headers, **values)
    return plain(request, "error.html", status=status, code=status, **values)


def _is_stop(request: Request) -> bool:
    """Tell whether this was the attempt to stop everything: whoever made it must read that nothing was stopped."""
    return request.method == "POST" and request.url.path.endswith("/kill")


def _said(error: Exception) -> tuple[int, str, str]:
    if isinstance(error, errors.RolloutError):
        return *status_of(error), error.message
    if isinstance(error, Problem):
        return error.status, error.title, error.detail
    if isinstance(error, HTTPException):
        titles = {404: "There is no such page", 405: "That page takes no such request"}
        return error.status_code, titles.get(error.status_code, "That request cannot be served"), ""
    if isinstance(error, RequestValidationError):
        fields = ", ".join(".".join(map(str, fault["loc"][1:])) for fault in error.errors())
        return 422, "That form cannot be read", f"These fields have the wrong shape: {fields}"
    return 500, "Something went wrong", "The server met an error it did not expect."


def _to_sign_in(request: Request) -> Response:
    if request.method in {"GET", "HEAD"} and not wants_fragment(request):
        query = request.scope["query_string"].decode("latin-1")
        where = request.scope["path"] + (f"?{query}" if query else "")
        return see(request, f"/sign-in?next={quote(where, safe='', errors='replace')}")
    if wants_fragment(request):  # the page stays as it is, with all that was typed into it
        headers = {"HX-Retarget": "#session", "HX-Reswap": "innerHTML"}
        acted = request.method != "GET"
        return plain(request, "session-over.html", status=401, headers=headers, acted=acted, stop=_is_stop(request))
    # a form: come back to the page it stood on
    where = quote(_path_of(request.headers.get("referer") or "/"), safe="", errors="replace")
    lost = "&lost=1" if request.method != "GET" else ""
    return see(request, f"/sign-in?next={where}{lost}")


def _path_of(address: str) -> str:
    try:
        return urlsplit(address).path or "/"
    except ValueError:
        return "/"
