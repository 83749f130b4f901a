"""The API's documents as words for people: pure functions over what was answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click

from rollout.domain.actor import kind_read
from rollout.domain.evaluate import Cause
from rollout.domain.ledger import Action, Entry
from rollout.domain.sentences import FieldChange, field_changes
from rollout.domain.share import percentage_text

_STEPS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Safe(str):
    """Text for a terminal in which everything from elsewhere is escaped already; it may carry colours of ours."""

    __slots__ = ()


def on_one_line(text: str) -> Safe:
    """Return text as a terminal may show it: one line, in which characters that could steer it are seen as escapes.

    A server, or whoever wrote into its ledger, could otherwise move the cursor, retitle the window, or turn the
    direction of text.
    """
    if isinstance(text, Safe):
        return text
    return Safe(text if text.isprintable() else "".join(map(_shown, text)))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")


def loud(text: str) -> Safe:
    """Return a line that nobody should miss."""
    return Safe(click.style(on_one_line(text), fg="red", bold=True))


def ago(at: datetime, now: datetime) -> str:
    """Say how far apart two moments are: `3 minutes ago`, `in 2 days`."""
    seconds = int((now - at).total_seconds())
    for size, unit in _STEPS:
        count = abs(seconds) // size
        if count:
            span = f"{count} {unit}{'' if count == 1 else 's'}"
            return f"{span} ago" if seconds > 0 else f"in {span}"
    return "just now"


def exact(text: str) -> str:
    """Write an ISO moment of the API to the second: `2026-11-22 14:03:00Z`."""
    return f"{text[:10]} {text[11:19]}Z"


def when(text: str, now: datetime) -> str:
    """Say a moment of the API twice: exactly, and as people count."""
    return f"{exact(text)} ({ago(datetime.fromisoformat(text), now)})"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lay rows out in columns, two spaces apart; no row at all gives no line."""
    cells: list[list[str]] = [[on_one_line(str(cell)) for cell in row] for row in rows]
    if not cells:
        return []
    lines = [list(headings), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def flag_line(flag: Mapping[str, Any], more: str = "") -> Safe:
    """Say a flag's key and where it sends users, on one line."""
    line = f"{flag['key']}: {flag_state(flag)}{more}"
    return loud(line) if flag["killed"] else on_one_line(line)


def flag_state(flag: Mapping[str, Any]) -> str:
    """Say where a flag sends users, as one sentence."""
    share, forced = f"{flag['percentage']} %", len(flag["overrides"])
    if flag["killed"]:
        return "STOPPED by the kill switch: everybody goes direct"
    if not flag["enabled"]:
        return f"disabled: everybody goes direct (its share stands at {share}); {_forced(forced)}"
    if flag["percentage"] == 0:
        return f"0 %: everybody goes direct; {_forced(forced)}"
    if flag["percentage"] == 100:
        return f"100 %: everybody goes through LiteLLM; {_forced(forced)}"
    return f"{share} of users go through LiteLLM, the others direct; {_forced(forced)}"


def flag_words(flag: Mapping[str, Any], now: datetime) -> list[str]:
    """Say everything about a flag."""
    lines: list[str] = [flag_line(flag)]
    if flag["description"]:
        lines.append(f"  {on_one_line(flag['description'])}")
    lines.append(f"  revision {flag['revision']}, salt {on_one_line(flag['salt'])!r}")
    rows = [
        (
            user,
            override["variant"],
            when(override["expires_at"], now) if override["expires_at"] else "-",
            override["reason"] or "-",
        )
        for user, override in flag["overrides"].items()
    ]
    return lines + [f"  {line}" for line in table(("FORCED USER", "VARIANT", "UNTIL", "REASON"), rows)]


def explain(evaluation: Mapping[str, Any], user: str) -> list[str]:
    """Say what a user gets, and why."""
    who = on_one_line(user) if user else "somebody without an id"
    where = "through LiteLLM (litellm)" if evaluation["path"] == "litellm" else "direct (openrouter)"
    facts = [f"reason {evaluation['reason']}", f"cause {evaluation['cause']}", f"revision {evaluation['revision']}"]
    return [f"{who} goes {where}: {_because(evaluation)}", f"  {', '.join(facts)}"]


def _because(evaluation: Mapping[str, Any]) -> str:
    share = percentage_text(evaluation["share"])
    match evaluation["cause"]:
        case Cause.KILL_SWITCH:
            return "the kill switch is on"
        case Cause.OVERRIDE:
            return f"this user is forced {evaluation['variant']}"
        case Cause.FLAG_DISABLED:
            return "the flag is disabled"
        case Cause.PERCENTAGE if evaluation["bucket"] is None:
            return f"the share is {share}"
        case Cause.PERCENTAGE:
            relation = "below" if evaluation["value"] else "not below"
            return f"bucket {evaluation['bucket']:,} of 100,000 is {relation} {evaluation['share']:,} ({share})"
        case Cause.NO_TARGETING_KEY:
            return f"the share is {share}, and nobody without an id is put on the gateway"
        case Cause.NO_SNAPSHOT:
            return "nothing is known of this flag yet"
        case Cause.BROKEN_FLAG:
            return "the stored flag cannot be read"
        case other:
            return str(other)


def entry_line(entry: Mapping[str, Any], now: datetime) -> str:
    """Say one ledger entry on one line."""
    reason = f"  “{entry['reason']}”" if entry["reason"] else ""
    said = on_one_line(f"{entry['actor']} {entry['sentence']}{reason}  [{kind_word(entry)}]")
    return f"{entry['revision']:>6}  {when(entry['at'], now)}  {said}"


def kind_word(entry: Mapping[str, Any]) -> str:
    """Say what kind of actor an entry is by; entries of earlier versions do not say."""
    return str(entry.get("actor_kind") or "kind not known")


def changes_of(entry: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """List what an entry changed, field by field; nothing where a newer server did what is not known here."""
    try:
        action = Action(entry["action"])
    except ValueError:
        return ()
    return field_changes(
        Entry(
            revision=entry["revision"],
            at=datetime.fromisoformat(entry["at"]),
            actor=entry["actor"],
            action=action,
            subject=entry["subject"],
            before=entry["before"],
            after=entry["after"],
            reason=entry["reason"],
            previous_digest=entry["previous_digest"],
            digest=entry["digest"],
            actor_kind=kind_read(entry.get("actor_kind")),
        )
    )


def _forced(count: int) -> str:
    return "nobody is forced" if count == 0 else "1 forced user" if count == 1 else f"{count} forced users"
