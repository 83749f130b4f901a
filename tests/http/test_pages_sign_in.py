"""The way in and the way out."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from rollout.control.access import invite
from rollout.domain.roles import Role
from rollout.http.auth import cookie_name
from rollout.http.pages.session import same_site
from tests.http.api_support import OURS, World, a_world
from tests.http.pages_support import PAGE, a_browser, nothing_changes, words


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path) as world:
        yield world


async def _redeem(client: httpx.AsyncClient, code: str, **more: str) -> httpx.Response:
    return await client.post("/sign-in", data={"code": code, **more}, headers={"Origin": str(client.base_url)})


async def test_a_code_works_once_and_opens_a_session_in_a_guarded_cookie(world: World) -> None:
    code = invite(world.door, "anna", Role.OPERATOR, actor="test")
    client = world.client(None)
    answer = await _redeem(client, f"  {code} ", next="/audit?actor=x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit?actor=x")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{cookie_name(world.plane)}=")
    parts = {part.strip().partition("=")[0].lower(): part.strip().partition("=")[2] for part in cookie.split(";")}
    assert "httponly" in parts
    assert "secure" not in parts
    assert (parts["samesite"].lower(), parts["path"]) == ("lax", "/")
    assert 12 * 3600 - 60 <= int(parts["max-age"]) <= 12 * 3600
    assert (await client.get(PAGE)).status_code == 200
    with nothing_changes(world):
        again = await _redeem(world.client(None), code)
    assert again.status_code == 401
    assert "was used already" in words(again.text)
    assert "set-cookie" not in again.headers


async def test_a_used_link_of_somebody_who_is_signed_in_goes_on_to_the_page(world: World) -> None:
    browser = a_browser(world)
    code = invite(world.door, "anna", Role.OPERATOR, actor="test")
    await _redeem(world.client(None), code)
    with nothing_changes(world):
        again = await _redeem(browser.client, code, next="/audit")
    assert (again.status_code, again.headers["location"]) == (303, "/audit")
    await browser.post("/sign-out")
    assert (await _redeem(browser.client, code)).status_code == 401


async def test_the_whole_link_is_as_good_as_its_code(world: World) -> None:
    code = invite(world.door, "anna", Role.OPERATOR, actor="test")
    answer = await _redeem(world.client(None), f"{OURS}/sign-in#code={code}")
    assert answer.status_code == 303


async def test_over_https_the_cookie_is_secure(world: World) -> None:
    code = invite(world.door, "anna", Role.VIEWER, actor="test")
    transport = httpx.ASGITransport(world.app)
    client = httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1")
    assert "Secure" in (await _redeem(client, code)).headers["set-cookie"]


async def test_a_sign_in_from_another_site_signs_nobody_in(world: World) -> None:
    code = invite(world.door, "anna", Role.VIEWER, actor="test")
    for headers in ({"Origin": "https://evil.test"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        with nothing_changes(world):
            answer = await world.client(None).post("/sign-in", data={"code": code}, headers=headers)
        assert answer.status_code == 403
    assert (await _redeem(world.client(None), code)).status_code == 303


@pytest.mark.parametrize("code", ["", "nonsense", "x" * 5000, "é\x00"])
async def test_a_wrong_code_says_what_to_do(world: World, code: str) -> None:
    with nothing_changes(world):
        answer = await _redeem(world.client(None), code)
    assert answer.status_code == 401
    assert "make a new one with rollout sign-in ." in words(answer.text)


async def test_somebody_who_is_not_signed_in_is_shown_the_way_and_comes_back(world: World) -> None:
    answer = await world.client(None).get(f"{PAGE}/why?user=a%26b")
    where = urlsplit(answer.headers["location"])
    assert (answer.status_code, where.path) == (303, "/sign-in")
    assert parse_qs(where.query)["next"] == [f"{PAGE}/why?user=a%26b"]
    page = await world.client(None).get(answer.headers["location"])
    assert f'value="{PAGE}/why?user=a%26b"' in page.text


async def test_a_form_whose_session_is_over_says_that_nothing_was_done(world: World) -> None:
    headers = {"Referer": f"{OURS}{PAGE}", "Origin": OURS}
    with nothing_changes(world):
        answer = await world.client(None).post(f"{PAGE}/kill", headers=headers)
        piece = await world.client(None).get(
            f"{PAGE}/band", headers={"HX-Request": "true", "HX-Current-URL": OURS + PAGE}
        )
    assert answer.status_code == 303
    assert parse_qs(urlsplit(answer.headers["location"]).query) == {"next": [PAGE], "lost": ["1"]}
    assert "nothing was changed" in words((await world.client(None).get(answer.headers["location"])).text)
    assert piece.status_code == 401
    assert piece.headers["hx-retarget"] == "#session", "the page stays, with what was typed into it"
    assert "Your session is over." in words(piece.text)


async def test_signing_out_closes_the_session_itself(world: World) -> None:
    browser = a_browser(world, Role.VIEWER)
    cookie = browser.client.cookies[cookie_name(world.plane)]
    answer = await browser.post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    stolen = world.client(None)
    stolen.cookies.set(cookie_name(world.plane), cookie)
    assert (await stolen.get(PAGE)).status_code == 303


@pytest.mark.parametrize(
    "where",
    [
        "https://evil.test/",
        "//evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "javascript:alert(1)",
        "/a\nb",
        "/x\\y",
        "",
        "audit",
        "/sign-in?next=/",
        "/sign-out",
    ],
)
def test_going_on_never_leaves_the_site(where: str) -> None:
    assert same_site(where) == "/"


@pytest.mark.parametrize("where", ["/", "/audit?actor=a&before=3", "/flags/enableLiteLLM#forced"])
def test_going_on_keeps_a_path_of_our_own(where: str) -> None:
    assert same_site(where) == where
