"""`rollout tokens`, `rollout sessions` and `rollout sign-in`: who may come in."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from rollout.cli.frame import ENDING, Command, Document, Group, note, reason_option, show
from rollout.cli.reach import backend_of
from rollout.cli.words import exact, on_one_line, table, when
from rollout.domain.roles import Role

_ROLES = click.Choice([str(role) for role in Role])


@click.group(cls=Group)
def tokens() -> None:
    """Make, list and revoke access tokens."""


@tokens.command("create")
@click.argument("name")
@click.option("--role", type=_ROLES, required=True, help="evaluate: clients; viewer: see; operator: change; admin.")
@click.option("--expires", type=ENDING, metavar="SPAN|ISO-TIME", help="When it ends: 30d, 12h, or a moment. Never.")
@reason_option
@click.pass_context
def create(context: click.Context, name: str, role: str, expires: datetime | None, reason: str | None) -> None:
    """Make an access token; its secret is printed this once."""
    made = backend_of(context).create_token(name, Role(role), reason=reason, expires_at=expires)
    shown = {field: made[field] for field in ("id", "name", "role", "access_token")}
    show(context, shown, lambda: [made["access_token"]])
    ends = f", ends {exact(made['expires_at'])}" if made.get("expires_at") else ""
    note(f"access token {made['name']} ({made['role']}), id {made['id']}{ends}: the secret is shown this once")


@tokens.command("list")
@click.pass_context
def list_tokens(context: click.Context) -> None:
    """List access tokens, without their secrets."""
    found, now = backend_of(context).tokens(), datetime.now(UTC)
    rows = [
        (
            token["id"],
            token["name"],
            token["role"],
            when(token["created_at"], now),
            when(token["last_used_at"], now) if token.get("last_used_at") else "-",
            _state(token, now),
        )
        for token in found
    ]
    show(context, {"tokens": found}, lambda: table(("ID", "NAME", "ROLE", "CREATED", "LAST USED", "STATE"), rows))
    if not found:
        note("there is no access token yet; make one with `rollout tokens create NAME --role ROLE`")


def _state(token: Document, now: datetime) -> str:
    if token["revoked_at"]:
        return f"revoked {exact(token['revoked_at'])}"
    ends = token.get("expires_at")
    if not ends:
        return "valid"
    return f"{'valid until' if datetime.fromisoformat(ends) > now else 'ran out'} {exact(ends)}"


@tokens.command("revoke")
@click.argument("token")
@click.pass_context
def revoke(context: click.Context, token: str) -> None:
    """Revoke an access token by its id or its name."""
    backend_of(context).revoke_token(token)
    show(context, {"revoked": token}, lambda: [f"access token {on_one_line(token)} is revoked"])


@click.group(cls=Group)
def sessions() -> None:
    """List and end sessions, and sign-in links that nobody used yet."""


@sessions.command("list")
@click.pass_context
def list_sessions(context: click.Context) -> None:
    """List who is signed in, and the links that nobody used yet."""
    found, now = backend_of(context).sessions(), datetime.now(UTC)
    rows = [
        (
            session["id"],
            session["name"],
            session["role"],
            "signed in" if session["state"] == "open" else "link not used yet",
            when(session["last_used_at"], now) if session["last_used_at"] else "-",
            when(session["expires_at"], now),
        )
        for session in found
    ]
    show(context, {"sessions": found}, lambda: table(("ID", "NAME", "ROLE", "STATE", "LAST USED", "ENDS"), rows))
    if not found:
        note("nobody is signed in by a session, and no sign-in link waits")


@sessions.command("end")
@click.argument("session")
@click.pass_context
def end(context: click.Context, session: str) -> None:
    """End a session or an unused link by its id: whoever holds it is refused from now on."""
    backend_of(context).end_session(session)
    show(context, {"ended": session}, lambda: [f"session {session} is ended"])


@click.command("sign-in", cls=Command)
@click.option("--name", default="operator", show_default=True, help="Who signs in; the ledger shows this name.")
@click.option("--role", type=_ROLES, default="admin", show_default=True, help="How far the session reaches.")
@click.pass_context
def sign_in(context: click.Context, name: str, role: str) -> None:
    """Print a sign-in link for the admin pages: it works once, for 15 minutes."""
    backend = backend_of(context)
    made = backend.invite(name, Role(role))
    link = f"{backend.address}/sign-in#code={made['code']}"
    show(context, {"name": made["name"], "role": made["role"], "link": link}, lambda: [link])
    note(f"for {made['name']} ({made['role']}): works once, for 15 minutes")
