"""What an exported installation differs in from another: pure, so that a dry run shows exactly what would be done.

    {"format": "rollout-flags/1", "flags": [flag, ...], "cascade": [model, ...]}

Flags are the API's documents. Of a flag the switch, the percentage, the description and the overrides are
promoted. The kill switch, the salt and the hash version stay as they are: a stop belongs to one installation, and
another salt would move every user.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

from rollout.cli.backend import Backend, FlagFields
from rollout.cli.frame import Document, read_moment
from rollout.domain.errors import InvalidRequest, NotFound
from rollout.domain.identity import check_cascade, check_description, check_flag_key, check_reason, check_user_id
from rollout.domain.share import parse_percentage

FORMAT: Final = "rollout-flags/1"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, worth one ledger entry. `before` and `after` are JSON, None where there is nothing."""

    subject: str
    before: Any
    after: Any
    flag: str = ""
    user: str = ""
    revision: int | None = None
    fields: FlagFields = field(default_factory=FlagFields)

    def document(self) -> Document:
        """Return it as JSON."""
        return {"subject": self.subject, "before": self.before, "after": self.after}

    def sentence(self, *, planned: bool, done: bool) -> str:
        """Say it: `set f from 10 % to 50 %`; `would set …` where planned, `did not set …` where it was not done."""
        before, after, rest = self._words()
        return f"{after} {rest}" if done else f"{'would' if planned else 'did not'} {before} {rest}"

    def _words(self) -> tuple[str, str, str]:
        # the verb, the verb when it is done, and the rest
        if self.subject == "cascade":
            return "set", "set", f"the cascade to {', '.join(self.after['models'])}"
        if self.user and self.after is None:
            return "remove", "removed", f"{self.user} (forced {self.before['variant']}) from {self.flag}"
        if self.user:
            instead = f", instead of {_forced(self.before)}" if self.before else ""
            return "force", "forced", f"{self.user} {_forced(self.after)} for {self.flag}{instead}"
        changed = [
            f"{name} from {_said(name, self.before[name])} to {_said(name, self.after[name])}" for name in self.after
        ]
        if list(self.after) == ["percentage"]:
            return "set", "set", f"{self.flag} {changed[0].removeprefix('percentage ')}"
        return "change", "changed", f"{self.flag}: {', '.join(changed)}"

    @property
    def raises(self) -> bool:
        """Whether more users may go through the gateway after it."""
        return self.fields.share is not None or self.fields.enabled is not None

    def apply(self, backend: Backend, *, reason: str | None, skip_preflight: bool) -> None:
        """Make it; overrides are made many at a time, by `apply_all`."""
        if self.subject == "cascade":
            backend.set_cascade(self.after["models"], reason=reason, revision=self.revision)
        else:
            backend.change_flag(
                self.flag, self.fields, reason=reason, revision=self.revision, skip_preflight=skip_preflight
            )


def apply_all(
    changes: Sequence[Change], backend: Backend, *, reason: str | None, skip_preflight: bool
) -> Iterator[int]:
    """Make changes in their order; yields how many are made, whenever some more are."""
    done = 0
    for (flag, of_users), some in groupby(changes, lambda change: (change.flag, bool(change.user))):
        group = list(some)
        if not of_users:
            for change in group:
                change.apply(backend, reason=reason, skip_preflight=skip_preflight)
                yield (done := done + 1)
            continue
        backend.set_overrides(flag, {change.user: _stored(change.after) for change in group}, reason=reason)
        yield (done := done + len(group))


def _stored(after: Mapping[str, Any] | None) -> Document | None:
    return None if after is None else {name: after[name] for name in ("variant", "reason", "expires_at")}


@dataclass(frozen=True, slots=True)
class Promotion:
    """What is to be changed, in order, and sentences about what is left alone."""

    changes: tuple[Change, ...]
    left_alone: tuple[str, ...]


def exported(backend: Backend) -> Document:
    """Return an installation as a document to keep or to promote."""
    return {"format": FORMAT, "flags": backend.flags(), "cascade": backend.cascade()["models"]}


