"""The flag's page, and the pieces of it that follow what happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from rollout.domain.errors import InvalidValue, NotFound
from rollout.domain.evaluate import Decider, Evaluation
from rollout.domain.flag import MAIN_FLAG, Flag
from rollout.domain.ledger import Action, Entry, unseal
from rollout.domain.share import parse_percentage, percentage_of
from rollout.domain.stages import STAGES
from rollout.http.auth import Caller, ThePlane, Viewer
from rollout.http.pages import words
from rollout.http.pages.health import preflight_of
from rollout.http.pages.render import fragment, page, see, unchanged, wants_fragment
from rollout.http.pages.views import FlagView, flag_view, forced_users, last_changes
from rollout.http.plane import Plane
from rollout.store.engine import Connection
from rollout.store.ledger import AuditFilter, list_entries, read_entry

router = APIRouter(include_in_schema=False)

MAX_ASKED: Final = 10_000
"""Characters of a user id that somebody may ask about."""

OWN: Final = 50
"""A form behind which so many stops and restores lie is out of date, whoever made them."""


@dataclass(frozen=True, slots=True)
class ShareForm:
    """What somebody wanted of the share and what came of it; `problems` are the preflight's."""

    percentage: str = ""
    reason: str = ""
    error: str = ""
    title: str = ""
    meanwhile: tuple[Entry, ...] = ()
    problems: tuple[str, ...] = ()
    enabled: str = ""


@dataclass(frozen=True, slots=True)
class OverrideForm:
    """What somebody wanted of a forced user, and what was wrong with it."""

    user: str = ""
    variant: str = "on"
    expires_at: str = ""
    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a user would get: by the stored flag, and in this process with its environment."""

    user: str
    stored: Evaluation
    here: Evaluation
    bucket: int | None
    why: str
    why_here: str

    @property
    def differs(self) -> bool:
        """Whether this process decides otherwise than the stored flag."""
        return (self.stored.path, self.stored.cause, self.stored.share) != (
            self.here.path,
            self.here.cause,
            self.here.share,
        )


def answer_for(plane: Plane, flag: Flag, user: str) -> Answer:
    """Evaluate a user by the stored flag and by this process.

    Raises:
        InvalidValue: the id is longer than anybody needs.
    """
    if len(user) > MAX_ASKED:
        raise InvalidValue(f"that user id is {len(user):,} characters long; {MAX_ASKED:,} is the most", field="user")
    decider, now = Decider(flag), plane.now()
    stored, here = decider.evaluate(user, now.timestamp(), None), plane.holder.evaluate(flag.key, user)
    override = flag.overrides.get(user)
    override = override if override and override.holds(now) else None
    return Answer(
        user,
        stored,
        here,
        decider.bucket(user),
        words.why(stored, override=override),
        words.why(here, override=override, here=True),
    )


def flag_values(connection: Connection, plane: Plane, view: FlagView) -> dict[str, Any]:
    """Return everything the flag's page shows when nobody asked for anything particular."""
    flag = view.flag
    return {
        "view": view,
        "form": ShareForm(percentage=str(percentage_of(flag.share))),
        "said": (),
        "done": None,
        "stages": STAGES,
        "preflight": preflight_of(plane),
        "forced": forced_users(connection, view),
        "adding": OverrideForm(),
        "forced_done": None,
        "undo": None,
        "answer": None,
        "entries": last_changes(connection, flag.key),
    }


def flag_page(
    request: Request, plane: Plane, caller: Caller, key: str, *, status: int = 200, **values: Any
) -> Response:
    """Answer the flag's whole page, with what somebody asked for in its place."""
    with plane.door.reading() as connection:
        shown = flag_values(connection, plane, flag_view(connection, plane, key))
    return page(request, plane, caller, "flag.html", status=status, **(shown | values))


def piece(
    request: Request, plane: Plane, caller: Caller, key: str, template: str, *, status: int = 200, **values: Any
) -> Response:
    """Answer one fragment of the flag's page to htmx, the whole page to everybody else."""
    if not wants_fragment(request):
        return flag_page(request, plane, caller, key, status=status, **values)
    headers = values.pop("headers", None)
    with plane.door.reading() as connection:
        shown = flag_values(connection, plane, flag_view(connection, plane, key))
    return fragment(request, plane, caller, template, status=status, headers=headers, **(shown | values))


def preview_of(view: FlagView, percentage: str) -> list[str]:
    """Say what a share would do; what is wrong with it where it is none."""
    try:
        share = parse_percentage(percentage, field="the share")
    except InvalidValue as error:
        return [words.full(error.message)]
    return words.share_change(view.flag, share, on=view.forced_on, off=view.forced_off)


@router.get("/")
def home(request: Request, _caller: Viewer) -> Response:
    """Go to the flag this is all about."""
    return see(request, f"/flags/{MAIN_FLAG}")


@router.get("/flags/{key}")
def show_flag(request: Request, key: str, plane: ThePlane, caller: Viewer, done: str = "") -> Response:
    """Show the flag; `done` is the revision of what the caller has just changed, 0 where nothing was to change."""
    said = forced_done(plane, key, done)
    entry = said["forced_done"]
    if isinstance(entry, Entry) and entry.subject == f"override:{key}":
        return flag_page(request, plane, caller, key, **said)
    return flag_page(request, plane, caller, key, done=entry)


