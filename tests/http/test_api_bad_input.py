"""Whatever comes in: a clear answer that says what to do, nothing changed, and never a fault of ours."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.domain.flag import Flag
from rollout.domain.roles import Role
from rollout.http.auth import cookie_name
from rollout.http.bodies import MAX_BODY
from rollout.wire.snapshot import decode
from tests.http.api_support import FLAG, World, a_world, assert_problem

JSON = {"Content-Type": "application/json", "If-Match": "*"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world for questions that change nothing, which each of them checks."""
    with a_world(tmp_path_factory.mktemp("calm")) as world:
        yield world


async def _refused(world: World, method: str, path: str, body: bytes | str, status: int, says: str) -> None:
    before, published = world.head(), world.plane.published.etag
    async with world.client() as client:
        problem = assert_problem(await client.request(method, path, content=body, headers=JSON), status)
    assert says in problem["detail"], problem["detail"]
    assert len(problem["detail"]) < 2_000
    assert (world.head(), world.plane.published.etag) == (before, published)


@pytest.mark.parametrize(
    ("written", "status", "says"),
    [
        ("NaN", 400, "NaN is no JSON number"),
        ("Infinity", 400, "Infinity is no JSON number"),
        ("-Infinity", 400, "-Infinity is no JSON number"),
        ("1e400", 422, "a number from 0 to 100"),
        ("-1e400", 422, "a number from 0 to 100"),
        ('"10"', 422, "not text"),
        ('"ten"', 422, "not text"),
        ("true", 422, "a number from 0 to 100"),
        ("false", 422, "a number from 0 to 100"),
        ("[10]", 422, "a number from 0 to 100"),
        ("{}", 422, "a number from 0 to 100"),
        ("-0.001", 422, "a number from 0 to 100"),
        ("-1", 422, "a number from 0 to 100"),
        ("100.001", 422, "a number from 0 to 100"),
        ("101", 422, "a number from 0 to 100"),
        ("0.0001", 422, "steps of 0.001"),
        ("0.1e-3", 422, "steps of 0.001"),
        ("33.33333333333333", 422, "steps of 0.001"),
        ("1" * 41, 400, "too long"),
        ("-" + "1" * 5_000, 400, "too long"),
        ("1" * 39, 422, "a number from 0 to 100"),
        ("010", 400, "line 1, column"),
        ("1_0", 400, "line 1, column"),
        ("0x10", 400, "line 1, column"),
    ],
)
async def test_a_percentage_is_a_number_in_range_or_refused(calm: World, written: str, status: int, says: str) -> None:
    body = f'{{"percentage": {written}}}'
    await _refused(calm, "PATCH", FLAG, body, status, says)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 422, "body: this field is needed"),
        (b"{", 400, "line 1, column 2"),
        (b"percentage=10", 400, "line 1, column 1"),
        (b'{"percentage": 10,}', 400, "line 1"),
        (b"{'percentage': 10}", 400, "line 1, column 2"),
        (b'{"percentage": 10} {"percentage": 20}', 400, "Extra data"),
        (b'{"percentage": 10, "percentage": 90}', 400, "'percentage' is named twice"),
        (b'{"percent\\u0061ge": 10, "percentage": 90}', 400, "named twice"),
        (b"\xff\xfe", 400, "not UTF-8 from byte 0"),
        (b'{"reason": "\xe5"}', 400, "not UTF-8 from byte 12"),
        ('{"percentage": 10}'.encode("utf-16"), 400, "not UTF-8"),
        (b"\xef\xbb\xbf{}", 400, "BOM"),
        (b'{"percentage": 10}\x00', 400, "Extra data"),
        (b'{"reason": "a\x01b"}', 400, "control character"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (b'{"a":' * 100_000, 400, "nested too deeply"),
        (b"null", 422, "body"),
        (b"[]", 422, "body"),
        (b"10", 422, "body"),
        (b'{"percent": 10}', 422, "percent: there is no such field"),
        (b'{"killed": true}', 422, "killed: there is no such field"),
        (b'{"salt": "other"}', 422, "salt: there is no such field"),
        (b'{"\\ud800": 1}', 422, "surrogate"),
        (b'{"__proto__": {}}', 422, "there is no such field"),
        (b'{"enabled": "yes"}', 422, "enabled"),
        (b'{"enabled": 1}', 422, "enabled"),
        (b'{"skip_preflight": null}', 422, "skip_preflight"),
        (b'{"reason": 5}', 422, "reason"),
        (b'{"percentage": 10, "reason": "a\\u0000b"}', 422, "control character"),
        (b'{"percentage": 10, "reason": "a\\nb"}', 422, "control character"),
        (b'{"percentage": 10, "reason": "\\ud800"}', 422, ""),
        (b'{"percentage": 10, "description": "\\u2028"}', 422, "control character"),
        (json.dumps({"percentage": 10, "reason": "x" * 501}).encode(), 422, "501 characters long; 500 is the most"),
        (json.dumps({"percentage": 10, "description": "x" * 501}).encode(), 422, "500 is the most"),
        (json.dumps({f"field{number}": 1 for number in range(9_000)}).encode(), 422, "there is no such field"),
        (json.dumps({"x" * 9_000: 1}).encode(), 422, "there is no such field"),
    ],
)
async def test_a_patch_of_the_wrong_shape_is_refused(calm: World, body: bytes, status: int, says: str) -> None:
    await _refused(calm, "PATCH", FLAG, body, status, says)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{}", "variant: this field is needed"),
        ('{"variant": "maybe"}', "'on' or 'off', not 'maybe'"),
        ('{"variant": true}', "variant"),
        ('{"variant": "on", "expires_at": "tomorrow"}', "2026-12-01T00:00:00Z"),
        ('{"variant": "on", "expires_at": "2090-01-01T00:00:00"}', "time zone"),
        ('{"variant": "on", "expires_at": 1e12}', "ISO text"),
        ('{"variant": "on", "expires_at": "2020-01-01T00:00:00Z"}', "past"),
        ('{"variant": "on", "expires_at": "0001-01-01T00:00:00+14:00"}', "calendar"),
        ('{"variant": "on", "expires_at": "9999-12-31T23:59:59-14:00"}', "calendar"),
        ('{"variant": "on", "reason": "' + "x" * 501 + '"}', "500 is the most"),
    ],
)
async def test_an_override_of_the_wrong_shape_is_refused(calm: World, body: str, says: str) -> None:
    await _refused(calm, "PUT", f"{FLAG}/overrides/user-42", body, 422, says)


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("", "user is empty"),
        ("%20", "user is empty"),
        ("%00", "control character"),
        ("a%0Db", "control character"),
        ("a%7Fb", "control character"),
        ("a%C2%85b", "control character"),
        ("%E2%80%A8", "user is empty"),
        ("a%E2%80%A8b", "control character"),
        ("x" * 257, "256 is the most"),
        ("%F0%9F%99%82" * 257, "256 is the most"),
    ],
)
async def test_a_user_id_that_cannot_be_stored_is_refused(calm: World, user: str, says: str) -> None:
    await _refused(calm, "PUT", f"{FLAG}/overrides/{user}", '{"variant": "on"}', 422, says)
    await _refused(calm, "DELETE", f"{FLAG}/overrides/{user}", "", 422, says)


