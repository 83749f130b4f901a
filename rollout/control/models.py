"""Models that leave the live order and come back, and the watcher that takes them out.

Every one of these is idempotent: what is so already writes no entry. A model that is out stays in the cascade;
only `lift` brings it back, and only a person calls that.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from rollout.domain.actor import SYSTEM
from rollout.domain.cascade import Cascade, ListedModel, ModelOut, OutReason, compare
from rollout.domain.errors import NotFound
from rollout.domain.flag import Path
from rollout.domain.identity import MAX_REASON, check_cascade, check_reason
from rollout.domain.ledger import Action
from rollout.store.door import Door
from rollout.store.flags import put_model_out, read_cascade, remove_model_out

log = logging.getLogger(__name__)


def withdraw(door: Door, model: str, why: OutReason, detail: str, *, actor: str = SYSTEM) -> Cascade:
    """Take a model out of the live order because the upstream no longer offers it; one that is out stays as it is.

    Args:
        door: the database.
        model: which.
        why: `WITHDRAWN` or `NOT_FREE`.
        detail: a sentence that says more.
        actor: who.

    Raises:
        InvalidValue: that is no model id.
    """
    return _take_out(door, model, why, detail, Action.MODEL_WITHDRAW, actor)


def quarantine(door: Door, model: str, cost: float, path: Path, *, actor: str = SYSTEM) -> Cascade:
    """Take a model out because an answer of it cost money, on both paths; it outranks every other reason.

    Args:
        door: the database.
        model: which.
        cost: what the answer cost, in US dollars.
        path: which way it came.
        actor: who.

    Raises:
        InvalidValue: that is no model id.
    """
    detail = f"an answer through {path} cost ${_dollars(cost)}"
    return _take_out(door, model, OutReason.COST, detail, Action.MODEL_QUARANTINE, actor)


def lift(door: Door, model: str, *, actor: str, reason: str | None = None) -> Cascade:
    """Put a model back into the live order; one that is there already stays there.

    Raises:
        NotFound: no such model is out, nor in the cascade.
        InvalidValue: the reason cannot be stored.
    """
    reason = check_reason(reason)
    with door.writing() as writing:
        before = read_cascade(writing.connection)
        out = before.out.get(model)
        if out is None:
            if model not in before.models:
                raise NotFound(f"no model {model[:MAX_REASON]!r} is out, nor in the cascade; nothing was changed")
            return before
        writing.record(actor, Action.MODEL_LIFT, f"model:{model}", before=_document(out), after=None, reason=reason)
        remove_model_out(writing, model)
        return replace(before, out={name: each for name, each in before.out.items() if name != model})


def watch_models(
    door: Door, listed: Iterable[ListedModel], previous_missing: Collection[str] = (), *, allow_paid: bool = False
) -> frozenset[str]:
    """Take models out that the upstream's list no longer offers; nothing is written while all is well.

    Args:
        door: the database.
        listed: the list that was just read.
        previous_missing: what this returned for the list before.
        allow_paid: models may cost.

    Returns:
        The live models this list lacks, for the next call.
    """
    with door.reading() as connection:
        cascade = read_cascade(connection)
    found = compare(
        cascade.models, cascade.out, listed, door.clock(), missing_before=previous_missing, allow_paid=allow_paid
    )
    if found.doubt is not None and cascade.live:
        log.warning("%s, so nothing is taken out of the cascade; look at the upstream", found.doubt)
    for each in found.withdraw:
        withdraw(door, each.model, each.why, each.detail)
    return found.missing


def _take_out(door: Door, model: str, why: OutReason, detail: str, action: Action, actor: str) -> Cascade:
    (model,) = check_cascade([model], allow_paid=True)
    # it may quote an upstream; it stands in tables and on one line of the ledger
    detail = "".join(each if each.isprintable() else " " for each in detail)[:MAX_REASON]
    with door.writing() as writing:
        before = read_cascade(writing.connection)
        known = before.out.get(model)
        if known is not None and (why is not OutReason.COST or known.why is OutReason.COST):
            return before
        out = ModelOut(why, detail, writing.now)
        entry = writing.record(
            actor,
            action,
            f"model:{model}",
            before=None if known is None else _document(known),
            after=_document(out),
        )
        put_model_out(writing, model, out, entry.revision)
    # an alert: nothing else of the kind happens by itself
    log.error(
        "%s is out of the live order: %s. Only a person brings it back: rollout cascade lift %s", model, detail, model
    )
    return replace(before, out={**before.out, model: out})


def _document(out: ModelOut) -> dict[str, Any]:
    return {"why": str(out.why), "detail": out.detail}


def _dollars(cost: float) -> str:
    text = f"{cost:.12f}".rstrip("0").rstrip(".")
    return text if text not in {"0", "-0"} else f"{cost:g}"
