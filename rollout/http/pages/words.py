"""What the pages say in words: pure, from values to English."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final

from rollout.domain.errors import InvalidValue
from rollout.domain.evaluate import Cause, Evaluation
from rollout.domain.flag import Flag, Override, Variant
from rollout.domain.ledger import Action, Entry, parse_instant
from rollout.domain.sentences import sentence
from rollout.domain.share import WHOLE, percentage_of, percentage_text

ACTIONS: Final[Mapping[str, str]] = {
    "flag:": "everything about flags",
    Action.FLAG_KILL: "stopped",
    Action.FLAG_RESTORE: "restored",
    Action.FLAG_PERCENTAGE_SET: "percentage set",
    Action.FLAG_ENABLE: "enabled",
    Action.FLAG_DISABLE: "disabled",
    "override:": "forced users",
    Action.CASCADE_SET: "cascade set",
    "model:": "models out and back",
    "breakers:": "breakers reset",
    "access_token:": "access tokens",
    "session:": "sign-ins",
    "installation:": "installation",
}
"""What the audit log can be narrowed to: beginnings of actions, and their names for people."""

_DAY: Final = 86_400
_UNITS: Final = ((_DAY, "d"), (3600, "h"), (60, "min"), (1, "s"))


def relative(at: datetime, now: datetime) -> str:
    """Say when something was or will be, seen from `now`: `3 min ago`, `in 2 h`."""
    seconds = (now - at).total_seconds()
    distance = abs(seconds)
    if distance < 5:
        return "just now"
    if distance >= 30 * _DAY:
        return f"{at.astimezone(UTC):%-d %b %Y}"
    unit, name = next((unit, name) for unit, name in _UNITS if distance >= unit)
    text = f"{int(distance // unit)} {name}"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def lasting(at: datetime, now: datetime) -> str:
    """Say for how long something has been so: `3 min`."""
    seconds = max(0, int((now - at).total_seconds()))
    return next((f"{seconds // unit} {name}" for unit, name in _UNITS if seconds >= unit), "a moment")


def told(entry: Entry) -> str:
    """Say what an entry did, as `sentence` does, with moments as people read them and no break before a `%`."""
    text = sentence(entry)
    if isinstance(entry.after, Mapping) and isinstance(ends := entry.after.get("expires_at"), str):
        text = text.replace(ends, exact(parse_instant(ends)))
    return text.replace(" %", "\u00a0%")


def exact(at: datetime) -> str:
    """Write a moment to the second: `2026-11-22 14:03:07 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def parse_moment(text: str, *, field: str) -> datetime | None:
    """Read what a `datetime-local` field sends, taken as UTC; None for an empty one.

    Raises:
        InvalidValue: it is no date and time.
    """
    if not text.strip():
        return None
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):  # the second: a zone carries it out of the calendar
        raise InvalidValue(
            f"{field} is {text[:40]!r} and needs a date and time such as 2026-12-01T09:00 (UTC)", field=field
        ) from None


def percent(share: int) -> str:
    """Say a share with its sign on the same line: `12.5 %`."""
    return percentage_text(share).replace(" ", "\u00a0")


def ended(text: str) -> str:
    """End a message with one full stop."""
    return text if not text or text.endswith(".") else f"{text}."


def kind_in_words(why: str) -> str:
    """Write the name of a kind of failure in words; a sentence keeps its underscores, they are part of a name."""
    return why if " " in why else why.replace("_", " ")


def full(text: str) -> str:
    """Write a message as a sentence of its own: a capital first, one full stop last."""
    return ended(_capital(text))


def users(share: int) -> str:
    """Say how many users a share is, the way people count: `about 1 in 8 users`."""
    if share <= 0:
        return "no user but the forced ones"
    if share >= WHOLE:
        return "every user"
    if share * 10 < WHOLE:
        return f"about 1 in {round(WHOLE / share):,} users"
    if share * 10 > WHOLE * 9:
        return f"all users but about 1 in {round(WHOLE / (WHOLE - share)):,}"
    part = Fraction(share, WHOLE).limit_denominator(10)
    return f"about {part.numerator} in {part.denominator} users"


def count(number: int, one: str, many: str | None = None) -> str:
    """Say a number of things: `1 forced user`, `3 forced users`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def forced(on: int, off: int) -> str:
    """Say who is forced: `3 forced users (2 on, 1 off)`."""
    return f"{count(on + off, 'forced user')} ({on:,} on, {off:,} off)"


def share_change(flag: Flag, share: int, *, on: int, off: int) -> list[str]:
    """Say what moving the share would do, one sentence each."""
    said = []
    if share == flag.share:
        said.append(f"The share is {percent(share)} already.")
    elif share == 0:
        said.append(f"No user goes through LiteLLM by the share any more, instead of {users(flag.share)}.")
    elif users(share) == users(flag.share):
        step = f"{users(abs(share - flag.share))} {'more' if share > flag.share else 'fewer'}"
        said.append(f"{percent(share)} of users go through LiteLLM instead of {percent(flag.share)}: {step}.")
    else:
        said.append(f"{_capital(users(share))} {_go(share)} through LiteLLM instead of {users(flag.share)}.")
    if share > flag.share > 0:
        said.append("Who is on the gateway now stays there.")
    elif 0 < share < flag.share:
        said.append("Exactly those who were added last go back to direct.")
    said.append(f"{_capital(forced(on, off))} unaffected." if on + off else "No user is forced on or off.")
    if flag.killed:
        said.append("The kill switch is on: everybody stays direct until it is lifted.")
    elif not flag.enabled:
        said.append("The flag is disabled: this counts once it is enabled.")
    return said


def enabled_change(flag: Flag, *, enabled: bool, on: int, off: int) -> list[str]:
    """Say what enabling or disabling would do."""
    if enabled:
        first = f"{_capital(users(flag.share))} {_go(flag.share)} through LiteLLM ({percent(flag.share)})."
    else:
        first = f"Users go direct, instead of {users(flag.share)} through LiteLLM. The share is kept for later."
    return [first, f"{_capital(forced(on, off))} unaffected." if on + off else "No user is forced on or off."]


def why(evaluation: Evaluation, *, override: Override | None = None, here: bool = False) -> str:
    """Say why an evaluation came out as it did.

    Args:
        evaluation: the decision.
        override: the stored override of that user, where there is one.
        here: whether it is this process's own decision, its environment included.
    """
    share = percent(evaluation.share)
    match evaluation.cause:
        case Cause.KILL_SWITCH:
            return "the kill switch is on: everybody goes direct, forced users too"
        case Cause.OVERRIDE:
            if override is None or (here and override.variant is Variant.OFF and evaluation.value):
                return "this user is forced on by LITELLM_FORCE_USERS"
            until = f" until {exact(override.expires_at)}" if override.expires_at else ""
            return f"this user is forced {override.variant}{until}" + (
                f": {override.reason}" if override.reason else ""
            )
        case Cause.FLAG_DISABLED:
            return "the flag is disabled"
        case Cause.NO_TARGETING_KEY:
            return "nobody in particular: without a user id a caller never flips between paths"
        case Cause.PERCENTAGE if evaluation.bucket is None:
            return f"the share is {share}, so everybody who is not forced goes the same way"
        case Cause.PERCENTAGE:
            below = "below" if evaluation.value else "not below"
            return f"bucket {evaluation.bucket:,} of 100,000 is {below} {evaluation.share:,} (share {share})"
        case Cause.NO_SNAPSHOT:
            return "nothing is known of this flag yet"
        case Cause.BROKEN_FLAG:
            return "the flag as stored cannot be read"
        case Cause.UNKNOWN_FLAG:
            return "there is no such flag"


def joins_at(bucket: int) -> str:
    """Say from which share on a bucket is on the gateway."""
    return f"{percentage_of(bucket + 1)}\u00a0%"


def _go(share: int) -> str:
    return "go" if 0 < share < WHOLE else "goes"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
