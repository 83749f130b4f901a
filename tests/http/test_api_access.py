"""Who may do what: access tokens, sessions, roles on every route."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from rollout.control.access import SESSION_LIFETIME, create_token, redeem, revoke, sign_out
from rollout.domain.roles import Role
from rollout.http.auth import caller_of, cookie_name, csrf_token
from tests.databases import Clock
from tests.http.api_support import FLAG, MODELS, OURS, World, a_world, assert_problem, bare_app

EVALUATE, VIEWER, OPERATOR, ADMIN = Role

ROUTES: list[tuple[str, str, str, object, Role]] = [
    ("GET", "/api/v1/snapshot", "/api/v1/snapshot", None, EVALUATE),
    ("POST", "/api/v1/evaluate", "/api/v1/evaluate", {"flag": "enableLiteLLM"}, EVALUATE),
    ("GET", "/api/v1/feature-flags", "/api/v1/feature-flags", None, EVALUATE),
    ("GET", "/api/v1/flags", "/api/v1/flags", None, VIEWER),
    ("GET", "/api/v1/flags/{key}", FLAG, None, VIEWER),
    ("GET", "/api/v1/cascade", "/api/v1/cascade", None, VIEWER),
    ("GET", "/api/v1/audit", "/api/v1/audit", None, VIEWER),
    ("GET", "/api/v1/audit/head", "/api/v1/audit/head", None, VIEWER),
    ("GET", "/api/v1/audit/verify", "/api/v1/audit/verify", None, VIEWER),
    ("GET", "/api/v1/audit/{revision}", "/api/v1/audit/1", None, VIEWER),
    ("GET", "/api/v1/openapi.json", "/api/v1/openapi.json", None, VIEWER),
    ("PATCH", "/api/v1/flags/{key}", FLAG, {"percentage": 1}, OPERATOR),
    ("POST", "/api/v1/flags/{key}/overrides", f"{FLAG}/overrides", {"overrides": {}}, OPERATOR),
    ("PUT", "/api/v1/flags/{key}/overrides/{user:path}", f"{FLAG}/overrides/u", {"variant": "on"}, OPERATOR),
    ("DELETE", "/api/v1/flags/{key}/overrides/{user:path}", f"{FLAG}/overrides/u", None, OPERATOR),
    ("POST", "/api/v1/flags/{key}/kill", f"{FLAG}/kill", None, OPERATOR),
    ("POST", "/api/v1/flags/{key}/restore", f"{FLAG}/restore", None, OPERATOR),
    ("PUT", "/api/v1/cascade", "/api/v1/cascade", {"models": [MODELS[1]]}, OPERATOR),
    ("POST", "/api/v1/models/lift", "/api/v1/models/lift", {"model": MODELS[1]}, OPERATOR),
    ("POST", "/api/v1/breakers/reset", "/api/v1/breakers/reset", {"which": "quota"}, OPERATOR),
    ("GET", "/api/v1/tokens", "/api/v1/tokens", None, ADMIN),
    ("POST", "/api/v1/tokens", "/api/v1/tokens", {"name": "n", "role": "viewer"}, ADMIN),
    ("DELETE", "/api/v1/tokens/{token_id:path}", "/api/v1/tokens/n", None, ADMIN),
    ("POST", "/api/v1/sign-in-links", "/api/v1/sign-in-links", {"name": "n", "role": "viewer"}, ADMIN),
    ("GET", "/api/v1/sessions", "/api/v1/sessions", None, EVALUATE),
]
"""Method, template, an address, a body, and the least role; in an order in which each works once."""

OPEN = {
    ("GET", "/livez"),
    ("HEAD", "/livez"),
    ("GET", "/readyz"),
    ("HEAD", "/readyz"),
    ("GET", "/health"),
    ("GET", "/health/providers"),
    ("GET", "/sign-in"),
    ("POST", "/sign-in"),
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


def _asks_who_calls(dependant: Dependant) -> bool:
    return dependant.call is caller_of or any(map(_asks_who_calls, dependant.dependencies))


def test_every_route_but_health_and_sign_in_asks_who_calls(world: World) -> None:
    asking: set[tuple[str, str | None]] = set()
    open_routes: set[tuple[str, str | None]] = set()
    for context in iter_route_contexts(bare_app(world).routes):
        dependant = getattr(context.original_route, "dependant", None)
        for method in context.methods or ():
            asks = dependant is not None and _asks_who_calls(dependant)
            (asking if asks else open_routes).add((method, context.path))
    assert open_routes == OPEN
    api = {(method, path) for method, path in asking if path is not None and path.startswith("/api/")}
    assert api == {(method, template) for method, template, *_ in ROUTES} | {
        ("DELETE", "/api/v1/sessions/{session_id}")
    }
    assert len(asking) > len(api)


@pytest.mark.parametrize("role", list(Role))
async def test_each_role_reaches_its_routes_and_no_other(world: World, role: Role) -> None:
    async with world.client(role) as client:
        for method, template, address, body, needed in ROUTES:
            before = world.head()
            answer = await client.request(method, address, json=body, headers={"If-Match": "*"})
            if role.reaches(needed):
                assert answer.is_success, (method, template, answer.text)
            else:
                problem = assert_problem(answer, 403)
                assert f"role {needed}; you have {role}" in problem["detail"]
                assert world.head() == before


async def test_without_credentials_every_route_of_the_api_asks_for_them(world: World) -> None:
    before = world.head()
    async with world.client(None) as client:
        for method, _, address, body, _ in ROUTES:
            answer = await client.request(method, address, json=body, headers={"If-Match": "*"})
            assert_problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
    assert world.head() == before


@pytest.mark.parametrize(
    "credentials",
    [
        "Bearer",
        "Bearer ",
        "Bearer rollout_nix",
        "Bearer \xe5",
        "Basic YWRtaW46YWRtaW4=",
        "rollout_nix",
        "Bearer " + "x" * 10_000,
    ],
)
async def test_credentials_that_do_not_hold_are_refused(world: World, credentials: str) -> None:
    async with world.client(None) as client:
        headers = {b"Authorization": credentials.encode("latin-1")}
        assert_problem(await client.get(FLAG, headers=headers), 401)


async def test_the_hash_of_a_secret_is_no_secret(world: World) -> None:
    with world.door.reading() as connection:
        hashes = connection.exec_driver_sql("SELECT secret_hash FROM access_tokens").scalars().all()
    async with world.client(None) as client:
        for stored in hashes:
            assert_problem(await client.get(FLAG, headers={"Authorization": f"Bearer {stored}"}), 401)


async def test_a_new_token_is_shown_once_and_kept_as_a_hash(world: World) -> None:
    async with world.client() as client:
        made = await client.post("/api/v1/tokens", json={"name": "app", "role": "evaluate", "reason": "for the app"})
        secret = made.json()["access_token"]
        listed = await client.get("/api/v1/tokens")
        audit = await client.get("/api/v1/audit")
        used = await client.get("/api/v1/snapshot", headers={"Authorization": f"Bearer {secret}"})
    assert made.status_code == 201
    assert list(made.json()) == [
        "id",
        "name",
        "role",
        "created_at",
        "revoked_at",
        "expires_at",
        "last_used_at",
        "access_token",
    ]
    assert secret.startswith("rollout_")
    assert used.status_code == 200
    assert secret not in listed.text + audit.text
    assert not any(secret.encode() in file.read_bytes() for file in world.path.parent.iterdir())


async def test_a_revoked_token_is_refused_at_once(world: World) -> None:
    async with world.client() as admin, world.client(None) as client:
        made = (await admin.post("/api/v1/tokens", json={"name": "app", "role": "viewer"})).json()
        client.headers["Authorization"] = f"Bearer {made['access_token']}"
        assert (await client.get(FLAG)).status_code == 200
        revoked = await admin.delete(f"/api/v1/tokens/{made['id']}")
        assert_problem(await client.get(FLAG), 401)
        head = world.head()
        assert (await admin.delete(f"/api/v1/tokens/{made['id']}")).status_code == 200
        assert world.head() == head
    (row,) = [row for row in revoked.json()["tokens"] if row["id"] == made["id"]]
    assert row["revoked_at"].endswith("Z")
    assert not world.plane.may_send(made["access_token"])


async def test_a_name_that_two_tokens_share_revokes_neither(world: World) -> None:
    for _ in range(2):
        create_token(world.door, "twin", VIEWER, actor="test")
    head = world.head()
    async with world.client() as client:
        assert "by its id" in assert_problem(await client.delete("/api/v1/tokens/twin"), 404)["detail"]
        assert_problem(await client.delete("/api/v1/tokens/nobody"), 404)
    assert world.head() == head


@pytest.mark.parametrize("role", ["root", "", "ADMIN", "viewer\n"])
async def test_a_role_that_is_none_is_refused(world: World, role: str) -> None:
    head = world.head()
    async with world.client() as client:
        for path in ("/api/v1/tokens", "/api/v1/sign-in-links"):
            problem = assert_problem(await client.post(path, json={"name": "n", "role": role}), 422)
            assert "evaluate, viewer, operator, admin" in problem["detail"]
    assert world.head() == head


async def test_a_sign_in_link_opens_one_session(world: World) -> None:
    async with world.client() as admin:
        made = await admin.post("/api/v1/sign-in-links", json={"name": "Asta", "role": "viewer"})
        assert (made.status_code, made.json() | {"code": ""}) == (201, {"name": "Asta", "role": "viewer", "code": ""})
    session = redeem(world.door, made.json()["code"])
    async with world.client(None) as client:
        client.cookies.set(cookie_name(world.plane), session.secret)
        assert (await client.get(FLAG)).status_code == 200
        sign_out(world.door, session.secret)
        problem = assert_problem(await client.get(FLAG), 401)
    assert "sign in again" in problem["detail"]


async def test_a_session_ends_by_itself(tmp_path: Path) -> None:
    clock = Clock()
    with a_world(tmp_path, clock=clock) as world:
        client, _ = world.browser(VIEWER)
        async with client:
            clock.move(SESSION_LIFETIME - timedelta(seconds=1))
            assert (await client.get(FLAG)).status_code == 200
            clock.move(timedelta(seconds=1))
            assert_problem(await client.get(FLAG), 401)


async def test_reading_with_a_session_needs_no_proof(world: World) -> None:
    client, _ = world.browser(VIEWER)
    async with client:
        assert (await client.get(FLAG, headers={"Origin": "https://evil.example"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-CSRF-Token": "wrong"},
        {"X-CSRF-Token": "\u00e5".encode("latin-1").decode("latin-1")},
        {"X-CSRF-Token": "right", "Origin": "https://evil.example"},
        {"X-CSRF-Token": "right", "Origin": "http://127.0.0.1:9999"},
        {"X-CSRF-Token": "right", "Origin": "null"},
        {"X-CSRF-Token": "right", "Origin": "http://["},
        {"X-CSRF-Token": "right", "Origin": ""},
        {"X-CSRF-Token": "right", "Sec-Fetch-Site": "cross-site"},
        {"X-CSRF-Token": "right", "Sec-Fetch-Site": "same-site"},
        {"X-CSRF-Token": "of another session"},
    ],
)
async def test_a_change_with_a_session_from_elsewhere_does_nothing(world: World, headers: dict[str, str]) -> None:
    client, token = world.browser()
    _, another = world.browser()
    tokens = {"right": token, "of another session": another}
    sent = {name: tokens.get(value, value).encode("latin-1") for name, value in headers.items()}
    before = world.head()
    async with client:
        for method, path in (("POST", f"{FLAG}/kill"), ("DELETE", f"{FLAG}/overrides/u"), ("PATCH", FLAG)):
            answer = await client.request(method, path, json={}, headers=sent)  # type: ignore[arg-type]  # bytes are taken too
            assert "othing was done" in assert_problem(answer, 403)["detail"]
    assert world.head() == before


@pytest.mark.parametrize("headers", [{}, {"Origin": OURS}, {"Sec-Fetch-Site": "same-origin"}])
async def test_a_change_with_a_session_from_our_own_page_is_made(world: World, headers: dict[str, str]) -> None:
    client, token = world.browser(OPERATOR)
    async with client:
        answer = await client.post(f"{FLAG}/kill", headers={"X-CSRF-Token": token, **headers})
    assert answer.json()["killed"] is True


async def test_an_access_token_needs_neither_origin_nor_csrf(world: World) -> None:
    async with world.client(OPERATOR) as client:
        answer = await client.post(f"{FLAG}/kill", headers={"Origin": "https://app.example"})
    assert answer.json()["killed"] is True


async def test_a_token_counts_before_a_cookie(world: World) -> None:
    client, _ = world.browser(ADMIN)
    async with client:
        answer = await client.get("/api/v1/tokens", headers={"Authorization": f"Bearer {world.secrets[VIEWER]}"})
        assert_problem(answer, 403)
        assert_problem(await client.get("/api/v1/tokens", headers={"Authorization": "Bearer nix"}), 401)


def test_csrf_tokens_are_of_one_session() -> None:
    assert csrf_token("one") == csrf_token("one")
    assert csrf_token("one") != csrf_token("two")
    assert "one" not in csrf_token("one")


async def test_revoking_beside_the_server_is_noticed(world: World) -> None:
    made = create_token(world.door, "app", VIEWER, actor="test")
    world.plane.refresh()
    revoke(world.door, made.token.id, actor="test")
    world.plane.refresh()
    async with world.client(None) as client:
        assert_problem(await client.get(FLAG, headers={"Authorization": f"Bearer {made.secret}"}), 401)
