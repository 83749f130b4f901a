"""Ledger entries as sentences: who did what, from what to what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollout.domain.ledger import Action, Entry
from rollout.domain.share import percentage_text


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field that an entry changed, as text for people; `-` where there was nothing."""

    field: str
    before: str
    after: str


def sentence(entry: Entry) -> str:
    """Say what an entry did, without who, when and why: `set enableLiteLLM from 10 % to 12.5 %`."""
    thing = entry.subject.partition(":")[2]
    before, after = _mapping(entry.before), _mapping(entry.after)
    match entry.action:
        case Action.INSTALLATION_CREATE:
            return "created this installation"
        case Action.FLAG_CREATE:
            return f"created the flag {thing} at {_share(after)}"
        case Action.FLAG_PERCENTAGE_SET:
            return f"set {thing} from {_share(before)} to {_share(after)}"
        case Action.FLAG_ENABLE:
            return f"enabled {thing} at {_share(after)}"
        case Action.FLAG_DISABLE:
            return f"disabled {thing}, which stood at {_share(before)}"
        case Action.FLAG_DESCRIBE:
            return f"described {thing}"
        case Action.FLAG_UPDATE:
            fields = ", ".join(
                f"{change.field} from {change.before} to {change.after}" for change in field_changes(entry)
            )
            return f"changed {thing}: {fields}"
        case Action.FLAG_KILL:
            return f"STOPPED {thing}: everybody direct"
        case Action.FLAG_RESTORE:
            return f"restored {thing}: back to {_share(after) if after.get('enabled') else 'disabled'}"
        case Action.OVERRIDE_SET:
            until = f" until {after['expires_at']}" if after.get("expires_at") else ""
            return f"forced {after.get('user')} {after.get('variant')} for {thing}{until}"
        case Action.OVERRIDE_REMOVE:
            return f"removed {before.get('user')} (forced {before.get('variant')}) from {thing}"
        case Action.CASCADE_SET:
            return f"set the cascade to {', '.join(after.get('models', ()))}"
        case Action.MODEL_WITHDRAW:
            return f"took {thing} out of the live order: {after.get('detail')}"
        case Action.MODEL_QUARANTINE:
            return f"QUARANTINED {thing}: {after.get('detail')}"
        case Action.MODEL_LIFT:
            return f"put {thing} back into the live order; it was out: {before.get('detail')}"
        case Action.BREAKERS_RESET:
            return _reset(after)
        case Action.ACCESS_TOKEN_CREATE:
            until = f" until {after['expires_at']}" if after.get("expires_at") else ""
            return f"created the access token {after.get('name')} ({after.get('role')}){until}"
        case Action.ACCESS_TOKEN_REVOKE:
            return f"revoked the access token {before.get('name')} ({before.get('role')})"
        case Action.SESSION_INVITE:
            return f"made a sign-in link for {after.get('name')} ({after.get('role')})"
        case Action.SESSION_OPEN:
            return f"signed in as {after.get('role')}"
        case Action.SESSION_CLOSE:
            return "signed out"
        case Action.SESSION_END:
            thing = "session" if before.get("opened") else "unused sign-in link"
            return f"ended the {thing} of {before.get('name')} ({before.get('role')})"
        case newer:
            return f"did {newer} on {entry.subject}"


def field_changes(entry: Entry) -> tuple[FieldChange, ...]:
    """List the fields that differ between before and after, in a stable order."""
    before, after = _mapping(entry.before), _mapping(entry.after)
    return tuple(
        FieldChange(_named(field), _shown(field, before.get(field)), _shown(field, after.get(field)))
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field)
    )


def _reset(after: Mapping[str, Any]) -> str:
    which, done = after.get("which") or "every breaker and the remembered caps", after.get("reset")
    if done is None:
        return f"asked the running servers to reset {which}"
    if not done:
        return f"reset {which}: nothing had to be"
    names = ", ".join(map(str, done))
    return f"reset {which}" if names == which else f"reset {which} (forgotten: {names})"


def _mapping(document: Any) -> Mapping[str, Any]:
    return document if isinstance(document, Mapping) else {}


def _share(document: Mapping[str, Any]) -> str:
    return percentage_text(int(document.get("share", 0)))


def _named(field: str) -> str:
    return "percentage" if field == "share" else field


def _shown(field: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    if field == "share":
        return percentage_text(int(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
