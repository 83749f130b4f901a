"""What the API takes: strict, closed shapes. What it answers is made of plain documents by `rollout.wire`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StrictBool, StrictStr, StringConstraints

from rollout.domain.errors import InvalidValue
from rollout.domain.identity import check_flag_key, check_user_id
from rollout.domain.share import parse_percentage


def _share(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        # the API takes numbers; text is for forms and the terminal
        raise ValueError("a percentage is a number from 0 to 100, not text")  # noqa: TRY004 - Pydantic's protocol
    try:
        return parse_percentage(value)
    except InvalidValue as error:
        raise ValueError(error.message) from None


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError("a moment is ISO text such as 2026-12-01T00:00:00Z")  # noqa: TRY004 - Pydantic's protocol
    return parse_moment(value)


def parse_moment(text: str) -> datetime:
    """Read a moment, in UTC.

    Raises:
        ValueError: it is no ISO text, says no time zone, or lies outside the calendar; the message says which.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("a moment is ISO text such as 2026-12-01T00:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("say the time zone: 2026-12-01T00:00:00Z")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("that moment is outside the calendar") from None


# optional here rather than at the field: a union would put its own inner workings into the errors
Share = Annotated[int | None, BeforeValidator(_share)]
Moment = Annotated[datetime | None, BeforeValidator(_moment)]

FlagKey = Annotated[str, AfterValidator(check_flag_key)]
"""A flag's key in a path."""

UserId = Annotated[str, AfterValidator(check_user_id)]
"""A user's id in a path."""


def _one_line(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("it holds control characters; use one line of printable text")
    return text


Wanted = Annotated[str, StringConstraints(max_length=400), AfterValidator(_one_line)]
"""What to look for."""


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class FlagPatch(_Closed):
    """Fields to change; what is left out stays."""

    enabled: StrictBool | None = None
    percentage: Share = None
    description: StrictStr | None = None
    reason: StrictStr | None = None
    skip_preflight: StrictBool = False


class OverrideBody(_Closed):
    """Force one user on or off."""

    variant: StrictStr
    reason: StrictStr | None = None
    expires_at: Moment = None


class OverridesBody(_Closed):
    """Force many users; null stops forcing one, and `reason` says why."""

    overrides: dict[UserId, OverrideBody | None]
    reason: StrictStr | None = None


class ReasonBody(_Closed):
    """Why."""

    reason: StrictStr | None = None


class CascadeBody(_Closed):
    """Ordered model ids, best first."""

    models: list[StrictStr]
    reason: StrictStr | None = None


class LiftBody(_Closed):
    """A model that is to be asked again."""

    model: StrictStr
    reason: StrictStr | None = None


class ResetBody(_Closed):
    """What is to be reset: a path, a model, path/model, or quota; everything where it is left out."""

    which: StrictStr | None = None
    reason: StrictStr | None = None


class EvaluateBody(_Closed):
    """A flag and an OpenFeature evaluation context."""

    flag: StrictStr
    context: dict[str, Any] = {}


class TokenBody(_Closed):
    """A new access token; without `expires_at` it holds until it is revoked."""

    name: StrictStr
    role: StrictStr
    reason: StrictStr | None = None
    expires_at: Moment = None


class InviteBody(_Closed):
    """A new sign-in link."""

    name: StrictStr
    role: StrictStr = "operator"
