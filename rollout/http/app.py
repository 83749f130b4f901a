"""Put the control plane together: FastAPI inside, the completions endpoint beside it, host check around both."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from rollout.domain.errors import RolloutError
from rollout.http import health, pages, problems
from rollout.http.api import access, audit, evaluation, flags, models
from rollout.http.auth import Viewer
from rollout.http.cors import allow_origins
from rollout.http.forwarded import Forwarded
from rollout.http.plane import Plane
from rollout.http.security import App, BrowserRules, HostCheck, Receive, Scope, Send, allowed_hosts
from rollout.resources import resource


def create_app(plane: Plane) -> FastAPI:
    """Make the control plane's application, without the layers that `assemble` puts around it."""
    app = FastAPI(
        title="rollout", version=health.VERSION, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.plane = plane
    for part in (flags, models, audit, evaluation, access, health):
        app.include_router(part.router)
    app.include_router(pages.router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=resource("static")), name="static")

    @app.get("/api/v1/openapi.json", include_in_schema=False)
    def openapi(_: Viewer) -> dict[str, object]:
        return app.openapi()

    handlers = {
        RolloutError: problems.answer_rollout_error,
        problems.Problem: problems.answer_problem,
        RequestValidationError: problems.answer_validation_error,
        HTTPException: problems.answer_http_exception,
        Exception: problems.answer_anything,
    }
    for kind, for_machines in handlers.items():

        async def answer(request: Request, error: Exception, machine: problems.Answer = for_machines) -> Response:
            return pages.page_error(request, error) if pages.is_page(request) else machine(request, error)

        app.add_exception_handler(kind, answer)
    return app


def assemble(plane: Plane, completions: App) -> App:
    """Return what the server serves: `/v1` goes straight to the completions endpoint, past FastAPI."""
    control = BrowserRules(create_app(plane), lambda secret: plane.token_of(secret) is not None)
    if plane.settings.cors_origins:
        completions = allow_origins(completions, plane.settings.cors_origins)

    async def route(scope: Scope, receive: Receive, send: Send) -> None:
        beside = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await (completions if beside else control)(scope, receive, send)

    checked = HostCheck(route, allowed_hosts(plane.settings))
    trusted = plane.settings.trusted_proxies
    return Forwarded(checked, trusted) if trusted else checked
