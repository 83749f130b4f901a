"""Change the share, enable, disable: first asked with what will happen in numbers, then done.

    POST without `confirm`   answers the question; nothing is changed
    POST with `confirm`      changes, and answers 303 (a fragment to htmx)

A refusal shows the form again with what was wanted still in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from rollout.control.flags import FlagChange, change_flag
from rollout.domain.errors import InvalidValue, PreflightFailed, RolloutError, StaleChange
from rollout.domain.flag import Flag
from rollout.domain.identity import check_reason
from rollout.domain.ledger import Entry
from rollout.domain.share import parse_percentage, percentage_of
from rollout.http.auth import Caller, Operator, ThePlane
from rollout.http.pages import words
from rollout.http.pages.flag import ShareForm, done_entry, piece, preview_of, seen_by_now
from rollout.http.pages.render import fragment, page, see, wants_fragment
from rollout.http.pages.views import FlagView, flag_view, last_changes
from rollout.http.plane import Plane
from rollout.http.problems import status_of
from rollout.store.ledger import AuditFilter, list_entries, read_head

router = APIRouter(include_in_schema=False)

Field = Annotated[str, Form()]
MEANWHILE: Final = 10
"""At most so many entries are shown of what changed meanwhile."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before a change: where the answer goes, what it carries, and what would happen.

    `target` is the part of the page that the answer replaces, `seen` the revision that the question was made at. A
    question `about` the flag is refused if the flag was changed since; one about a user is not.
    """

    route: str
    title: str
    said: list[str]
    button: str
    fields: dict[str, str]
    target: str = "#share"
    seen: int = 0
    about: str = "flag"


@router.post("/flags/{key}/share")
def post_share(
    request: Request,
    key: str,
    plane: ThePlane,
    caller: Operator,
    percentage: Field = "",
    stage: Field = "",
    reason: Field = "",
    seen: Field = "",
    skip_preflight: Field = "",
    confirm: Field = "",
) -> Response:
    """Set the share; a stage's button beats the exact field beside it."""
    wanted = stage or percentage
    form = ShareForm(percentage=wanted, reason=reason)
    view = _view(plane, key)
    try:
        share, revision = parse_percentage(wanted, field="the share"), _known(plane, caller, view.flag, seen)
        change = FlagChange(share=share)
        preflight = _preflight(plane, skip=bool(skip_preflight))
        if confirm or share == view.flag.share:
            return _change(request, plane, caller, key, change, reason, revision, preflight)
        _would(view.flag, change, reason, revision, preflight)
    except RolloutError as error:
        return _refused(request, plane, caller, key, form, error)
    fields = {"percentage": str(percentage_of(share)), "reason": reason, "seen": str(revision)}
    if skip_preflight:
        fields["skip_preflight"] = "yes"
    question = Question(
        route=f"/flags/{key}/share",
        seen=revision,
        title=f"Move {key} from {view.share_text} to {words.percent(share)}?",
        said=words.share_change(view.flag, share, on=view.forced_on, off=view.forced_off),
        button=f"Move to {words.percent(share)}",
        fields=fields,
    )
    return ask(request, plane, caller, view, question)


@router.post("/flags/{key}/enabled")
def post_enabled(
    request: Request,
    key: str,
    plane: ThePlane,
    caller: Operator,
    enabled: Field = "",
    reason: Field = "",
    seen: Field = "",
    skip_preflight: Field = "",
    confirm: Field = "",
) -> Response:
    """Enable or disable the flag; its share stays as it is."""
    view = _view(plane, key)
    form = ShareForm(percentage=str(percentage_of(view.flag.share)), reason=reason, enabled=enabled[:3])
    try:
        on, revision = _yes_or_no(enabled), _known(plane, caller, view.flag, seen)
        change = FlagChange(enabled=on)
        preflight = _preflight(plane, skip=bool(skip_preflight))
        if confirm or on is view.flag.enabled:
            return _change(request, plane, caller, key, change, reason, revision, preflight)
        _would(view.flag, change, reason, revision, preflight)
    except RolloutError as error:
        return _refused(request, plane, caller, key, form, error)
    fields = {"enabled": enabled, "reason": reason, "seen": str(revision)}
    if skip_preflight:
        fields["skip_preflight"] = "yes"
    question = Question(
        route=f"/flags/{key}/enabled",
        seen=revision,
        title=f"{'Enable' if on else 'Disable'} {key}?",
        said=words.enabled_change(view.flag, enabled=on, on=view.forced_on, off=view.forced_off),
        button="Enable" if on else "Disable",
        fields=fields,
    )
    return ask(request, plane, caller, view, question)