@pytest.mark.parametrize(
    ("key", "status"),
    [("nix", 404), ("a" * 81, 422), ("%00", 422), ("a%0Ab", 422), ("%C3%A5", 422), ("'--", 422), ("a" * 60_000, 422)],
)
async def test_a_flag_that_is_not_there_is_a_clear_answer(calm: World, key: str, status: int) -> None:
    for method, path, body in (
        ("PATCH", "", '{"percentage": 1}'),
        ("GET", "", ""),
        ("PUT", "/overrides/u", '{"variant": "on"}'),
        ("DELETE", "/overrides/u", ""),
        ("POST", "/kill", ""),
        ("POST", "/restore", "{}"),
    ):
        await _refused(calm, method, f"/api/v1/flags/{key}{path}", body, status, "'")


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ("[]", "empty"),
        ("null", "models"),
        ('"a/b:free"', "models"),
        ("[1]", "models"),
        ('["a/b:free", "a/b:free"]', "more than once"),
        ('["nonsense:free"]', "no model id"),
        ('["a/b:free\\u0000"]', "no model id"),
        ('["\\ud800/b:free"]', "no model id"),
        (json.dumps([f"a/b{number}:free" for number in range(21)]), "at most 20"),
        (json.dumps(["a/" + "b" * 300 + ":free"]), "no model id"),
        ('["a/paid"]', "ROLLOUT_ALLOW_PAID"),
    ],
)
async def test_a_cascade_that_cannot_be_is_refused(calm: World, models: str, says: str) -> None:
    await _refused(calm, "PUT", "/api/v1/cascade", f'{{"models": {models}}}', 422, says)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("{}", 422, "flag: this field is needed"),
        ('{"flag": 5}', 422, "flag"),
        ('{"flag": "enableLiteLLM", "context": []}', 422, "context"),
        ('{"flag": "enableLiteLLM", "context": null}', 422, "context"),
        ('{"flag": "enableLiteLLM", "context": {"targetingKey": 42}}', 422, "must be text"),
        ('{"flag": "enableLiteLLM", "context": {"targetingKey": "a\\u0000"}}', 422, "control characters"),
        ('{"flag": "enableLiteLLM", "context": {"targetingKey": "' + "x" * 1025 + '"}}', 422, "256 is the most"),
        ('{"flag": "enableLiteLLM", "context": {"a": 1, "a": 2}}', 400, "named twice"),
        ('{"flag": "' + "x" * 5_000 + '"}', 404, "there is no flag"),
        ('{"flag": "\\u0000"}', 404, "there is no flag"),
        ('{"flag": "enableLiteLLM", "context": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}", 400, "nested"),
    ],
)
async def test_an_evaluation_that_cannot_be_asked_is_refused(calm: World, body: str, status: int, says: str) -> None:
    await _refused(calm, "POST", "/api/v1/evaluate", body, status, says)


