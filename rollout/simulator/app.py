"""The simulated upstream as a Starlette application."""

import json

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from rollout.simulator import refusals
from rollout.simulator.completions import Completions, authorization_problem
from rollout.simulator.control import Control
from rollout.simulator.refusals import Refusal
from rollout.simulator.world import World

BASE_PATH = "/api/v1"


def create_app(world: World) -> Starlette:
    """Build the application: the upstream's routes under `/api/v1`, the control routes under `/simulator`."""

    async def models(request: Request) -> Response:  # noqa: ARG001 - a Starlette route takes it
        world.record.lookups["models"] += 1
        return Response(world.catalogue.listing(), media_type="application/json")

    async def model(request: Request) -> Response:
        world.record.lookups["model"] += 1
        model_id = f"{request.path_params['author']}/{request.path_params['slug']}"
        found = world.catalogue.find(model_id)
        if found is None:
            return _refuse(refusals.not_found(f"Model {model_id} not found"))
        return Response(json.dumps({"data": found.document()}), media_type="application/json")

    async def key(request: Request) -> Response:
        world.record.lookups["key"] += 1
        refusal = authorization_problem(request.headers.get("authorization", ""))
        if refusal is not None:
            return _refuse(refusal)
        return Response(json.dumps({"data": world.account.key_document()}), media_type="application/json")

    upstream = [
        Route("/chat/completions", Completions(world), methods=["POST"]),
        Route("/models", models),
        Route("/model/{author}/{slug}", model),
        Route("/key", key),
    ]
    return Starlette(
        routes=[Mount(BASE_PATH, routes=upstream), Mount("/simulator", routes=Control(world).routes())],
        exception_handlers={HTTPException: _no_such_route},
    )


def _refuse(refusal: Refusal) -> Response:
    return Response(refusal.body(), refusal.status, dict(refusal.headers), "application/json")


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    message = f"{request.method} {request.url.path} is no route here"
    return _refuse(Refusal(status, refusals.not_found(message).document))
