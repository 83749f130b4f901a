"""Rules that hold for every page: no inline code, fragments, what is vendored, colours that can be read."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from rollout.control.flags import FlagChange, change_flag, kill, set_override
from rollout.control.models import quarantine
from rollout.domain.failure import FailureKind
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.domain.flag import Path as Where
from rollout.http.pages import PARTS
from rollout.http.pages.render import HTMX_SHA256
from rollout.resources import resource
from tests.http.api_support import MODELS, World, a_gate, a_world, trip
from tests.http.pages_support import PAGE, Tags, a_browser, is_whole, seen

TEMPLATES, STATIC = resource("templates"), resource("static")
ROUTES = {
    f"{method} {route.path}"
    for part in PARTS
    for route in part.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with a_world(tmp_path, gate=a_gate()) as world:
        yield world


def _named(template: Path) -> list[str]:
    first = template.read_text(encoding="utf-8").splitlines()[0]
    found = re.fullmatch(r"\{# (.+) #\}", first)
    assert found, f"{template.name} does not begin with its route"
    return found[1].split(", ")


FRAGMENTS = {path.name: _named(path) for path in sorted(TEMPLATES.glob("_*.html"))}


def _address(route: str) -> str:
    return route.partition(" ")[2].replace("{key}", MAIN_FLAG)


def test_every_fragment_names_routes_that_exist() -> None:
    assert len(FRAGMENTS) >= 12
    for name, routes in FRAGMENTS.items():
        assert set(routes) <= ROUTES, name


async def test_a_route_that_answers_a_fragment_is_named_by_exactly_one_file(world: World) -> None:
    set_override(world.door, MAIN_FLAG, "u", Variant.ON, actor="a")
    browser = a_browser(world)
    named = [route for routes in FRAGMENTS.values() for route in routes if route.startswith("GET ")]
    assert len(named) == len(set(named))
    for route in sorted(route for route in ROUTES if route.startswith("GET ")):
        piece, whole = await browser.get(_address(route), hx=True), await browser.get(_address(route))
        if route == "GET /":
            continue
        assert piece.status_code == whole.status_code == 200, route
        assert piece.headers["vary"] == whole.headers["vary"] == "HX-Request"
        assert is_whole(whole), route
        assert is_whole(piece) is (route not in named), route


def _unwell(world: World) -> list[str]:
    """Take models out, open breakers, use the day up; return the pages that say so."""
    assert world.plane.gate is not None
    quarantine(world.door, MODELS[0], 0.1, Where.LITELLM)
    quarantine(world.door, "old/model:free", 0.1, Where.LITELLM)
    trip(world.plane.gate, FailureKind.EMPTY, model=MODELS[1])
    trip(world.plane.gate, FailureKind.UNREACHABLE, model=MODELS[1])
    trip(world.plane.gate, FailureKind.DAY_CAP, Where.OPENROUTER, MODELS[1])
    world.plane.refresh()
    return ["/gateway", *(_address(route) for route in ROUTES if route.startswith("GET /gateway/"))]


async def _every_page(world: World) -> list[str]:
    set_override(world.door, MAIN_FLAG, "user-42", Variant.ON, actor="a", reason="tester")
    browser = a_browser(world)
    pages = [
        (await browser.get(path, hx=hx)).text
        for hx in (False, True)
        for path in (*{_address(route) for route in ROUTES if route.startswith("GET ")}, "/nothing", "/audit?since=x")
    ]
    pages.append((await browser.post(f"{PAGE}/share", percentage="50", seen=seen(world))).text)
    pages.append((await browser.post(f"{PAGE}/share", hx=True, percentage="50", seen=seen(world))).text)
    change_flag(world.door, MAIN_FLAG, FlagChange(share=12_500), actor="b")
    pages.append((await browser.post(f"{PAGE}/share", percentage="50", seen="2")).text)
    world.plane.refresh()
    world.down()
    pages.append((await browser.post(f"{PAGE}/share", percentage="50", seen=seen(world))).text)
    pages.append((await browser.post("/connect/tokens", name="app", role="evaluate")).text)
    pages += [(await browser.get(path, hx=hx)).text for path in _unwell(world) for hx in (False, True)]
    pages.append((await browser.post("/gateway/cascade", models="a/b:free", seen="1")).text)
    kill(world.door, MAIN_FLAG, actor="c")
    pages += [(await browser.get(path)).text for path in (PAGE, f"{PAGE}/stop", f"{PAGE}/why?user=u")]
    return pages


async def test_no_page_carries_code_or_style_of_its_own(world: World) -> None:
    for html in await _every_page(world):
        page = Tags(html)
        for tag, attributes in page.tags:
            assert tag != "style"
            assert "style" not in attributes
            assert not any(name.startswith(("on", "hx-on")) for name in attributes)
            assert not any(str(value).startswith("javascript:") for value in attributes.values())
            assert not any("js:" in (attributes.get(name) or "") for name in ("hx-vals", "hx-headers"))
            assert "[" not in (attributes.get("hx-trigger") or "")  # a filter would need eval
            if tag == "script":
                assert str(attributes["src"]).startswith("/static/")
        assert not re.search(r"<script[^>]*>(?!</script>)", html)


async def test_every_page_has_its_landmarks_and_every_field_a_label(world: World) -> None:
    for html in await _every_page(world):
        tags = Tags(html).tags
        ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
        assert len(ids) == len(set(ids)), [one for one in ids if ids.count(one) > 1]
        labelled = {attributes.get("for") for tag, attributes in tags if tag == "label"}
        for tag, attributes in tags:
            if tag in {"input", "select", "textarea"} and attributes.get("type") not in {"hidden", "checkbox"}:
                assert attributes.get("id") in labelled or "aria-label" in attributes, attributes
            if tag == "form" and (attributes.get("method") or "").lower() == "post":
                assert attributes.get("action"), attributes
        assert html.count("<table") == html.count("<caption")
        if "<html" in html:
            names = [tag for tag, _ in tags]
            assert names.count("main") == names.count("h1") == 1
            assert 'class="skip" href="#main"' in html
            assert '<html lang="en">' in html


async def test_the_kill_switch_is_the_first_stop_after_the_skip_link(world: World) -> None:
    html = (await a_browser(world).get("/audit")).text
    focusable = [
        (tag, attributes)
        for tag, attributes in Tags(html).tags
        if tag in {"a", "button", "summary", "input"} and attributes.get("type") != "hidden"
    ]
    assert focusable[0][1]["href"] == "#main"
    assert focusable[1] == ("summary", {"class": "button danger", "data-stop": None})


async def test_forms_answered_by_pages_work_without_scripts(world: World) -> None:
    for html in await _every_page(world):
        for tag, attributes in Tags(html).tags:
            if "hx-post" in attributes:
                assert tag == "form"
                assert attributes["action"] == attributes["hx-post"]
                assert attributes["method"] == "post"


def test_htmx_is_the_file_we_took_and_browsers_check_it() -> None:
    content = (STATIC / "htmx.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == HTMX_SHA256
    assert b'version:"2.' in content
    assert "Zero-Clause BSD" in (STATIC / "htmx.LICENSE.txt").read_text(encoding="utf-8")


async def test_pages_pin_htmx_and_switch_off_what_the_policy_forbids(world: World) -> None:
    tags = Tags((await a_browser(world).get(PAGE)).text).tags
    expected = "sha256-" + base64.b64encode(bytes.fromhex(HTMX_SHA256)).decode()
    assert any(tag == "script" and a.get("integrity") == expected for tag, a in tags)
    config = json.loads(next(a["content"] or "" for tag, a in tags if tag == "meta" and a.get("name") == "htmx-config"))
    assert config["includeIndicatorStyles"] is False
    assert config["allowEval"] is False


async def test_what_a_page_names_is_there(world: World) -> None:
    browser = a_browser(world)
    for path in (PAGE, "/sign-in"):
        for _, attributes in Tags((await browser.get(path)).text).tags:
            where = attributes.get("src") or attributes.get("href") or ""
            if where.startswith("/"):
                assert (await browser.get(where)).status_code in {200, 303}, where


def test_the_stylesheet_stays_one_short_file() -> None:
    assert [path.name for path in STATIC.glob("*.css")] == ["style.css"]
    text = (STATIC / "style.css").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 500
    assert "@import" not in text
    assert "url(" not in text


def _tokens() -> dict[str, tuple[str, str]]:
    text = (STATIC / "style.css").read_text(encoding="utf-8")
    return {
        name: (light, dark)
        for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", text)
    }


def _luminance(colour: str) -> float:
    """Return the relative luminance of an sRGB colour (WCAG 2.2)."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2), from 1 to 21."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


TEXT_ON = [
    *((text, on) for text in ("ink", "quiet") for on in ("ground", "paper", "note", "wash")),
    *((text, on) for text in ("direct", "gateway", "red") for on in ("ground", "paper")),
    ("red", "note"),
    ("red", "wash"),
    ("on-stop", "stop"),
    ("on-stop", "stop-deep"),
    ("on-primary", "primary"),
]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(scheme: int) -> None:
    tokens = _tokens()
    for text, on in TEXT_ON:
        assert _contrast(tokens[text][scheme], tokens[on][scheme]) >= 4.5, (text, on)
    assert _contrast("#ffffff", tokens["stopped"][scheme]) >= 4.5
    assert _contrast("#7d0d18", "#ffffff") >= 4.5


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_shapes_and_edges_can_be_seen(scheme: int) -> None:
    tokens = _tokens()
    for shape in ("direct-fill", "gateway-fill", "stop", "edge"):
        for on in ("ground", "paper"):
            assert _contrast(tokens[shape][scheme], tokens[on][scheme]) >= 3, (shape, on)
