"""Change flags and overrides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from rollout.domain.errors import InvalidValue, NotFound, PreflightFailed, StaleChange
from rollout.domain.flag import Flag, Override, Variant
from rollout.domain.identity import check_description, check_reason, check_user_id, user_id
from rollout.domain.ledger import Action, Personal, instant
from rollout.store.door import Door, Writing
from rollout.store.flags import (
    forced_users,
    put_overrides,
    read_flag_alone,
    read_overrides,
    remove_overrides,
    update_flag,
)

_AT_ONCE: Final = 1_000
"""So many overrides are read and written in one go."""

Preflight = Callable[[], Sequence[str]]
"""Asked only when a share is about to rise; answers sentences about what is in the way, none where all is well."""


@dataclass(frozen=True, slots=True)
class FlagChange:
    """Fields to change; None leaves a field as it is. `share` is in parts per 100,000."""

    enabled: bool | None = None
    share: int | None = None
    description: str | None = None


def change_flag(
    door: Door,
    key: str,
    change: FlagChange,
    *,
    actor: str,
    reason: str | None = None,
    seen: int | None = None,
    preflight: Preflight = tuple,
) -> Flag:
    """Change a flag's fields in one entry; a change that changes nothing writes none.

    Args:
        door: the database.
        key: which flag.
        change: the fields.
        actor: who.
        reason: why.
        seen: the flag's revision the caller looked at; None changes whatever is there.
        preflight: asked when more users than now would go through the gateway.

    Raises:
        NotFound: there is no such flag.
        StaleChange: the flag was changed after revision `seen`.
        PreflightFailed: more users would go through the gateway and something speaks against it.
        InvalidValue: the reason or the description cannot be stored.
    """
    reason = check_reason(reason)
    description = None if change.description is None else check_description(change.description)
    with door.writing() as writing:
        before = read_flag_alone(writing.connection, key)
        if seen is not None and seen != before.revision:
            raise StaleChange(
                f"{key} was changed meanwhile: you looked at revision {seen}, it is at {before.revision}. "
                "Nothing was changed; look at it again.",
                current=before,
                seen=seen,
                now=before.revision,
            )
        after = replace(
            before,
            enabled=before.enabled if change.enabled is None else change.enabled,
            share=before.share if change.share is None else change.share,
            description=before.description if description is None else description,
        )
        if after == before:
            return before
        if _reach(after) > _reach(before) and (problems := tuple(preflight())):
            raise PreflightFailed(problems)
        return _write(writing, before, after, _action(before, after), actor, reason)


def kill(door: Door, key: str, *, actor: str, reason: str | None = None) -> Flag:
    """Stop a flag: everybody direct, testers too. Idempotent, and never refused as stale.

    Raises:
        NotFound: there is no such flag.
        InvalidValue: the reason cannot be stored.
    """
    return _switch(door, key, killed=True, action=Action.FLAG_KILL, actor=actor, reason=reason)


def restore(door: Door, key: str, *, actor: str, reason: str | None = None) -> Flag:
    """Lift a kill: the flag's other fields count again. Idempotent.

    Raises:
        NotFound: there is no such flag.
        InvalidValue: the reason cannot be stored.
    """
    return _switch(door, key, killed=False, action=Action.FLAG_RESTORE, actor=actor, reason=reason)


def set_override(
    door: Door,
    key: str,
    user: str,
    variant: Variant,
    *,
    actor: str,
    reason: str | None = None,
    expires_at: datetime | None = None,
) -> Flag:
    """Force one user on or off, until `expires_at` where given. Idempotent.

    Raises:
        NotFound: there is no such flag.
        InvalidValue: the user id or reason cannot be stored, or the override would end in the past.
    """
    override = Override(variant, check_reason(reason), expires_at)
    return set_overrides(door, key, {check_user_id(user): override}, actor=actor)


def unset_override(door: Door, key: str, user: str, *, actor: str, reason: str | None = None) -> Flag:
    """Stop forcing a user.

    Raises:
        NotFound: there is no such flag, or the user is not forced.
        InvalidValue: the reason cannot be stored.
    """
    reason = check_reason(reason)
    with door.writing() as writing:
        flag = read_flag_alone(writing.connection, key)
        if not read_overrides(writing.connection, key, [user]):
            # one that was stored before ids were trimmed is found by what it means
            known = forced_users(writing.connection, key)
            user = next((each for each in known if user_id(each) == user_id(user)), user)
        if not read_overrides(writing.connection, key, [user]):
            raise NotFound(f"{user!r} is not forced on or off for {key}")
        _set_some(writing, key, {user: None}, actor, reason)
        return flag


def set_overrides(
    door: Door, key: str, wanted: Mapping[str, Override | None], *, actor: str, reason: str | None = None
) -> Flag:
    """Force many users, or (None) stop forcing them, in one transaction with an entry for each; idempotent.

    Args:
        door: the database.
        key: the flag's key.
        wanted: user ids to what is to be forced on them. An override's own reason is its entry's.
        actor: who.
        reason: why users are no longer forced.

    Returns:
        The flag, with those of its overrides that were named.

    Raises:
        NotFound: there is no such flag.
        InvalidValue: an override would end in the past.
    """
    with door.writing() as writing:
        flag = read_flag_alone(writing.connection, key)
        users = list(wanted)
        for start in range(0, len(users), _AT_ONCE):
            _set_some(writing, key, {user: wanted[user] for user in users[start : start + _AT_ONCE]}, actor, reason)
        return replace(flag, overrides={user: each for user, each in wanted.items() if each is not None})


def _set_some(
    writing: Writing, key: str, wanted: Mapping[str, Override | None], actor: str, reason: str | None
) -> None:
    known = read_overrides(writing.connection, key, wanted)
    changed = {user: each for user, each in wanted.items() if known.get(user) != each}
    if any(each is not None and not each.holds(writing.now) for each in changed.values()):
        raise InvalidValue("expires_at lies in the past, so the override would never apply", field="expires_at")
    # entries of one batch share their action and their reason
    batches: dict[tuple[Action, str | None], list[str]] = {}
    for user, each in changed.items():
        batch = (Action.OVERRIDE_REMOVE, reason) if each is None else (Action.OVERRIDE_SET, each.reason)
        batches.setdefault(batch, []).append(user)
    put: dict[str, tuple[Override, int]] = {}
    for (action, why), users in batches.items():
        documents = [
            (_override_document(user, known.get(user)), _override_document(user, changed[user])) for user in users
        ]
        entries = writing.record_many(actor, action, f"override:{key}", documents, reason=why)
        for user, entry in zip(users, entries, strict=True):
            if (each := changed[user]) is not None:
                put[user] = each, entry.revision
    remove_overrides(writing, key, [user for user, each in changed.items() if each is None])
    if put:
        put_overrides(writing, key, put)


def flag_state(flag: Flag) -> dict[str, Any]:
    """Return what the ledger keeps of a flag: everything but its overrides, which have entries of their own."""
    return {
        "description": flag.description,
        "enabled": flag.enabled,
        "killed": flag.killed,
        "share": flag.share,
        "salt": flag.salt,
        "hash_version": flag.hash_version,
    }


def _switch(door: Door, key: str, *, killed: bool, action: Action, actor: str, reason: str | None) -> Flag:
    reason = check_reason(reason)
    with door.writing() as writing:
        before = read_flag_alone(writing.connection, key)
        if before.killed is killed:
            return before
        return _write(writing, before, replace(before, killed=killed), action, actor, reason)


def _write(writing: Writing, before: Flag, after: Flag, action: Action, actor: str, reason: str | None) -> Flag:
    entry = writing.record(
        actor, action, f"flag:{before.key}", before=flag_state(before), after=flag_state(after), reason=reason
    )
    after = replace(after, revision=entry.revision)
    update_flag(writing, after)
    return after


def _reach(flag: Flag) -> int:
    return flag.share if flag.enabled else 0


def _action(before: Flag, after: Flag) -> Action:
    single = {
        "enabled": Action.FLAG_ENABLE if after.enabled else Action.FLAG_DISABLE,
        "share": Action.FLAG_PERCENTAGE_SET,
        "description": Action.FLAG_DESCRIBE,
    }
    changed = [field for field in single if getattr(before, field) != getattr(after, field)]
    return single[changed[0]] if len(changed) == 1 else Action.FLAG_UPDATE


def _override_document(user: str, override: Override | None) -> Mapping[str, Any] | None:
    if override is None:
        return None
    return {
        "user": Personal(user),
        "variant": str(override.variant),
        "expires_at": instant(override.expires_at) if override.expires_at else None,
    }
