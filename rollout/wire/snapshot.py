"""A snapshot as a document, and back.

    {"format": 1, "installation": "...", "revision": 7, "digest": "...", "cascade": ["author/model:free"],
     "flags": {"enableLiteLLM": {"description": "", "enabled": true, "killed": false, "percentage": 12.5,
                                 "share": 12500, "salt": "...", "hash_version": 1, "revision": 7,
                                 "overrides": {"user-42": {"variant": "on", "expires_at": null}}}}}

`share`, parts per 100,000, decides; `percentage` says the same for people and is never read. The reasons of
overrides are personal and clients have no use for them, so they stay behind. Fields that are not known here are
left aside: a newer server may say more. A flag that is wrong in any way becomes a `BrokenFlag` and hurts only
itself; only a document that is no snapshot at all is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from types import MappingProxyType
from typing import Any, Final

from rollout.domain.errors import InvalidRequest
from rollout.domain.flag import BrokenFlag, Flag, Override, Variant
from rollout.domain.ledger import instant
from rollout.domain.share import WHOLE, percentage_of
from rollout.domain.snapshot import Snapshot

FORMAT: Final = 1
"""The shape above; a document of another number is refused, because what its fields mean is not known."""

_LONGEST_NUMBER: Final = 40  # digits; Python refuses to read very long ones, and no field needs more
_SHOWN: Final = 80


def encode(snapshot: Snapshot) -> bytes:
    """Write a snapshot as compact ASCII JSON, without the reasons of overrides."""
    return _compact(_document(snapshot))


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def _document(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "installation": snapshot.installation,
        "revision": snapshot.revision,
        "digest": snapshot.digest,
        "cascade": list(snapshot.cascade),
        "flags": {key: _flag_for_clients(flag) for key, flag in snapshot.flags.items()},
    }


class Encoder:
    """Writes snapshots one after another; of a flag whose overrides are the same, their text is kept."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Mapping[str, Override], bytes]] = {}

    def encode(self, snapshot: Snapshot) -> bytes:
        """Write a snapshot as `encode` does."""
        kept: dict[str, tuple[Mapping[str, Override], bytes]] = {}
        parts = [_compact(_document(replace(snapshot, flags={}))).removesuffix(b"{}}")]
        for key, flag in snapshot.flags.items():
            parts += [b"," if len(parts) > 1 else b"{", _compact(key), b":"]
            if isinstance(flag, BrokenFlag) or not flag.overrides:
                parts.append(_compact(_flag_for_clients(flag)))
                continue
            before = self._kept.get(key)
            known = before is not None and before[0] is flag.overrides
            overrides = before[1] if before is not None and known else _compact(_overrides_for_clients(flag))
            kept[key] = flag.overrides, overrides
            # what people write into the other members has its quotes escaped, so it cannot look like this one
            head, member, tail = _compact(_flag_for_clients(replace(flag, overrides={}))).partition(b'"overrides":{}')
            parts += [head, member.removesuffix(b"{}"), overrides, tail]
        self._kept = kept
        return b"".join([*parts, b"}}" if len(parts) > 1 else b"{}}"])


def flag_document(flag: Flag) -> dict[str, Any]:
    """Return a flag in the API's shape: `percentage` instead of the share, the reasons of overrides included."""
    return {
        "key": flag.key,
        "description": flag.description,
        "enabled": flag.enabled,
        "killed": flag.killed,
        "percentage": percentage_of(flag.share),
        "salt": flag.salt,
        "hash_version": flag.hash_version,
        "overrides": {
            user: {
                "variant": str(override.variant),
                "reason": override.reason,
                "expires_at": _written(override.expires_at),
            }
            for user, override in flag.overrides.items()
        },
        "revision": flag.revision,
    }


