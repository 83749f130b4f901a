"""The outermost layer: hosts, bodies, and what browsers may do."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.domain.roles import Role
from rollout.http.security import (
    BrowserRules,
    HostCheck,
    Message,
    Receive,
    Scope,
    Send,
    allowed_hosts,
    host_name,
    is_origin_of,
)
from rollout.settings import Settings, parse_settings
from tests.http.api_support import FLAG, World, a_world, assert_problem, bare_app


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with a_world(tmp_path_factory.mktemp("calm")) as world:
        yield world


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost", "localhost"),
        ("localhost:8080", "localhost"),
        ("localhost:", "localhost"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]", "[::1]"),
        ("[::1]:8080", "[::1]"),
        ("localhost:evil.example", "localhost:evil.example"),
        ("localhost:80:evil.example", "localhost:80:evil.example"),
        ("[::1]evil.example", "[::1]evil.example"),
        ("[::1]:8080.evil.example", "[::1]:8080.evil.example"),
        ("[::1", "[::1"),
        ("::1", "::1"),
        ("", ""),
        ("user@localhost", "user@localhost"),
    ],
)
def test_a_host_header_is_a_name_and_perhaps_a_port_or_nothing_we_know(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "[::1]", "localhost:65535"]
)
async def test_loopback_names_are_answered_with_any_port(calm: World, host: str) -> None:
    async with calm.client() as client:
        assert (await client.get(FLAG, headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "localhost:evil.example",
        "127.0.0.2",
        "0.0.0.0",
        "[::]",
        "[::1]evil.example",
        "",
        "x" * 5_000,
    ],
)
async def test_a_host_that_is_not_ours_is_not_answered_on_any_route(calm: World, host: str) -> None:
    async with calm.client() as client:
        for path in ("/health", FLAG, "/v1/models", "/static/nix", "/sign-in"):
            problem = assert_problem(await client.get(path, headers={"Host": host}), 421)
            assert "ROLLOUT_ALLOWED_HOSTS" in problem["detail"]
            assert len(problem["detail"]) < 300


async def test_a_request_without_a_host_is_not_answered(world: World) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    await world.app({"type": "http", "method": "GET", "path": "/health", "headers": []}, receive, send)
    assert sent[0]["status"] == 421


@pytest.mark.parametrize(
    ("environ", "answered", "refused"),
    [
        ({}, ["localhost", "127.0.0.1", "[::1]"], ["rollout.example", "0.0.0.0"]),
        ({"ROLLOUT_HOST": "10.0.0.5"}, ["10.0.0.5:8080", "localhost"], ["10.0.0.6"]),
        ({"ROLLOUT_HOST": "0.0.0.0"}, ["localhost"], ["0.0.0.0", "10.0.0.5"]),
        ({"ROLLOUT_HOST": "::"}, ["localhost", "[::1]"], ["[::]"]),
        ({"ROLLOUT_HOST": "fe80::1"}, ["[fe80::1]:8080", "[FE80::1]"], ["[fe80::2]"]),
        (
            {"ROLLOUT_ALLOWED_HOSTS": "Rollout.Example, b.example:8080"},
            ["rollout.example:9", "B.EXAMPLE"],
            ["c.example"],
        ),
        ({"ROLLOUT_ALLOWED_HOSTS": "fe80::1,[fe80::2]"}, ["[fe80::1]", "[fe80::2]:80"], ["[fe80::3]", "fe80"]),
        ({"ROLLOUT_ALLOWED_HOSTS": "*"}, ["anything.example", ""], []),
    ],
)
async def test_the_names_answered_are_loopback_the_bound_one_and_those_given(
    tmp_path: Path, environ: dict[str, str], answered: list[str], refused: list[str]
) -> None:
    with a_world(tmp_path, parse_settings(environ)) as world:
        async with world.client() as client:
            for host, status in [(name, 200) for name in answered] + [(name, 421) for name in refused]:
                for _ in range(2):
                    assert (await client.get("/health", headers={"Host": host})).status_code == status, host


async def test_every_answer_tells_browsers_what_they_may_do(world: World) -> None:
    world.down()
    headers = {"If-Match": "*", "Content-Type": "application/json"}
    async with world.client() as client:
        answers = [
            await client.get(FLAG),
            await client.get("/livez"),
            await client.get("/sign-in"),
            await client.get("/static/nix"),
            await client.get("/nix"),
            await client.get("/api/v1/snapshot", headers={"If-None-Match": "*"}),
            await client.patch(FLAG, json={}),
            await client.patch(FLAG, json={"percentage": 5}, headers=headers),
            await client.patch(FLAG, content=b"{", headers=headers),
            await client.patch(FLAG, content=b" " * (2 << 20), headers=headers),
            await client.put(FLAG),
            await client.get(FLAG, headers={"Authorization": ""}),
            await client.get(FLAG, headers={"Host": "evil.example"}),
        ]
    assert [answer.status_code for answer in answers] == [
        *(200, 200, 200, 404, 404, 304, 428, 409, 400, 413, 405, 401, 421),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"]
        assert "access-control-allow-origin" not in answer.headers
        for name in ("content-security-policy", "x-content-type-options", "cache-control"):
            assert len(answer.headers.get_list(name)) == 1


async def test_the_completions_endpoint_stands_behind_the_host_check_alone(world: World) -> None:
    async with world.client(None) as client:
        answer = await client.get("/v1/models")
        refused = await client.get("/v1/models", headers={"Host": "evil.example"})
    assert (answer.headers["x-beside"], answer.text) == ("yes", "/v1/models")
    assert refused.status_code == 421


async def _ask(app: Any, messages: list[Message], **scope: Any) -> list[Message]:
    sent: list[Message] = []
    given = iter(messages)

    async def receive() -> Message:
        return next(given, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "headers": [(b"host", b"localhost")], "query_string": b"", **scope}
    await app(whole, receive, send)
    return sent


async def test_half_a_request_is_none(world: World) -> None:
    before = world.head()
    headers = [
        (b"host", b"localhost"),
        (b"authorization", f"Bearer {world.secrets[Role.ADMIN]}".encode()),
        (b"content-type", b"application/json"),
    ]
    scope = {"path": f"{FLAG}/kill", "raw_path": f"{FLAG}/kill".encode(), "headers": headers, "root_path": ""}
    begun: list[Message] = [{"type": "http.request", "body": b'{"rea', "more_body": True}]
    assert await _ask(world.app, [*begun, {"type": "http.disconnect"}], **scope) == []
    assert world.head() == before
    whole: list[Message] = [*begun, {"type": "http.request", "body": b'son": "x"}', "more_body": False}]
    assert (await _ask(world.app, whole, **scope))[0]["status"] == 200
    assert world.head() != before


async def test_an_answer_may_still_hear_that_its_reader_went_away() -> None:
    heard = []

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(await receive())
        heard.append(await receive())

    await _ask(BrowserRules(listening), [{"type": "http.request", "body": b"x"}], path="/")
    assert heard == [{"type": "http.request", "body": b"x", "more_body": False}, {"type": "http.disconnect"}]


async def test_what_is_no_request_passes_through() -> None:
    seen = []

    async def anything(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await _ask(HostCheck(BrowserRules(anything), allowed_hosts(Settings())), [], type="lifespan")
    assert seen == ["lifespan"]


async def test_a_fault_of_ours_is_a_problem_that_tells_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = bare_app(world)

    def broken() -> None:
        raise ValueError("a secret stands here")

    app.add_api_route("/api/v1/broken", broken)

    transport = httpx.ASGITransport(BrowserRules(app), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/api/v1/broken")
    assert "secret" not in answer.text
    assert_problem(answer, 500)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("host", ["10.1.2.3:8080", "[fd00::1]:8080", "evil.example", ""])
async def test_probes_are_answered_whatever_host_they_ask(calm: World, path: str, method: str, host: str) -> None:
    async with calm.client() as client:
        assert (await client.request(method, path, headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "ours"),
    [
        ("https://flags.example", "flags.example", True),
        ("https://flags.example", "flags.example:443", True),
        ("https://flags.example:8443", "flags.example:8443", True),
        ("https://flags.example:8443", "flags.example", True),
        ("HTTPS://Flags.Example", "flags.example", True),
        ("http://flags.example", "flags.example:80", True),
        ("http://[0:0::1]:8080", "[::1]:8080", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("http://127.0.0.1:9999", "127.0.0.1:8080", False),
        ("http://localhost:9999", "localhost", False),
        ("http://localhost", "localhost", True),
        ("https://flags.example", "flags.example:8443", False),
        ("https://flags.example:8443", "flags.example:8444", False),
        ("https://evil.example", "flags.example", False),
        ("https://flags.example.evil.example", "flags.example", False),
        ("https://flags.example@evil.example", "flags.example", False),
        ("null", "null", False),
        ("null", "", False),
        ("https://", "", False),
        ("https://[", "[", False),
        ("file://flags.example", "flags.example", False),
    ],
)
def test_an_origin_is_ours_however_a_proxy_writes_the_port(origin: str, host: str, ours: bool) -> None:
    assert is_origin_of(origin, host) is ours