def forced_done(plane: Plane, key: str, done: str) -> dict[str, Any]:
    """Return what an act on a forced user came to, and if it was a removal what takes that back."""
    entry = done_entry(plane, done)
    undo = _undo(plane, key, entry) if isinstance(entry, Entry) else None
    return {"forced_done": entry, "undo": undo}


def _undo(plane: Plane, key: str, entry: Entry) -> OverrideForm | None:
    subject = f"override:{key}"
    if entry.action != Action.OVERRIDE_REMOVE or entry.subject != subject or not isinstance(entry.before, Mapping):
        return None
    user = entry.before.get("user")
    if not isinstance(user, str) or not user:  # a forgotten user has no id any more
        return None
    made_by = AuditFilter(subject=subject, action=Action.OVERRIDE_SET, user=user)
    with plane.door.reading() as connection:
        made = list_entries(connection, made_by, before=entry.revision, limit=1)
    ends = entry.before.get("expires_at")
    reason = made[0].reason if made else None
    return OverrideForm(user, str(entry.before["variant"]), str(ends or ""), reason or "")


def done_entry(plane: Plane, done: str) -> Entry | str | None:
    """Return the entry a finished form points to; a sentence where the change changed nothing."""
    if not (done.isascii() and done.isdigit() and len(done) < 16):
        return None
    if int(done) == 0:
        return "It was so already: nothing had to be changed."
    try:
        with plane.door.reading() as connection:
            return unseal(read_entry(connection, int(done)))
    except NotFound:
        return None


@router.get("/flags/{key}/band")
def show_band(request: Request, key: str, plane: ThePlane, caller: Viewer) -> Response:
    """Show the state as a sentence."""
    return piece(request, plane, caller, key, "_band.html")


@router.get("/flags/{key}/traffic")
def show_traffic(request: Request, key: str, plane: ThePlane, caller: Viewer) -> Response:
    """Show where traffic goes, as a bar and two lines."""
    return piece(request, plane, caller, key, "_traffic.html")


@router.get("/flags/{key}/preflight")
def show_preflight(request: Request, key: str, plane: ThePlane, caller: Viewer) -> Response:
    """Show what speaks against raising the share."""
    return piece(request, plane, caller, key, "_preflight.html")


@router.get("/flags/{key}/changes")
def show_changes(request: Request, key: str, plane: ThePlane, caller: Viewer) -> Response:
    """Show the last changes."""
    return piece(request, plane, caller, key, "_changes.html")


@router.get("/flags/{key}/share")
def show_share(
    request: Request, key: str, plane: ThePlane, caller: Viewer, percentage: str = "", reason: str = ""
) -> Response:
    """Show the share's form as it is now, with what somebody has typed still in it."""
    if not percentage and not reason:
        return piece(request, plane, caller, key, "_share.html")
    with plane.door.reading() as connection:
        view = flag_view(connection, plane, key)
    form = ShareForm(percentage=percentage, reason=reason)
    return piece(request, plane, caller, key, "_share.html", form=form, said=preview_of(view, percentage))


@router.get("/flags/{key}/meanwhile")
def show_meanwhile(
    request: Request, key: str, plane: ThePlane, caller: Viewer, seen: str = "", asking: str = ""
) -> Response:
    """Say that the flag was changed after the page was made; nothing if only by the caller's own stop or restore."""
    with plane.door.reading() as connection:
        view = flag_view(connection, plane, key)
        revision = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 16 else 0
        last = seen_by_now(connection, view.flag, caller, revision)
    if wants_fragment(request) and last == view.flag.revision:
        return unchanged()
    return piece(request, plane, caller, key, "_meanwhile.html", asking=bool(asking), refused=asking != "user")


def seen_by_now(connection: Connection, flag: Flag, caller: Caller, seen: int) -> int:
    """Return the revision that somebody who saw `seen` knows of: their own stops and restores are no news to them."""
    since = list_entries(connection, AuditFilter(subject=f"flag:{flag.key}"), after=seen, limit=OWN)
    own = all(entry.actor == caller.name and entry.action in {Action.FLAG_KILL, Action.FLAG_RESTORE} for entry in since)
    return flag.revision if since and own and len(since) < OWN else seen


@router.get("/flags/{key}/preview")
def preview(request: Request, key: str, plane: ThePlane, caller: Viewer, percentage: str = "") -> Response:
    """Say what a share would do, while somebody moves the slider."""
    with plane.door.reading() as connection:
        view = flag_view(connection, plane, key)
    said = preview_of(view, percentage)
    return piece(request, plane, caller, key, "_preview.html", said=said, form=ShareForm(percentage=percentage))


@router.get("/flags/{key}/overrides")
def show_overrides(
    request: Request, key: str, plane: ThePlane, caller: Viewer, q: Annotated[str, Query(max_length=300)] = ""
) -> Response:
    """List who was forced last, narrowed by a search."""
    with plane.door.reading() as connection:
        forced = forced_users(connection, flag_view(connection, plane, key), q)
    return piece(request, plane, caller, key, "_overrides.html", forced=forced)


@router.get("/flags/{key}/why")
def show_why(request: Request, key: str, plane: ThePlane, caller: Viewer, user: str = "") -> Response:
    """Say what a user would get, and why."""
    with plane.door.reading() as connection:
        view = flag_view(connection, plane, key)
    return piece(request, plane, caller, key, "_why.html", answer=answer_for(plane, view.flag, user))
