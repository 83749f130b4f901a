"""What every command shares: `--json`, the environment, what is printed where, how an error is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from rollout.cli.words import on_one_line
from rollout.domain.errors import InvalidRequest, InvalidValue, PreflightFailed, RolloutError, StaleChange
from rollout.domain.share import parse_percentage
from rollout.settings import Settings, given, parse_settings

Document = dict[str, Any]

_AS_JSON: Final = "rollout.json"


def _remember(context: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's call
    context.meta[_AS_JSON] = value


class Command(click.Command):
    """A command that takes `--json`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--json"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_remember,
                help="Print JSON, and nothing else, on standard output.",
            )
        )


class Group(click.Group):
    """A group whose commands take `--json`."""

    command_class = Command


class Percentage(click.ParamType):  # type: ignore[type-arg]  # click before 8.5 takes no argument
    """A percentage, turned into a share of parts per 100,000."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or fail as wrong usage."""
        if isinstance(value, int):
            return value
        try:
            return parse_percentage(value)
        except InvalidValue as error:
            self.fail(error.message, param, ctx)


class Moment(click.ParamType):  # type: ignore[type-arg]  # as above
    """A moment as ISO text with a time zone, turned into UTC."""

    name = "iso-time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it, or fail as wrong usage."""
        if isinstance(value, datetime):
            return value
        try:
            return read_moment(value)
        except InvalidValue as error:
            self.fail(error.message, param, ctx)


class Ending(click.ParamType):  # type: ignore[type-arg]  # as above
    """A moment to come: a span from now such as `30d` or `12h`, or ISO text with a time zone; turned into UTC."""

    name = "span"
    _SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([mhdw])")
    _UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it, or fail as wrong usage."""
        if isinstance(value, datetime):
            return value
        found = self._SPAN.fullmatch(value.strip())
        try:
            if found:
                return datetime.now(UTC) + timedelta(**{self._UNITS[found[2]]: int(found[1])})
            return read_moment(value, field="a span such as 30d, 12h or 45m, or a moment that")
        except InvalidValue as error:
            self.fail(error.message, param, ctx)


PERCENTAGE: Final = Percentage()
ENDING: Final = Ending()
MOMENT: Final = Moment()
REVISION: Final = click.IntRange(1, 2**31 - 1)

reason_option = click.option("--reason", metavar="TEXT", help="Why; stands in the ledger.")


def read_moment(text: str, *, field: str = "a moment") -> datetime:
    """Read ISO text with a time zone.

    Raises:
        InvalidValue: it is no moment, or has no time zone.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # said below, as for a moment without a time zone
    raise InvalidValue(f"{field} is ISO text with a time zone such as 2026-12-01T00:00:00Z, not {text[:60]!r}")


def environ_of(context: click.Context) -> Mapping[str, str]:
    """Return the environment the entry point handed on."""
    environ = context.find_root().obj
    if not isinstance(environ, Mapping):
        raise AssertionError(  # noqa: TRY004 - a fault in the program
            "the entry point hands the environment on as the context's object"
        )
    return environ


def settings_of(context: click.Context) -> Settings:
    """Return this process's settings, saying aloud what could not be read."""
    settings = parse_settings(environ_of(context))
    for problem in settings.problems:
        note(f"{problem}; until then its default stands")
    return settings


def as_json(context: click.Context) -> bool:
    """Tell whether standard output is for a machine."""
    return bool(context.meta.get(_AS_JSON, False))


def wants_colour(context: click.Context) -> bool:
    """Tell whether the environment allows colour; a pipe never gets any (click strips it)."""
    environ = environ_of(context)
    return given(environ, "NO_COLOR") is None and environ.get("TERM") != "dumb"


def show(context: click.Context, document: Any, words: Callable[[], Iterable[str]]) -> None:
    """Print a result: the document for a machine, the words for people.

    Every line is escaped here, whatever it quotes, unless its maker did so (`Safe`).
    """
    if as_json(context):
        click.echo(json_text(document, indent=2))
    else:
        for line in words():
            click.echo(on_one_line(line))


def json_text(document: Any, *, indent: int | None = None) -> str:
    """Write JSON in printable ASCII, so that a terminal that shows it is not steered by it."""
    # the one control character that `json.dumps` leaves as it is
    return json.dumps(document, indent=indent, default=str).replace("\x7f", "\\u007f")


def note(text: str) -> None:
    """Say something beside the result."""
    click.echo(f"rollout: {on_one_line(text)}", err=True)


def end_of_error(
    kind: str,
    message: str,
    *,
    as_json: bool,
    error: RolloutError | None = None,
    said: bool = False,
    code: int = 1,
) -> int:
    """Say an error on standard error, once more as JSON where that was asked for; return the exit code."""
    if isinstance(error, PreflightFailed):
        message += " (--skip-preflight)"
    if not said:
        note(message)
    if as_json:
        document: Document = {"type": kind, "message": message}
        if isinstance(error, StaleChange):
            document |= {"current": error.current, "seen": error.seen, "now": error.now}
        elif isinstance(error, PreflightFailed):
            document |= {"problems": list(error.problems)}
        elif isinstance(error, InvalidRequest) and error.field:
            document |= {"field": error.field}
        click.echo(json_text({"error": document}), err=True)
    return code
