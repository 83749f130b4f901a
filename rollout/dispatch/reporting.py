"""Say what happened to a request, once it is over: one line in the log, and a value to whoever observes.

The line carries no text of prompts and answers, and of the user nothing but the bucket.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from rollout.dispatch.completions import attempt_log
from rollout.dispatch.decision import Exchange, Observe
from rollout.domain.failure import AttemptRecord
from rollout.domain.flag import Path

log: Final = logging.getLogger(__name__)
requests_log: Final = logging.getLogger("rollout.requests")

OnCost = Callable[[str, float, Path], object]
"""Is told that an answer of a model cost money: the model's id, US dollars, the path."""


def is_wanted(observe: Observe | None) -> bool:
    """Tell whether anybody wants to hear of a request."""
    return observe is not None or requests_log.isEnabledFor(logging.INFO)


def report(observe: Observe | None, exchange: Exchange) -> None:
    """Log what happened, and hand it to an observer; an observer that fails hurts nobody but itself."""
    if requests_log.isEnabledFor(logging.INFO):
        _write(exchange)
    if observe is None:
        return
    try:
        observe(exchange)
    except Exception:
        log.exception("an observer of exchanges failed; the request itself is not affected")


def report_cost(on_cost: OnCost | None, model: str, cost: float, path: Path) -> None:
    """Say loudly that an answer cost money."""
    log.critical(
        "an answer of %r on %s cost $%g; the model is not asked again until a person lifts its quarantine",
        model,
        path,
        cost,
        extra={"event": "answer_cost_money", "model": model, "cost": cost, "path": str(path)},
    )
    if on_cost is None:
        return
    try:
        on_cost(model, cost, path)
    except Exception:
        log.exception("whoever is told of costs failed; the request itself is not affected")


def _write(exchange: Exchange) -> None:
    decision = exchange.decision
    outcome = exchange.failure or "ok"
    tried = attempt_log(decision.attempts) or "nothing was sent"
    requests_log.info(
        "%s %s in %.0f ms (%s)",
        decision.path,
        outcome,
        exchange.seconds * 1000,
        tried,
        extra={
            "request_id": exchange.request_id,
            "path": str(decision.path),
            "served_by": _text(decision.served_by),
            "rescued_from": _text(decision.rescued_from),
            "model": decision.model,
            "model_substituted": decision.model_substituted,
            "reason": str(decision.reason),
            "cause": str(decision.cause),
            "bucket": decision.bucket,
            "revision": decision.revision,
            "stream": exchange.stream,
            "wrapped": exchange.wrapped,
            "failure": _text(exchange.failure),
            "status": exchange.status,
            "milliseconds": round(exchange.seconds * 1000, 1),
            "attempts": [_attempt(each) for each in decision.attempts],
        },
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _attempt(record: AttemptRecord) -> dict[str, Any]:
    """Return an attempt as the log shows it; not its detail, in which an upstream may quote what it was asked."""
    first = record.first_token_milliseconds
    return {
        "path": str(record.path),
        "model": record.model,
        "served_model": record.served_model,
        "status": record.status,
        "failure": _text(record.failure),
        "milliseconds": round(record.milliseconds, 1),
        "first_token_milliseconds": None if first is None else round(first, 1),
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cost": record.cost,
        "overhead_milliseconds": record.overhead_milliseconds,
        "quota_used": record.quota_used,
    }
