"""The first start, and the cascade."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rollout.control.flags import flag_state
from rollout.domain.actor import SYSTEM
from rollout.domain.cascade import Cascade
from rollout.domain.errors import StaleChange
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT, Flag
from rollout.domain.identity import check_cascade, check_reason
from rollout.domain.ledger import Action
from rollout.store.door import Door
from rollout.store.flags import insert_flag, put_cascade, read_cascade
from rollout.store.installation import insert_installation


def establish(door: Door, *, new_id: Callable[[], str], salt: str | None = None) -> bool:
    """Make the installation and its flag, once, whoever comes first.

    Args:
        door: a migrated database.
        new_id: returns a fresh random id.
        salt: the salt of `enableLiteLLM`; the published constant where None.

    Returns:
        Whether this call made it.
    """
    with door.writing() as writing:
        if writing.installation is not None:
            return False
        identity = new_id()
        insert_installation(writing, identity)
        writing.record(SYSTEM, Action.INSTALLATION_CREATE, "installation", before=None, after={"id": identity})
        flag = Flag(
            MAIN_FLAG,
            salt or PUBLISHED_SALT,
            description="Send LLM requests through the LiteLLM gateway instead of directly to OpenRouter.",
            revision=writing.next_revision,
        )
        writing.record(SYSTEM, Action.FLAG_CREATE, f"flag:{flag.key}", before=None, after=flag_state(flag))
        insert_flag(writing, flag)
        return True


def set_cascade(
    door: Door,
    models: object,
    *,
    actor: str,
    reason: str | None = None,
    seen: int | None = None,
    allow_paid: bool = False,
) -> Cascade:
    """Set the ordered list of model ids. Models that are out stay out, wherever they stand in it.

    Args:
        door: the database.
        models: the ids, best first.
        actor: who.
        reason: why.
        seen: the cascade's revision the caller looked at; None changes whatever is there.
        allow_paid: take models that are not free.

    Raises:
        InvalidValue: the list is empty, too long, or holds something that is no model id or not free.
        StaleChange: the cascade was changed after revision `seen`.
    """
    wanted, reason = check_cascade(models, allow_paid=allow_paid), check_reason(reason)
    with door.writing() as writing:
        before = read_cascade(writing.connection)
        if seen is not None and seen != before.revision:
            raise StaleChange(
                f"the cascade was changed meanwhile: you looked at revision {seen}, it is at {before.revision}. "
                "Nothing was changed; look at it again.",
                current=before,
                seen=seen,
                now=before.revision,
            )
        if before.models == wanted:
            return before
        entry = writing.record(
            actor,
            Action.CASCADE_SET,
            "cascade",
            before={"models": list(before.models)} if before.models else None,
            after={"models": list(wanted)},
            reason=reason,
        )
        put_cascade(writing, wanted, entry.revision)
        return replace(before, models=wanted, revision=entry.revision)