def parse_export(text: str, *, allow_paid: bool = False) -> Document:
    """Read an exported document, every field checked; a cascade of models that cost is for `allow_paid`.

    Raises:
        InvalidRequest: it is no export, or holds something that cannot be stored.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("the file is no JSON; make one with `rollout flags export`. Nothing was changed") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InvalidRequest(f"the file is no export of format {FORMAT!r}; make one with `rollout flags export`")
    flags, cascade = document.get("flags"), document.get("cascade", [])
    if not isinstance(flags, list) or not all(isinstance(flag, dict) for flag in flags):
        raise InvalidRequest("`flags` has to be a list of flags. Nothing was changed", field="flags")
    return {
        "flags": [_flag(flag) for flag in flags],
        "cascade": list(check_cascade(cascade, allow_paid=allow_paid)) if cascade else [],
    }


def compare(wanted: Mapping[str, Any], backend: Backend, *, now: datetime) -> Promotion:
    """List what differs: the cascade first, the shares last, so that a share never rises before its cascade.

    Raises:
        NotFound: the file names a flag that is not there.
    """
    there = {flag["key"]: flag for flag in backend.flags()}
    unknown = [flag["key"] for flag in wanted["flags"] if flag["key"] not in there]
    if unknown:
        raise NotFound(f"there is no flag {unknown[0]!r} in this installation. Nothing was changed")
    first: list[Change] = []
    last: list[Change] = []
    left: list[str] = []
    cascade = backend.cascade()
    if wanted["cascade"] and wanted["cascade"] != cascade["models"]:
        before = {"models": cascade["models"]} if cascade["models"] else None
        first.append(Change("cascade", before, {"models": wanted["cascade"]}, revision=cascade["revision"] or None))
    for flag in wanted["flags"]:
        current = there[flag["key"]]
        first += _overrides(flag, current, now)
        last += _fields(flag, current)
        left += _left_alone(flag, current, now)
    return Promotion((*first, *last), tuple(left))


def _flag(flag: Mapping[str, Any]) -> Document:
    key, overrides = check_flag_key(flag.get("key")), flag.get("overrides", {})
    if not isinstance(flag.get("enabled"), bool):
        raise InvalidRequest(f"{key}: `enabled` has to be true or false. Nothing was changed", field="enabled")
    if isinstance(flag.get("percentage"), str):
        raise InvalidRequest(f"{key}: `percentage` has to be a number. Nothing was changed", field="percentage")
    if not isinstance(overrides, dict) or not all(isinstance(each, dict) for each in overrides.values()):
        raise InvalidRequest(f"{key}: `overrides` has to map users to what is forced on them", field="overrides")
    return {
        **flag,
        "key": key,
        "description": check_description(flag.get("description", "")),
        "share": parse_percentage(flag.get("percentage")),
        "overrides": {check_user_id(user): _override(override) for user, override in overrides.items()},
    }


def _override(override: Mapping[str, Any]) -> Document:
    if override.get("variant") not in ("on", "off"):
        raise InvalidRequest("an override's `variant` has to be 'on' or 'off'. Nothing was changed", field="variant")
    until = override.get("expires_at")
    if until is not None:
        read_moment(str(until), field="expires_at")
    return {"variant": override["variant"], "reason": check_reason(override.get("reason")), "expires_at": until}


def _fields(flag: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[Change]:
    names = [name for name in ("enabled", "percentage", "description") if flag[name] != current[name]]
    if names:
        # in one entry: enabling first and lowering the share after it would open the gate in between
        yield Change(
            f"flag:{flag['key']}",
            {name: current[name] for name in names},
            {name: flag[name] for name in names},
            flag["key"],
            revision=current["revision"],
            fields=FlagFields(
                flag["enabled"] if "enabled" in names else None,
                flag["share"] if "percentage" in names else None,
                flag["description"] if "description" in names else None,
            ),
        )


def _overrides(flag: Mapping[str, Any], current: Mapping[str, Any], now: datetime) -> Iterator[Change]:
    subject, before, after = f"override:{flag['key']}", current["overrides"], flag["overrides"]
    for user in sorted(before.keys() | after.keys()):
        old, new = before.get(user), after.get(user)
        if new is not None and _is_over(new, now):
            continue
        if old is None or new is None or not _same_override(old, new):
            yield Change(subject, _with_user(user, old), _with_user(user, new), flag["key"], user)


def _with_user(user: str, override: Mapping[str, Any] | None) -> Document | None:
    return None if override is None else {"user": user, **override}


def _same_override(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    moments = [read_moment(each["expires_at"]) if each["expires_at"] else None for each in (one, other)]
    return one["variant"] == other["variant"] and one["reason"] == other["reason"] and moments[0] == moments[1]


def _forced(override: Mapping[str, Any]) -> str:
    ends = override["expires_at"]
    until = f" until {read_moment(ends).astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if ends else ""
    return f"{override['variant']}{until}" + (f" ({override['reason']})" if override["reason"] else "")


def _said(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value} %" if name == "percentage" else repr(value)


def _left_alone(flag: Mapping[str, Any], current: Mapping[str, Any], now: datetime) -> Sequence[str]:
    said = []
    if flag.get("killed", False) != current["killed"]:
        said.append(f"{flag['key']}: the kill switch stays {'on' if current['killed'] else 'off'} here")
    if flag.get("salt", current["salt"]) != current["salt"]:
        said.append(f"{flag['key']}: the salt stays, so a share holds other users here than in the file")
    over = sum(_is_over(override, now) for override in flag["overrides"].values())
    if over:
        are = "1 override of the file is" if over == 1 else f"{over} overrides of the file are"
        said.append(f"{flag['key']}: {are} over already")
    return said


def _is_over(override: Mapping[str, Any], now: datetime) -> bool:
    return override["expires_at"] is not None and read_moment(override["expires_at"]) <= now