@pytest.mark.parametrize("query", ["user=a%00b", "user=" + "x" * 1025, "user=a&user=b"])
async def test_a_user_that_cannot_be_asked_about_is_refused(calm: World, query: str) -> None:
    async with calm.client() as client:
        answer = await client.get(f"/api/v1/feature-flags?{query}")
    assert_problem(answer, 400 if query.count("user") > 1 else 422)


@pytest.mark.parametrize("name", ["", " ", "x" * 81, "a\nb", "\u2028"])
async def test_a_name_that_cannot_be_shown_is_refused(calm: World, name: str) -> None:
    for path in ("/api/v1/tokens", "/api/v1/sign-in-links"):
        await _refused(calm, "POST", path, json.dumps({"name": name, "role": "viewer"}), 422, "name")


@pytest.mark.parametrize(
    "said", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "é", "json"]
)
async def test_a_body_that_does_not_say_it_is_json_is_refused(world: World, said: str | None) -> None:
    before = world.head()
    headers = {b"if-match": b"*"} | ({b"content-type": said.encode("latin-1")} if said else {})
    async with world.client() as client:
        for method, path in (("PATCH", FLAG), ("POST", f"{FLAG}/kill"), ("PUT", f"{FLAG}/overrides/u")):
            answer = await client.request(method, path, content=b'{"reason": "x"}', headers=headers)
            assert "application/json" in assert_problem(answer, 415)["detail"]
    assert world.head() == before


@pytest.mark.parametrize(
    "said", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/merge-patch+json"]
)
async def test_json_by_any_of_its_names_is_taken(world: World, said: str) -> None:
    async with world.client() as client:
        answer = await client.patch(FLAG, content=b"{}", headers={"If-Match": "*", "Content-Type": said})
    assert answer.status_code == 200