def head_of(plane: Plane) -> int:
    """Return the ledger's last revision."""
    with plane.door.reading() as connection:
        return read_head(connection).revision


def revision_of(plane: Plane, caller: Caller, subject: str, after: int) -> int:
    """Return the revision of the entry that a caller's change has just made; 0 where it changed nothing."""
    with plane.door.reading() as connection:
        made = list_entries(connection, AuditFilter(actor=caller.name, subject=subject), after=after, limit=1)
    return made[0].revision if made else 0


def parse_seen(text: str) -> int:
    """Read the revision a form was made at.

    Raises:
        InvalidValue: the form came without one.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidValue("the form does not say which revision it was made at; load the page again", field="seen")
    return int(text)


def _known(plane: Plane, caller: Caller, flag: Flag, seen: str) -> int:
    revision = parse_seen(seen)
    with plane.door.reading() as connection:
        return seen_by_now(connection, flag, caller, revision)


def _view(plane: Plane, key: str) -> FlagView:
    with plane.door.reading() as connection:
        return flag_view(connection, plane, key)


def _yes_or_no(text: str) -> bool:
    if text not in {"yes", "no"}:
        raise InvalidValue(f"enabled is {text[:40]!r} and needs yes or no", field="enabled")
    return text == "yes"


def _preflight(plane: Plane, *, skip: bool) -> Callable[[], tuple[str, ...]]:
    return tuple if skip else plane.preflight


def _would(flag: Flag, change: FlagChange, reason: str, seen: int, preflight: Callable[[], tuple[str, ...]]) -> None:
    """Refuse before asking what the change itself would refuse after."""
    check_reason(reason)
    if seen != flag.revision:
        raise StaleChange(f"{flag.key} was changed meanwhile", current=flag, seen=seen, now=flag.revision)
    share = flag.share if change.share is None else change.share
    enabled = flag.enabled if change.enabled is None else change.enabled
    before = flag.share if flag.enabled else 0
    if (share if enabled else 0) > before and (problems := preflight()):
        raise PreflightFailed(problems)


def _change(
    request: Request,
    plane: Plane,
    caller: Caller,
    key: str,
    change: FlagChange,
    reason: str,
    seen: int,
    preflight: Callable[[], tuple[str, ...]],
) -> Response:
    before = head_of(plane)
    change_flag(plane.door, key, change, actor=caller.name, reason=reason or None, seen=seen, preflight=preflight)
    plane.refresh()
    done = revision_of(plane, caller, f"flag:{key}", before)
    if not wants_fragment(request):
        return see(request, f"/flags/{key}?done={done}")
    headers = {"HX-Trigger-After-Settle": "changed"}
    return piece(request, plane, caller, key, "_share.html", done=done_entry(plane, str(done)), headers=headers)


def ask(request: Request, plane: Plane, caller: Caller, view: FlagView, question: Question) -> Response:
    """Answer a question; nothing was changed."""
    if wants_fragment(request):
        headers = {"HX-Retarget": "#ask", "HX-Reswap": "innerHTML"}
        return fragment(request, plane, caller, "_confirm.html", headers=headers, view=view, question=question)
    return page(request, plane, caller, "confirm.html", question=question, flag_key=view.flag.key)


def _refused(
    request: Request, plane: Plane, caller: Caller, key: str, form: ShareForm, error: RolloutError
) -> Response:
    status, title = status_of(error)
    message = words.full(error.message)
    problems: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    if isinstance(error, StaleChange):
        with plane.door.reading() as connection:
            entries = tuple(last_changes(connection, key, after=error.seen, limit=MEANWHILE))
        message = "Nothing was changed. What you wanted is still filled in: look at what changed, then save again."
    elif isinstance(error, PreflightFailed):
        problems = error.problems
        message = "The share was not raised. Put it right, or skip the preflight on purpose."
    refused = ShareForm(form.percentage, form.reason, message, title, entries, problems, form.enabled)
    # what cannot be read is said once, by the refusal
    said = () if isinstance(error, InvalidValue) else preview_of(_view(plane, key), form.percentage)
    headers = {"HX-Trigger-After-Settle": "changed"}  # the rest of the page catches up too
    return piece(request, plane, caller, key, "_share.html", status=status, form=refused, said=said, headers=headers)
