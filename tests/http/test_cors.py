"""Pages of other origins, and the completions endpoint: off, and on for named origins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rollout.dispatch.endpoint import create_data_plane
from rollout.domain.roles import Role
from rollout.http.app import assemble
from rollout.http.cors import EXPOSED
from rollout.resources import resource
from rollout.settings import parse_settings
from tests.dispatch import conftest as dispatching
from tests.http.api_support import FLAG, OURS, World, a_world

APP = "https://app.example"
ASKS = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-a"}
COMPLETIONS = "/v1/chat/completions"


def asking(world: World, origins: str) -> httpx.AsyncClient:
    """Return a client of the control plane with the real endpoint beside it; nothing is sent upstream."""
    settings = parse_settings({"ROLLOUT_CORS_ORIGINS": origins})
    assert settings.problems == ()
    world.plane.settings = settings
    routes = dispatching.FixedClient(dispatching.upstreams_at("http://127.0.0.1:1"))
    app = assemble(world.plane, create_data_plane(routes, authorize=world.plane.may_send))
    return world.client(None, app=app)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def shared(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


async def test_without_the_setting_no_other_origin_is_told_anything(world: World) -> None:
    async with asking(world, "") as client:
        preflight = await client.options(COMPLETIONS, headers=ASKS)
        listing = await client.options("/v1/models", headers=ASKS)
        plain = await client.post(COMPLETIONS, headers={"Origin": APP}, json={})
    assert (preflight.status_code, preflight.headers["allow"]) == (405, "POST")
    assert (listing.status_code, listing.headers["allow"]) == (405, "GET")
    assert preflight.json()["error"]["message"]
    assert shared(preflight) == shared(plain) == {}


async def test_a_named_origin_may_ask_and_read_what_was_decided(world: World) -> None:
    async with asking(world, f"{APP}, http://localhost:5173") as client:
        preflight = await client.options(COMPLETIONS, headers=ASKS)
        assert preflight.status_code == 200
        said = shared(preflight)
        assert said["access-control-allow-origin"] == APP
        assert "POST" in said["access-control-allow-methods"]
        assert said["access-control-allow-headers"] == "authorization,x-a"
        assert "Origin" in preflight.headers["vary"]
        for answer in (
            await client.get("/v1/models", headers={"Origin": "http://localhost:5173"}),  # a refusal is read too
            await client.get(
                "/v1/models",
                headers={
                    "Origin": "http://localhost:5173",
                    "Authorization": f"Bearer {world.secrets[Role.EVALUATE]}",
                },
            ),
        ):
            assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
            assert "Origin" in answer.headers["vary"]
            assert set(EXPOSED) <= set(answer.headers["access-control-expose-headers"].split(", "))
            assert "access-control-allow-credentials" not in answer.headers
    assert "access-control-allow-credentials" not in preflight.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", f"{APP}.evil.example", f"{APP}:8443", "http://app.example", "", "\xff"]
)
async def test_another_origin_is_told_nothing(world: World, origin: str) -> None:
    async with asking(world, APP) as client:
        headers = {b"Origin": origin.encode("latin-1"), b"Access-Control-Request-Method": b"POST"}
        preflight = await client.options(COMPLETIONS, headers=headers)
        plain = await client.get("/v1/models", headers={b"Origin": origin.encode("latin-1")})
    assert 400 <= preflight.status_code < 500
    for answer in (preflight, plain):
        assert "access-control-allow-origin" not in answer.headers


async def test_the_control_plane_is_for_no_other_origin(world: World) -> None:
    async with asking(world, APP) as client:
        for path in (FLAG, "/sign-in", "/api/v1/snapshot"):
            for answer in (
                await client.options(path, headers=ASKS),
                await client.get(path, headers={"Origin": APP}),
            ):
                assert shared(answer) == {}
        signing_in = await client.post("/sign-in", data={"code": "x"}, headers={"Origin": APP})
        assert signing_in.status_code == 403


def test_every_header_of_ours_may_be_read_by_a_page() -> None:
    folder = resource("static").parent / "rollout" / "dispatch"
    sources = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    ours = set(re.findall(r"b\"(x-rollout-[a-z-]+)\", ", sources)) | {"x-rollout-gateway-rewrites"}
    assert len(ours) >= 10
    assert ours <= {name.lower() for name in EXPOSED}


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        ("https://app.example", ("https://app.example",)),
        (" https://App.Example:443 ,http://localhost:5173/,", ("https://app.example", "http://localhost:5173")),
        ("http://[::1]:80", ("http://[::1]",)),
        ("https://a.example,https://a.example", ("https://a.example",)),
    ],
)
def test_origins_are_read_as_browsers_write_them(text: str, origins: tuple[str, ...]) -> None:
    settings = parse_settings({"ROLLOUT_CORS_ORIGINS": text})
    assert (settings.cors_origins, settings.problems) == (origins, ())


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "app.example",
        "https://app.example/path",
        "https://*.example",
        "ftp://a",
        "https://a b",
        "https://",
        "https://app.example, *",
        "https://u:p@a.example",
        "https://a.example?x",
        "https://å.example",
        "https://a:99999",
    ],
)
def test_what_is_no_origin_is_a_problem_that_names_the_variable(text: str) -> None:
    settings = parse_settings({"ROLLOUT_CORS_ORIGINS": text})
    (problem,) = settings.problems
    assert problem.variable == "ROLLOUT_CORS_ORIGINS"
    assert "https://app.example" in str(problem)
    assert settings.cors_origins == ()


async def test_a_session_is_no_way_into_the_endpoint(world: World) -> None:
    browser, _ = world.browser()
    async with asking(world, APP) as client:
        client.cookies = browser.cookies
        answer = await client.get("/v1/models", headers={"Origin": OURS})
    assert answer.status_code == 401
