"""What clients follow, and what a user would get."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse

from rollout.domain.errors import InvalidRequest, NotFound
from rollout.domain.evaluate import Cause, Evaluation
from rollout.domain.flag import MAIN_FLAG
from rollout.domain.share import percentage_of
from rollout.http.api.body import JsonRoute
from rollout.http.api.documents import EvaluateBody
from rollout.http.api.etag import matches
from rollout.http.auth import Evaluator, ThePlane
from rollout.http.plane import Plane
from rollout.wire.documents import evaluation_document, targeting_key

router = APIRouter(prefix="/api/v1", tags=["evaluation"], route_class=JsonRoute)


@router.get("/snapshot")
async def snapshot(plane: ThePlane, _: Evaluator, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """Answer all flags of one moment; 304 where the client has them already."""
    published = plane.published
    headers = {"ETag": published.etag, "Cache-Control": "private, no-cache"}
    if matches(if_none_match, published.etag):
        return Response(status_code=304, headers=headers)
    return Response(published.snapshot, media_type="application/json", headers=headers)


@router.post("/evaluate")
async def evaluate(body: EvaluateBody, plane: ThePlane, _: Evaluator) -> Response:
    """Explain what a user gets in this process, its environment included."""
    return JSONResponse(
        evaluation_document(_evaluate(plane, body.flag, targeting_key(body.context.get("targetingKey"))))
    )


@router.get("/feature-flags")
async def feature_flags(plane: ThePlane, _: Evaluator, request: Request) -> dict[str, Any]:
    """Answer in the plan's own names."""
    users = request.query_params.getlist("user")
    if len(users) > 1:
        raise InvalidRequest("name one user", field="user")
    evaluation = _evaluate(plane, MAIN_FLAG, targeting_key(users[0] if users else None))
    return {"enableLiteLLM": evaluation.value, "litellmRolloutPercentage": percentage_of(evaluation.share)}


def _evaluate(plane: Plane, flag: str, key: str | None) -> Evaluation:
    evaluation = plane.holder.evaluate(flag, key)
    if evaluation.cause is Cause.UNKNOWN_FLAG:
        raise NotFound(f"there is no flag {flag[:80]!r}")
    return evaluation
