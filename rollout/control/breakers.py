"""Reset breakers by hand: written down, so that every running server hears it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rollout.domain.cascade import Cascade
from rollout.domain.errors import InvalidValue
from rollout.domain.flag import Path
from rollout.domain.identity import check_cascade, check_reason
from rollout.domain.ledger import Action
from rollout.store.door import Door
from rollout.store.flags import read_cascade

QUOTA: Final = "quota"
"""What is named to forget the caps of the account."""

Reset = Callable[[str | None, int], Sequence[str]]
"""Resets what is named (None: everything) for the entry of that revision; answers what had to be reset."""


def reset_breakers(
    door: Door, which: str | None, *, actor: str, reason: str | None = None, reset: Reset | None = None
) -> list[str] | None:
    """Reset breakers and forget remembered caps, one or all.

    Args:
        door: the database.
        which: a path, a model, `path/model`, or `quota`; None for everything.
        actor: who.
        reason: why.
        reset: this process's own breakers; None where it has none, and only those of others are meant.

    Returns:
        What had to be reset here, None where this process has no breakers.

    Raises:
        InvalidValue: `which` names nothing that has a breaker, or the reason cannot be stored.
    """
    which, reason = check_which(which), check_reason(reason)
    with door.writing() as writing:
        # under the lock: whoever resets next sees this one's entry first
        done = None if reset is None else list(reset(which, writing.next_revision))
        if which is not None and not done:  # else there was one, also of a model that has left the cascade since
            _check_known(which, read_cascade(writing.connection))
        after = {"which": which, "reset": done}
        writing.record(actor, Action.BREAKERS_RESET, "breakers", before=None, after=after, reason=reason)
    return done


def check_which(which: str | None) -> str | None:
    """Return what is to be reset, None for everything.

    Raises:
        InvalidValue: nothing of that name could have a breaker.
    """
    if not which:
        return None
    if which == QUOTA or which in set(Path):
        return which
    for model in (which, *(which.removeprefix(f"{path}/") for path in Path)):
        try:
            check_cascade([model], allow_paid=True)
        except InvalidValue:
            continue
        return which
    raise _no_breaker(which)


def _check_known(which: str, cascade: Cascade) -> None:
    names = {QUOTA, *Path}
    for model in (*cascade.models, *cascade.out):
        names |= {model, *(f"{path}/{model}" for path in Path)}
    if which not in names:
        raise _no_breaker(which)


def _no_breaker(which: str) -> InvalidValue:
    return InvalidValue(
        f"{which[:200]!r} names no breaker: name a path (litellm, openrouter), a model of the cascade, path/model, "
        "or quota; leave it out for all",
        field="which",
    )
