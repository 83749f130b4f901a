"""The installation through the API of its server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

import httpx

from rollout.cli.backend import AuditQuery, FlagFields
from rollout.cli.frame import Document
from rollout.cli.words import on_one_line
from rollout.domain import errors
from rollout.domain.identity import check_user_id
from rollout.domain.ledger import instant
from rollout.domain.roles import Role
from rollout.domain.share import percentage_of
from rollout.network import Proxy, explain
from rollout.settings import Settings

TIMEOUT_SECONDS: Final = 30.0  # a verification walks the whole ledger

_AT_ONCE: Final = 500  # overrides in one request: with the longest ids and reasons still below the server's limit

_KINDS: Final[Mapping[int, type[errors.RolloutError]]] = {
    400: errors.InvalidRequest,
    401: errors.NotSignedIn,
    403: errors.NotAllowed,
    404: errors.NotFound,
    409: errors.ChangeRefused,
    413: errors.InvalidRequest,
    422: errors.InvalidValue,
    428: errors.InvalidRequest,
    503: errors.StoreFailed,
}


@contextmanager
def open_api(settings: Settings, *, transport: httpx.BaseTransport | None = None) -> Iterator[ApiBackend]:
    """Open a connection to the server at ROLLOUT_URL.

    Raises:
        NotSignedIn: ROLLOUT_TOKEN is not set, or cannot be sent.
    """
    url, network = settings.url, settings.upstreams.network
    assert url is not None  # noqa: S101 - the caller chose the API because it is set
    if settings.token is None:
        raise errors.NotSignedIn(
            "ROLLOUT_URL is set and ROLLOUT_TOKEN is not; make an access token with `rollout tokens create` "
            "beside the database, or on the admin page"
        )
    if not (settings.token.isascii() and settings.token.isprintable()):
        raise errors.NotSignedIn("ROLLOUT_TOKEN holds characters no access token has; copy it again")
    with httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {settings.token}", "Accept": "application/json"},
        timeout=TIMEOUT_SECONDS,
        **({"transport": transport} if transport is not None else network.httpx_options(url)),
    ) as http:
        yield ApiBackend(http, without_credentials(url), network.proxy_for(url))


def without_credentials(url: str) -> str:
    """Return a URL as it may be shown: without what stands before an `@`."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class ApiBackend:
    """Commands as requests; see `Backend`."""

    all_or_nothing = False

    def __init__(self, http: httpx.Client, address: str, proxy: Proxy | None = None) -> None:
        self._http = http
        self._proxy = proxy
        self.address = address

    def flags(self) -> list[Document]:
        """List every flag."""
        return list(self._ask("GET", "/api/v1/flags", "flags")["flags"])

    def flag(self, key: str) -> Document:
        """Return one flag."""
        return self._ask("GET", _flag(key), "revision")

    def change_flag(
        self, key: str, fields: FlagFields, *, reason: str | None, revision: int | None, skip_preflight: bool
    ) -> Document:
        """Change fields in one ledger entry."""
        body: Document = {"enabled": fields.enabled, "description": fields.description, "reason": reason}
        body["percentage"] = None if fields.share is None else percentage_of(fields.share)
        body = {name: value for name, value in body.items() if value is not None}
        body["skip_preflight"] = skip_preflight
        return self._ask("PATCH", _flag(key), "revision", body=body, seen=revision)

    def kill(self, key: str, *, reason: str | None) -> Document:
        """Stop a flag for everybody."""
        return self._ask("POST", f"{_flag(key)}/kill", "revision", body={"reason": reason})

    def restore(self, key: str, *, reason: str | None) -> Document:
        """Lift a kill."""
        return self._ask("POST", f"{_flag(key)}/restore", "revision", body={"reason": reason})

    def set_override(
        self, key: str, user: str, variant: str, *, reason: str | None, expires_at: datetime | None
    ) -> Document:
        """Force a user on or off."""
        body = {"variant": variant, "reason": reason, "expires_at": instant(expires_at) if expires_at else None}
        return self._ask("PUT", _override(key, user), "revision", body=body)

    def remove_override(self, key: str, user: str, *, reason: str | None) -> Document:
        """Stop forcing a user."""
        return self._ask("DELETE", _override(key, user), "revision", query={"reason": reason})

    def set_overrides(self, key: str, overrides: Mapping[str, Document | None], *, reason: str | None) -> None:
        """Force many users, or stop forcing them: as many in one request and one transaction as a body may hold."""
        users = list(overrides)
        for start in range(0, len(users), _AT_ONCE):
            some = {user: overrides[user] for user in users[start : start + _AT_ONCE]}
            self._ask("POST", f"{_flag(key)}/overrides", "revision", body={"overrides": some, "reason": reason})

    @contextmanager
    def together(self, *, raises: bool) -> Iterator[ApiBackend]:  # noqa: ARG002 - the server asks its own preflight
        """Make changes one after another: the API has no transaction over several requests."""
        yield self

    def cascade(self) -> Document:
        """Return the ordered model ids."""
        return self._ask("GET", "/api/v1/cascade", "models")

    def set_cascade(self, models: Sequence[str], *, reason: str | None, revision: int | None) -> Document:
        """Set the ordered model ids."""
        body = {"models": list(models), "reason": reason}
        return self._ask("PUT", "/api/v1/cascade", "models", body=body, seen=revision, conditional=True)

    def lift_model(self, model: str, *, reason: str | None) -> Document:
        """Put a model that is out back into the live order."""
        return self._ask("POST", "/api/v1/models/lift", "models", body={"model": model, "reason": reason})

    def reset_breakers(self, which: str | None, *, reason: str | None) -> Document:
        """Reset one thing or (None) everything."""
        return self._ask("POST", "/api/v1/breakers/reset", "reset", body={"which": which, "reason": reason})

    def evaluate(self, flag: str, context: Mapping[str, Any]) -> Document:
        """Decide for an evaluation context."""
        return self._ask("POST", "/api/v1/evaluate", "path", body={"flag": flag, "context": dict(context)})

    def audit(self, query: AuditQuery) -> Document:
        """List ledger entries."""
        asked = {
            "actor": query.actor,
            "action": query.action,
            "subject": query.subject,
            "user": query.user,
            "since": instant(query.since) if query.since else None,
            "until": instant(query.until) if query.until else None,
            "before": query.before,
            "limit": query.limit,
        }
        return self._ask("GET", "/api/v1/audit", "entries", query=asked)

    def audit_entry(self, revision: int) -> Document:
        """Return one ledger entry."""
        return self._ask("GET", f"/api/v1/audit/{revision}", "revision")

    def audit_head(self) -> Document:
        """Return the ledger's head."""
        return self._ask("GET", "/api/v1/audit/head", "digest")

    def audit_verify(self) -> Document:
        """Walk the whole chain."""
        return self._ask("GET", "/api/v1/audit/verify", "ok")

    def tokens(self) -> list[Document]:
        """List access tokens."""
        return list(self._ask("GET", "/api/v1/tokens", "tokens")["tokens"])

    def create_token(
        self, name: str, role: Role, *, reason: str | None, expires_at: datetime | None = None
    ) -> Document:
        """Make an access token."""
        body = {"name": name, "role": str(role), "reason": reason}
        if expires_at is not None:
            body["expires_at"] = instant(expires_at)
        return self._ask("POST", "/api/v1/tokens", "access_token", body=body)

    def revoke_token(self, token: str) -> None:
        """Revoke an access token by id or name."""
        self._ask("DELETE", f"/api/v1/tokens/{_segment(token)}", "tokens")

    def sessions(self) -> list[Document]:
        """List sessions, and sign-in links that nobody used yet."""
        return list(self._ask("GET", "/api/v1/sessions", "sessions")["sessions"])

    def end_session(self, session: str) -> None:
        """End a session or an unused sign-in link by its id."""
        self._ask("DELETE", f"/api/v1/sessions/{_segment(session)}", "sessions")

    def invite(self, name: str, role: Role) -> Document:
        """Make a one-time sign-in code."""
        return self._ask("POST", "/api/v1/sign-in-links", "code", body={"name": name, "role": str(role)})

    def _ask(
        self,
        method: str,
        path: str,
        holds: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        seen: int | None = None,
        conditional: bool = False,
    ) -> Document:
        """Send one request; `holds` is a member its answer has to have."""
        headers = {}
        if conditional or method == "PATCH":
            headers["If-Match"] = "*" if seen is None else f'"{seen}"'
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body, allow_nan=False).encode("ascii")  # escaped: a lone surrogate has no UTF-8
        params = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            answer = self._http.request(method, path, content=content, params=params, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise errors.RolloutError(
                f"the server at {self.address} does not answer ({explain(error, self._proxy)}); "
                "check that it runs, and ROLLOUT_URL"
            ) from error
        document = _document(answer)
        if not answer.is_success:
            raise _error_of(answer.status_code, document, self.address)
        if holds not in document:
            raise errors.RolloutError(f"what answers at {self.address} is not our server; check ROLLOUT_URL")
        return document


def _segment(text: str) -> str:
    # dots too: a path of dots alone would be resolved away before it is sent
    return quote(text, safe="", errors="backslashreplace").replace(".", "%2E")


def _flag(key: str) -> str:
    return f"/api/v1/flags/{_segment(key)}"


def _override(key: str, user: str) -> str:
    return f"{_flag(key)}/overrides/{_segment(check_user_id(user))}"


def _document(answer: httpx.Response) -> Document:
    try:
        read = json.loads(answer.content)
    except (ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _error_of(status: int, problem: Document, address: str) -> errors.RolloutError:
    """Turn a problem document back into the error it was made from."""
    detail = on_one_line(str(problem.get("detail") or f"the server at {address} answered {status}"))
    match status:
        case 409 if isinstance(problem.get("problems"), list):
            return errors.PreflightFailed([on_one_line(str(each)) for each in problem["problems"]])
        case 412:
            seen, now = problem.get("seen"), problem.get("now")
            return errors.StaleChange(
                detail,
                current=problem.get("current"),
                seen=seen if isinstance(seen, int) else 0,
                now=now if isinstance(now, int) else 0,
            )
        case _:
            return _KINDS.get(status, errors.RolloutError)(detail)