async def test_a_kill_needs_no_body_whatever_its_type(world: World) -> None:
    async with world.client() as client:
        answer = await client.post(f"{FLAG}/kill", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.json()["killed"] is True


async def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(world: World) -> None:
    before = world.head()

    async def chunks() -> Any:
        for _ in range(32):
            yield b" " * 65_536

    async with world.client() as client:
        declared = await client.patch(FLAG, content=b" " * (2 * MAX_BODY), headers=JSON)
        streamed = await client.patch(FLAG, content=chunks(), headers=JSON)
        lying = await client.post(f"{FLAG}/kill", headers={"Content-Length": "9" * 5_000})
        nonsense = await client.post(f"{FLAG}/kill", headers={"Content-Length": "ten"})
        just_fits = await client.patch(FLAG, content=b"{}".ljust(MAX_BODY), headers=JSON)
    for answer in (declared, streamed, lying, nonsense):
        assert "1,048,576 bytes" in assert_problem(answer, 413)["detail"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert just_fits.status_code == 200
    assert world.head() == before


async def test_unknown_routes_and_methods_are_problems_too(world: World) -> None:
    async with world.client() as client:
        assert_problem(await client.get("/api/v1/nix"), 404)
        assert_problem(await client.get("/api/v1/flags/a/b/c"), 404)
        wrong = await client.put(FLAG, json={})
        assert_problem(await client.request("PROPFIND", FLAG), 405)
    assert_problem(wrong, 405)
    assert wrong.headers["allow"]


async def test_no_answer_and_no_log_record_repeats_a_secret(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = world.secrets[Role.ADMIN]
    browser, csrf = world.browser()
    cookie = browser.cookies[cookie_name(world.plane)]
    answers: list[httpx.Response] = []
    async with world.client() as client, browser:
        for path in (FLAG, f"{FLAG}/overrides/u", f"{FLAG}/kill", "/api/v1/cascade", "/api/v1/nix", "/api/v1/tokens"):
            for method in ("GET", "PUT", "PATCH", "POST", "DELETE"):
                for body in (b"{", b"[]", b'{"x": 1}', json.dumps({"name": secret, "role": secret}).encode()[:20]):
                    answers.append(await client.request(method, path, content=body, headers=JSON))
                    answers.append(await browser.request(method, path, content=body, headers=JSON))
        answers.append(await client.get(FLAG, headers={"Authorization": "Bearer rollout_not-one-of-ours"}))
    said = "".join(answer.text for answer in answers if answer.is_error)
    logged = "\n".join(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
    assert len([answer for answer in answers if answer.is_error]) > 100
    for word in (secret, cookie, csrf, "rollout_not-one-of-ours"):
        assert word not in said
        assert word not in logged
    assert not [answer for answer in answers if answer.status_code >= 500]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_FIELDS = st.sampled_from(
    ["enabled", "percentage", "description", "reason", "skip_preflight", "variant", "expires_at", "flag", "context"]
)
_NEARLY = st.dictionaries(_FIELDS, _JSON | st.sampled_from(["on", "off", "enableLiteLLM", "2090-01-01T00:00:00Z"]))
_BODIES = st.binary(max_size=60) | (_JSON | _NEARLY).map(lambda document: json.dumps(document).encode())


def test_no_body_is_answered_by_a_fault_of_ours(world: World) -> None:
    paths = {"PATCH": FLAG, "PUT": f"{FLAG}/overrides/user-42", "POST": "/api/v1/evaluate"}

    async def ask(method: str, body: bytes) -> None:
        before = world.head()
        async with world.client() as client:
            answer = await client.request(method, paths[method], content=body, headers=JSON)
        assert answer.status_code < 500
        if answer.is_error:
            assert_problem(answer, answer.status_code)
            assert world.head() == before

    @settings(max_examples=250)
    @given(st.sampled_from(sorted(paths)), _BODIES)
    def whatever_comes(method: str, body: bytes) -> None:
        portal.call(ask, method, body)

    with start_blocking_portal() as portal:
        whatever_comes()
    # a change that was taken left a flag that can be read again
    assert isinstance(decode(world.plane.published.snapshot).flags["enableLiteLLM"], Flag)


_ADDRESSES = (
    ("GET", "/api/v1/flags/{}"),
    ("PUT", FLAG + "/overrides/{}"),
    ("DELETE", FLAG + "/overrides/{}?reason={}"),
    ("DELETE", "/api/v1/tokens/{}"),
    ("GET", "/api/v1/audit/{}"),
    ("GET", "/api/v1/audit?actor={}&user={}&since={}&before={}"),
    ("GET", "/api/v1/audit?subject={}&action={}"),
    ("GET", "/api/v1/feature-flags?user={}"),
)


def test_no_path_or_query_is_answered_by_a_fault_of_ours(world: World) -> None:
    async def ask(method: str, address: str, text: str) -> None:
        quoted = "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
        content = b'{"variant": "on"}' if method == "PUT" else b""
        async with world.client() as client:
            answer = await client.request(method, address.replace("{}", quoted), content=content, headers=JSON)
        assert answer.status_code < 500, (method, address, answer.text)

    @settings(max_examples=250)
    @given(st.sampled_from(_ADDRESSES), st.text(st.characters(), max_size=40))
    def whatever_comes(place: tuple[str, str], text: str) -> None:
        portal.call(ask, *place, text)

    with start_blocking_portal() as portal:
        whatever_comes()
