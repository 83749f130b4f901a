"""Headers, forms, paths and queries as an attacker writes them: refused or taken, and never a fault of ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollout.control.access import invite
from rollout.domain.access import hash_secret
from rollout.domain.roles import Role
from rollout.http.auth import cookie_name
from rollout.settings import Settings
from rollout.store.access import session_by_code
from tests.http.api_support import OURS, World, a_world, bare_app

Headers = list[tuple[bytes, bytes]]


class Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytes


@pytest.fixture(scope="module", params=["loopback's names", "any host"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    hosts = ("*",) if request.param == "any host" else ()
    with a_world(tmp_path_factory.mktemp("hostile"), Settings(allowed_hosts=hosts)) as world:
        yield world


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


async def ask(world: World, method: str, path: str, query: bytes, headers: Headers, body: bytes = b"") -> Answer:
    """Send a request past every client, which would put right what is wrong with it."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 50_000),
        "root_path": "",
        "method": method,
        "path": path,
        "raw_path": path.encode("utf-8", "replace"),
        "query_string": query,
        "headers": headers,
        "state": {},
    }
    sent: list[Any] = []
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await world.app(scope, receive, send)
    for name, value in sent[0]["headers"]:
        assert b"\r" not in name + value
        assert b"\n" not in name + value
    return Answer(sent[0]["status"], dict(sent[0]["headers"]), b"".join(each.get("body", b"") for each in sent[1:]))


NASTY = (
    "/€",
    "http://[",
    "http://[::1",
    "//evil.example",
    "null",
    "\x00",
    "a\x00b",
    "\x1b[2J",
    "%",
    "%zz",
    "%ED%A0%80",
    "%00",
    "\u202eevil",
    "\ud800",
    "9" * 30,
    "-1",
    "18446744073709551616",
    "9223372036854775808",
    "1e400",
    "NaN",
    '"9223372036854775808"',
    'W/"1"',
    '""',
    "*",
    ", , ,",
    "multipart/form-data; boundary=x",
    "multipart/form-data",
    "application/x-www-form-urlencoded; charset=klingon",
    "application/json; charset=utf-16",
    "text/html;q=x",
    "; ; =",
    "rollout_session=\xff; ;=;a",
    'for="[::1";proto=https, for=_x',
    "https, http",
    "999.999.999.999",
    "true",
    "gzip, br",
    "x" * 5_000,
)

TEXTS = st.sampled_from(NASTY) | st.text(max_size=30)
BYTES = (TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=30)).map(
    lambda value: re.sub(rb"[\r\n\x00]", b" ", value)  # the parser lets none of these through
)
NAMES = st.sampled_from(
    [
        *("host", "origin", "referer", "if-match", "if-none-match", "accept", "accept-encoding", "accept-language"),
        *("hx-request", "hx-current-url", "hx-target", "hx-trigger", "hx-boosted", "cookie", "content-type"),
        *("content-length", "content-encoding", "forwarded", "x-forwarded-for", "x-forwarded-proto", "range"),
        *("x-forwarded-host", "authorization", "x-csrf-token", "x-rollout-user", "sec-fetch-site", "if-modified-since"),
        *("upgrade", "connection", "transfer-encoding", "x-http-method-override", "last-event-id", "via", "te"),
    ]
)
HEADERS = st.lists(st.tuples(NAMES.map(str.encode), BYTES), max_size=5)
FIELDS = st.sampled_from(
    [
        *("code", "next", "csrf", "percentage", "stage", "reason", "seen", "skip_preflight", "confirm", "enabled"),
        *("user", "variant", "expires_at", "name", "role", "days", "models", "model", "which", "actor", "action"),
        *(
            "subject",
            "since",
            "until",
            "before",
            "limit",
            "lost",
            "done",
            "shown",
            "q",
            "query",
            "flag",
            "at",
            "revision",
        ),
    ]
)
PAIRS = st.lists(st.tuples(FIELDS, TEXTS), max_size=5)


def encoded(pairs: list[tuple[str, str]]) -> bytes:
    return urlencode(pairs, errors="surrogatepass").encode()


QUERIES = PAIRS.map(encoded) | BYTES
BODIES = PAIRS.map(encoded) | BYTES | st.sampled_from([b"", b"{}", b"[" * 2_000, b'{"reason": "\\ud800"}'])


def every_route(world: World) -> list[tuple[str, str]]:
    routes = {
        (method, str(context.path))
        for context in iter_route_contexts(bare_app(world).routes)
        for method in context.methods or ()
    }
    return sorted(routes | {("GET", "/static/{user}"), ("GET", "/{user}"), ("POST", "/{user}"), ("OPTIONS", "/")})


