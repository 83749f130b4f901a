"""Health, for load balancers and people; no session needed and no secret told.

None of these calls LiteLLM's own `/health`, which sends a real completion per model and spends quota.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from rollout.client.holder import Holder
from rollout.domain.cascade import Cascade, OutReason, ends_soon
from rollout.domain.flag import MAIN_FLAG, Path
from rollout.domain.ledger import instant
from rollout.gateway.state import GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamState
from rollout.http.auth import ThePlane
from rollout.http.plane import Plane
from rollout.http.unwell import capped, costing, resting
from rollout.resilience.permit import BreakerLine
from rollout.resilience.quota import Cap, QuotaStatus

router = APIRouter(tags=["health"])


def _version() -> str:
    try:
        return version("llm-rollout")
    except PackageNotFoundError:
        return "unknown"


VERSION: Final = _version()


@router.get("/livez")
@router.head("/livez", include_in_schema=False)
async def live() -> dict[str, str]:
    """Say that the process runs."""
    return {"status": "ok"}


@router.get("/readyz")
@router.head("/readyz", include_in_schema=False)
async def ready(plane: ThePlane) -> JSONResponse:
    """Tell whether changes can be made: 503 while the database cannot be reached."""
    problem = plane.database_problem
    return JSONResponse(
        {"status": "ok"} if problem is None else {"status": "unready", "detail": problem}, 503 if problem else 200
    )


@router.get("/health")
async def health(plane: ThePlane) -> dict[str, Any]:
    """Say how all of it is; always 200, because requests are answered directly whatever is unwell here."""
    gateway, upstream = plane.gateway(), plane.upstream()
    problems = [*plane.preflight(), *_of_gate(plane), *plane.holder.problems]
    if plane.database_problem:
        problems.insert(0, plane.database_problem)
    published = plane.published
    return {
        "status": "ok" if not problems else "degraded",
        "problems": problems,
        "version": VERSION,
        "installation": published.installation,
        "revision": published.revision,
        "uptime_seconds": round(time.time() - plane.started_at, 1),
        "gateway": str(gateway.phase),
        "upstream": str(upstream.phase),
        "simulated": upstream.simulated,
        "killed": _killed(plane.holder),
    }


@router.get("/health/providers")
async def providers(plane: ThePlane) -> dict[str, Any]:
    """Say how the gateway, the upstream, each model of the cascade, the breakers and the quota are."""
    gateway, upstream = plane.gateway(), plane.upstream()
    cascade, status = plane.published.cascade, plane.gate.status() if plane.gate else None
    return {
        "gateway": gateway_document(gateway),
        "upstream": upstream_document(upstream),
        "models": {model: _model_word(model, cascade, upstream, plane.now()) for model in cascade.models},
        "quarantined": sorted(cascade.quarantined.union(status.quarantined if status else ())),
        "breakers": [_breaker_document(line) for line in status.breakers] if status else [],
        "quota": _quota_document(status.quota) if status else None,
        "retries_left": round(status.retries, 1) if status else None,
        "preflight": list(plane.preflight()),
    }


def gateway_document(state: GatewayState) -> dict[str, Any]:
    """Return the gateway's state as JSON."""
    document = asdict(state)
    document["phase"] = str(state.phase)
    document["log"] = str(state.log) if state.log else None
    return document


def upstream_document(state: UpstreamState) -> dict[str, Any]:
    """Return the upstream's state as JSON; of the models only how many are free."""
    return {
        "base_url": state.base_url,
        "simulated": state.simulated,
        "phase": str(state.phase),
        "detail": state.detail,
        "free_models": sum(model.free for model in state.models),
        "checked_at": state.checked_at,
    }


_OUT: Final = {OutReason.WITHDRAWN: "withdrawn", OutReason.NOT_FREE: "no longer free", OutReason.COST: "quarantined"}


def _model_word(model: str, cascade: Cascade, upstream: UpstreamState, now: datetime) -> str:
    if (out := cascade.out.get(model)) is not None:
        return _OUT[out.why]
    if upstream.phase is UpstreamPhase.UNKNOWN or not upstream.models:
        return "unknown"
    listed = next((known for known in upstream.models if known.id == model), None)
    if listed is None or not listed.free:
        return "not listed" if listed is None else "not free"
    last = ends_soon(listed, now)
    return f"free until {last}" if last else "free"


def _of_gate(plane: Plane) -> Iterator[str]:
    """Say what keeps requests from being answered and does not speak against raising the share."""
    quarantined = plane.published.cascade.quarantined
    if plane.gate is not None:
        status = plane.gate.status()
        quarantined = quarantined.union(status.quarantined)
        yield from resting(status, Path.OPENROUTER)
        yield from capped(status.quota, [Cap.MINUTE])
    yield from costing(quarantined)


def _breaker_document(line: BreakerLine) -> dict[str, Any]:
    status = line.status
    return {
        "path": str(line.path),
        "model": line.model,
        "state": str(status.state),
        "opens_in_seconds": None if status.opens_in is None else round(status.opens_in, 1),
        "failures": status.failures,
        "why": status.why,
    }


def _quota_document(quota: QuotaStatus) -> dict[str, Any]:
    return {
        **asdict(quota),
        "resets_at": _written(quota.resets_at),
        "blocked_until": None if quota.blocked_until is None else _written(quota.blocked_until),
    }


def _written(seconds: float) -> str:
    return instant(datetime.fromtimestamp(seconds, UTC))


def _killed(holder: Holder) -> bool:
    return holder.evaluate(MAIN_FLAG, None).cause == "kill_switch"
