"""Templates to answers: whole pages, and the fragments htmx asks for.

A template whose name begins with an underscore is a fragment. Its first line names the route that answers it,
and a request without htmx to that route gets a whole page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from rollout.domain.flag import MAIN_FLAG
from rollout.domain.roles import Role
from rollout.domain.sentences import field_changes
from rollout.domain.share import percentage_of
from rollout.http.auth import Caller
from rollout.http.pages import words
from rollout.http.pages.notices import notices
from rollout.http.pages.views import flag_view
from rollout.http.plane import Plane
from rollout.resources import resource

HTMX_SHA256: Final = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
"""Of htmx 2.0.11 as published; browsers refuse any other file."""

_TICKED: Final = re.compile(r"`([^`]+)`")


def wants_fragment(request: Request) -> bool:
    """Tell whether htmx asks for a piece of the page rather than a browser for the whole."""
    return request.headers.get("hx-request") == "true"


def page(
    request: Request,
    plane: Plane,
    caller: Caller,
    template: str,
    *,
    status: int = 200,
    **values: Any,
) -> Response:
    """Answer a whole page."""
    return _html(_environment().get_template(template).render(_frame(request, plane, caller, values)), status)


def fragment(
    request: Request,
    plane: Plane,
    caller: Caller,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """Answer a piece of a page; nothing (204) where the asking page shows exactly that already."""
    context = {**_bare(request, plane, caller), **values}
    text, digest = _twice(_environment(), template, context)
    # a page that outlives its session takes the next session's token from here: nothing typed in it is lost
    token = {"X-CSRF-Token": caller.csrf} if caller.csrf else {}
    if digest == request.query_params.get("shown"):
        return unchanged(token)
    return _html(text, status, {**token, **(headers or {})})


def plain(
    request: Request, template: str, *, status: int, headers: Mapping[str, str] | None = None, **values: Any
) -> Response:
    """Answer a page for somebody who may not be signed in."""
    return _html(_environment().get_template(template).render(request=request, **values), status, headers)


def unchanged(headers: Mapping[str, str] | None = None) -> Response:
    """Answer that there is nothing new to show."""
    return Response(status_code=204, headers={"Vary": "HX-Request", **(headers or {})})


def see(request: Request, where: str) -> Response:
    """Send the browser to another page after a form; 303, so that a reload repeats nothing."""
    if wants_fragment(request):
        return Response(status_code=204, headers={"HX-Redirect": where, "Vary": "HX-Request"})
    return Response(status_code=303, headers={"Location": where, "Vary": "HX-Request"})


def _html(text: str, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return HTMLResponse(text, status, {"Vary": "HX-Request", **(headers or {})})


def _bare(request: Request, plane: Plane, caller: Caller) -> dict[str, Any]:
    return {
        "request": request,
        "caller": caller,
        "now": plane.now(),
        "kill_file": plane.settings.kill_file.absolute(),
        "may_change": caller.may(Role.OPERATOR),
        "may_admin": caller.may(Role.ADMIN),
    }


def _frame(request: Request, plane: Plane, caller: Caller, values: Mapping[str, Any]) -> dict[str, Any]:
    frame = _bare(request, plane, caller) | {"notices": notices(plane)}
    if "view" not in values:
        with plane.door.reading() as connection:
            frame["view"] = flag_view(connection, plane, MAIN_FLAG)
    return frame | dict(values)


def _twice(environment: Environment, template: str, context: Mapping[str, Any]) -> tuple[str, str]:
    """Render a fragment that carries its own digest, so that polling it can say what is shown already."""
    found = environment.get_template(template)
    digest = hashlib.sha256(found.render({**context, "shown": ""}).encode()).hexdigest()[:16]
    return found.render({**context, "shown": digest}), digest


@pass_context
def _live(context: Context, template: str) -> Markup:
    """Put a fragment that polls into a page."""
    text, _ = _twice(context.environment, template, context.get_all())
    return Markup(text)  # noqa: S704 - rendered with autoescape just now


def _coded(text: str) -> Markup:
    """Set what a message has between backticks as code."""
    return Markup(_TICKED.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped just now


def _static(name: str) -> str:
    """Return a static file's address; it changes with the content, so that no browser shows an old one."""
    digest = hashlib.sha256((resource("static") / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(resource("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "number": percentage_of,
        "relative": words.relative,
        "lasting": words.lasting,
        "exact": words.exact,
        "sentence": words.told,
        "changes": field_changes,
        "joins_at": words.joins_at,
        "count": words.count,
        "ended": words.ended,
        "full": words.full,
        "kind_in_words": words.kind_in_words,
        "coded": _coded,
    }
    environment.globals |= {
        "live": _live,
        "static": {path.name: _static(path.name) for path in resource("static").iterdir() if path.is_file()},
        "htmx_integrity": "sha256-" + base64.b64encode(bytes.fromhex(HTMX_SHA256)).decode(),
    }
    return environment