def decode(document: bytes | str) -> Snapshot:
    """Read a snapshot.

    Raises:
        InvalidRequest: it is no JSON, or no snapshot of this format.
    """
    read = _object(_parse(document), "a snapshot")
    if read.get("format") != FORMAT or type(read["format"]) is not int:
        raise InvalidRequest(
            f"this is no snapshot of format {FORMAT} but of {_shown(read.get('format'))}; "
            "a newer control plane needs a newer client"
        )
    return Snapshot(
        installation=_text(read, "installation", empty=False),
        revision=_count(read, "revision"),
        digest=_text(read, "digest"),
        flags=MappingProxyType({key: _flag(key, flag) for key, flag in _object(read.get("flags"), "flags").items()}),
        # one entry that cannot be read must not keep a kill from arriving with the rest
        cascade=tuple(model for model in _list(read.get("cascade")) if isinstance(model, str)),
    )


def _flag_for_clients(flag: Flag | BrokenFlag) -> dict[str, Any]:
    if isinstance(flag, BrokenFlag):
        return {"broken": flag.why}
    document = flag_document(flag)
    del document["key"]
    document["share"] = flag.share
    document["overrides"] = _overrides_for_clients(flag)
    return document


def _overrides_for_clients(flag: Flag) -> dict[str, Any]:
    return {
        user: {"variant": str(override.variant), "expires_at": _written(override.expires_at)}
        for user, override in flag.overrides.items()
    }


def _written(at: datetime | None) -> str | None:
    return None if at is None else instant(at)


def _parse(document: bytes | str) -> object:
    try:
        return json.loads(document, parse_int=_integer)
    except RecursionError:
        raise InvalidRequest("this is no snapshot: it is nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise InvalidRequest(f"this is no snapshot: it is no JSON ({type(error).__name__})") from None


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _LONGEST_NUMBER else inf  # no field takes infinity, so its flag breaks alone


def _flag(key: str, document: object) -> Flag | BrokenFlag:
    try:
        read = _object(document, "a flag")
        if "broken" in read:
            return BrokenFlag(key, _text(read, "broken"))
        overrides = _object(read.get("overrides"), "overrides")
        return Flag(
            key=key,
            salt=_text(read, "salt", empty=False),
            description=_text(read, "description") if "description" in read else "",
            enabled=_switch(read, "enabled"),
            killed=_switch(read, "killed"),
            share=_share(read),
            hash_version=_count(read, "hash_version"),
            revision=_count(read, "revision"),
            overrides=MappingProxyType({user: _override(said) for user, said in overrides.items()}),
        )
    except InvalidRequest as error:
        return BrokenFlag(key, error.message)


def _override(document: object) -> Override:
    read = _object(document, "an override")
    variant, until = read.get("variant"), read.get("expires_at")
    if variant not in ("on", "off"):
        raise InvalidRequest(f"an override's variant is {_shown(variant)}; it is 'on' or 'off'")
    return Override(Variant(variant), expires_at=None if until is None else _moment(until))


def _moment(text: object) -> datetime:
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
        if at is not None and at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # said below, as for a moment without a time zone
    raise InvalidRequest(f"an override's expires_at is {_shown(text)}; it is a moment with a time zone, or null")


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{what} is {_shown(value)}; it has to be an object")
    return value


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(document: Mapping[str, Any], field: str, *, empty: bool = True) -> str:
    value = document.get(field)
    if not isinstance(value, str) or not (value or empty):
        raise InvalidRequest(f"{field} is {_shown(value)}; it has to be text")
    return value


def _count(document: Mapping[str, Any], field: str) -> int:
    value = document.get(field)
    if type(value) is not int or value < 0:  # a boolean is an int to isinstance
        raise InvalidRequest(f"{field} is {_shown(value)}; it has to be a whole number from 0 up")
    return value


def _share(document: Mapping[str, Any]) -> int:
    share = _count(document, "share")
    if share > WHOLE:
        raise InvalidRequest(f"share is {share}; {WHOLE} parts are the most")
    return share


def _switch(document: Mapping[str, Any], field: str) -> bool:
    value = document.get(field)
    if not isinstance(value, bool):
        raise InvalidRequest(f"{field} is {_shown(value)}; it has to be true or false")
    return value


def _shown(value: object) -> str:
    # never the repr of a whole document: it may be long, deep, or hold people's ids
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
