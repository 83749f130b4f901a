"""`rollout flags export` and `import`: carry an installation's flags to another one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click

from rollout.cli.frame import Command, json_text, note, reason_option, settings_of, show
from rollout.cli.promotion import apply_all, compare, exported, parse_export
from rollout.cli.reach import backend_of
from rollout.cli.words import on_one_line
from rollout.domain.errors import InvalidRequest
from rollout.files import write_whole


@click.command("export", cls=Command)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.pass_context
def export_flags(context: click.Context, file: Path | None) -> None:
    """Write flags and the cascade as JSON.

    With their overrides, to FILE, else to standard output.
    """
    document = exported(backend_of(context))
    text = json_text(document, indent=2) + "\n"
    if file is None or str(file) == "-":
        click.echo(text, nl=False)
        return
    write_whole(file, text.encode(), wait=True)
    flags = len(document["flags"])
    written = f"{flags} flag{'' if flags == 1 else 's'} and the cascade are in {file}"
    show(context, {"file": str(file), "flags": flags}, lambda: [written])


@click.command("import", cls=Command)
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Show what would be changed, and change nothing.")
@click.option("--skip-preflight", is_flag=True, help="Raise shares whatever the gateway's state is.")
@reason_option
@click.pass_context
def import_flags(
    context: click.Context, file: BinaryIO, *, dry_run: bool, skip_preflight: bool, reason: str | None
) -> None:
    """Make flags and the cascade as in FILE.

    FILE is what `export` wrote, - for standard input; each difference is one ledger entry. The kill switch, salts
    and whatever the file does not name stay as they are.
    """
    try:
        text = file.read().decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("the file is no UTF-8 text; make one with `rollout flags export`") from None
    backend = backend_of(context)
    wanted = parse_export(text, allow_paid=settings_of(context).upstreams.allow_paid)
    found = compare(wanted, backend, now=datetime.now(UTC))
    for sentence in found.left_alone:
        note(sentence)
    done = 0
    try:
        if found.changes and not dry_run:
            raises = not skip_preflight and any(change.raises for change in found.changes)
            with backend.together(raises=raises) as together:
                for made in apply_all(found.changes, together, reason=reason, skip_preflight=skip_preflight):
                    done = made
    except BaseException:
        done = 0 if backend.all_or_nothing else done
        raise
    finally:
        document = {
            "dry_run": dry_run,
            "changes": [{**each.document(), "applied": place < done} for place, each in enumerate(found.changes)],
            "left_alone": list(found.left_alone),
        }
        said = [each.sentence(planned=dry_run, done=place < done) for place, each in enumerate(found.changes)]
        lines = [on_one_line(sentence) for sentence in said]
        show(context, document, lambda: lines or ["nothing differs"])