def test_whatever_is_sent_to_any_route_it_is_no_fault_of_ours(world: World, portal: BlockingPortal) -> None:
    cookie = world.browser()[0].cookies[cookie_name(world.plane)]
    good = {
        "nobody": [],
        "a token": [(b"authorization", f"Bearer {world.secrets[Role.ADMIN]}".encode())],
        "a session": [(b"cookie", f"{cookie_name(world.plane)}={cookie}".encode()), (b"origin", OURS.encode())],
    }
    form = [(b"content-type", b"application/x-www-form-urlencoded")]
    csrf = csrf_field(cookie)
    routes = every_route(world)
    assert len(routes) > 50

    @settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.sampled_from(routes),
        st.sampled_from(sorted(good)),
        st.sampled_from(["flag", "text"]),
        st.data(),
    )
    def whatever_comes(route: tuple[str, str], who: str, where: str, data: st.DataObject) -> None:
        method, template = route
        inside = "enableLiteLLM" if where == "flag" else data.draw(st.sampled_from(NASTY) | st.text(max_size=20))
        path = re.sub(r"\{[^}]*\}", inside.encode("utf-8", "replace").decode().replace("\\", "/"), template)
        hostile, query = data.draw(HEADERS), data.draw(QUERIES)
        body = data.draw(BODIES) if method not in {"GET", "HEAD"} else b""
        if who == "a session" and method == "POST" and data.draw(st.booleans()):
            hostile, body = [*form, *hostile], b"&".join(part for part in (csrf, body) if part)
        host = [] if any(name == b"host" for name, _ in hostile) else [(b"host", b"127.0.0.1:8080")]
        answer = portal.call(ask, world, method, path, query, [*host, *good[who], *hostile], body)
        assert answer.status < 500, (route, path, query, hostile, answer)

    whatever_comes()


def csrf_field(cookie: str) -> bytes:
    from rollout.http.auth import csrf_token

    return f"csrf={csrf_token(cookie)}".encode()


def test_a_sign_in_with_hostile_fields_and_headers_burns_no_code(world: World, portal: BlockingPortal) -> None:
    form = [(b"content-type", b"application/x-www-form-urlencoded")]

    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    @given(TEXTS, PAIRS, HEADERS)
    def whatever_comes(onward: str, pairs: list[tuple[str, str]], hostile: Headers) -> None:
        code = invite(world.door, "anna", Role.VIEWER, actor="test")
        world.plane.refresh()
        pairs = [("code", code), ("next", onward), *(pair for pair in pairs if pair[0] != "code")]
        host = [] if any(name == b"host" for name, _ in hostile) else [(b"host", b"127.0.0.1:8080")]
        answer = portal.call(ask, world, "POST", "/sign-in", b"", [*host, *form, *hostile], encoded(pairs))
        with world.door.reading() as connection:
            session = session_by_code(connection, hash_secret(code))
        assert session is not None
        signed_in = answer.status in {204, 303} and b"set-cookie" in answer.headers
        assert answer.status < 500
        assert session.opened is signed_in, (onward, hostile, answer)
        onward_said = answer.headers.get(b"location") or answer.headers.get(b"hx-redirect") or b"/"
        assert onward_said.startswith(b"/")
        assert not onward_said.startswith((b"//", b"/\\"))

    whatever_comes()


@pytest.mark.parametrize(
    ("onward", "said"),
    [
        ("/€", b"/%E2%82%AC"),
        ("/audit?actor=å&x=a%26b", b"/audit?actor=%C3%A5&x=a%26b"),
        ("http://[", b"/"),
        ("//[", b"/"),
        ("/\ud800", b"/"),
    ],
)
def test_a_sign_in_goes_on_in_ascii(world: World, portal: BlockingPortal, onward: str, said: bytes) -> None:
    code = invite(world.door, "anna", Role.VIEWER, actor="test")
    headers = [(b"host", b"localhost"), (b"content-type", b"application/x-www-form-urlencoded")]
    body = encoded([("code", code), ("next", onward)])
    answer = portal.call(ask, world, "POST", "/sign-in", b"", headers, body)
    assert answer.status == 303
    assert answer.headers[b"location"] == said or (onward == "/\ud800" and answer.headers[b"location"].isascii())


@pytest.mark.parametrize("header", [b"referer", b"hx-current-url"])
@pytest.mark.parametrize("value", [b"http://[", b"http://[::1", b"//[", b"\xff\xfe", b"javascript:alert(1)", b""])
def test_somebody_not_signed_in_is_shown_the_way_whatever_page_they_claim_to_come_from(
    world: World, portal: BlockingPortal, header: bytes, value: bytes
) -> None:
    headers = [(b"host", b"localhost"), (header, value), (b"hx-request", b"false")]
    answer = portal.call(ask, world, "POST", "/flags/enableLiteLLM/kill", b"", headers)
    assert answer.status == 303
    assert answer.headers[b"location"].startswith(b"/sign-in?next=")
