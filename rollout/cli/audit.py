"""`rollout audit`: the ledger of every change, read and verified."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from rollout.cli.backend import AuditQuery, Backend
from rollout.cli.frame import MOMENT, REVISION, Document, Group, as_json, json_text, note, show
from rollout.cli.reach import backend_of
from rollout.cli.words import changes_of, entry_line, kind_word, on_one_line, table, when

_PAGE = 500  # the most the API lists at once


@click.group(cls=Group)
def audit() -> None:
    """Read and verify the ledger of every change."""


@audit.command("list")
@click.option("--actor", help="Only entries of this actor.")
@click.option("--action", help="Only actions that begin so, such as flag: or override:set.")
@click.option("--subject", help="Only entries on this thing, such as flag:enableLiteLLM.")
@click.option("--user", help="Only entries about this user id.")
@click.option("--since", type=MOMENT, metavar="ISO-TIME", help="Only entries from then on.")
@click.option("--until", type=MOMENT, metavar="ISO-TIME", help="Only entries up to then.")
@click.option("--before", type=REVISION, help="Only entries older than this revision: the next page.")
@click.option("--limit", type=click.IntRange(1, _PAGE), default=20, show_default=True, help="At most so many.")
@click.pass_context
def list_entries(context: click.Context, /, **filters: Any) -> None:
    """List entries as sentences, newest first."""
    page, now = backend_of(context).audit(AuditQuery(**filters)), datetime.now(UTC)
    show(context, page, lambda: [entry_line(entry, now) for entry in page["entries"]])
    if not page["entries"]:
        note("no entry fits")
    elif page["next"] is not None and not as_json(context):
        note(f"older entries: --before {page['next']}")


@audit.command("show")
@click.argument("revision", type=REVISION)
@click.pass_context
def show_entry(context: click.Context, revision: int) -> None:
    """Show one entry, field by field."""
    entry = backend_of(context).audit_entry(revision)
    show(context, entry, lambda: _words(entry, datetime.now(UTC)))


@audit.command("verify")
@click.pass_context
def verify(context: click.Context) -> None:
    """Walk the whole chain; exit with 1 where it is broken."""
    found = backend_of(context).audit_verify()
    first = found["first_break"]
    if found["ok"]:
        said = f"the ledger holds: {found['entries']} entries, head {found['head']}"
    else:
        said = f"THE LEDGER IS BROKEN at revision {first['revision']}: {on_one_line(first['why'])}"
    show(context, found, lambda: [said])
    if not found["ok"]:
        context.exit(1)


@audit.command("head")
@click.pass_context
def head(context: click.Context) -> None:
    """Print the head's digest: noted elsewhere, it shows a ledger that was rewritten as a whole."""
    found = backend_of(context).audit_head()
    show(context, found, lambda: [f"{found['revision']} {found['digest']}"])


@audit.command("export")
@click.pass_context
def export(context: click.Context) -> None:
    """Print every entry as a line of JSON, oldest first; the last line is the head."""
    backend = backend_of(context)
    last = backend.audit_head()
    for entry in _entries(backend, last["revision"]):
        click.echo(json_text(entry))
    click.echo(json_text({"head": last}))


def _entries(backend: Backend, last: int) -> Iterator[Document]:
    """Yield the entries up to a revision in order; revisions are gapless, so a page is a range of them."""
    after = 0
    while after < last:
        upto = min(after + _PAGE, last)
        page = backend.audit(AuditQuery(before=upto + 1, limit=_PAGE))
        # where entries were removed, a page reaches further back than its range
        yield from (entry for entry in reversed(page["entries"]) if entry["revision"] > after)
        after = upto


def _words(entry: Document, now: datetime) -> list[str]:
    lines = [
        f"{entry['revision']}: {on_one_line(entry['actor'] + ' ' + entry['sentence'])}",
        f"  {when(entry['at'], now)}",
        f"  actor: {entry['actor']} [{kind_word(entry)}]",
    ]
    if entry["reason"]:
        lines.append(f"  reason: {on_one_line(entry['reason'])}")
    rows = [(change.field, change.before, change.after) for change in changes_of(entry)]
    lines += [f"  {line}" for line in table(("FIELD", "BEFORE", "AFTER"), rows)]
    return [
        *lines,
        f"  {on_one_line(entry['action'])} on {on_one_line(entry['subject'])}",
        f"  digest {entry['digest']}",
    ]
