"""A browser without a screen: a session, its forms, and what a page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Final

import httpx

from rollout.domain.roles import Role
from tests.http.api_support import OURS, World

PAGE: Final = "/flags/enableLiteLLM"
HX: Final = {"HX-Request": "true"}


@dataclass(slots=True)
class Browser:
    """Somebody signed in, by cookie."""

    client: httpx.AsyncClient
    csrf: str

    async def get(self, path: str, *, hx: bool = False) -> httpx.Response:
        """Open a page, or ask for a fragment as htmx does."""
        return await self.client.get(path, headers={"Accept": "text/html"} | (HX if hx else {}))

    async def post(self, path: str, *, hx: bool = False, **fields: str) -> httpx.Response:
        """Send a form as the page would."""
        headers = {"Origin": OURS, "Accept": "text/html"} | (HX if hx else {})
        return await self.client.post(path, data={"csrf": self.csrf} | fields, headers=headers)


def a_browser(world: World, role: Role = Role.ADMIN) -> Browser:
    """Sign somebody in."""
    return Browser(*world.browser(role))


def seen(world: World) -> str:
    """Return the flag's revision as a fresh page's form carries it."""
    flag: Any = world.plane.holder.snapshot and world.plane.holder.snapshot.flags["enableLiteLLM"]
    return str(flag.revision)


@contextmanager
def nothing_changes(world: World) -> Iterator[None]:
    """Check that the ledger ends where it began."""
    before = world.head()
    yield
    assert world.head() == before


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def words(html: str) -> str:
    """Return what a page says, white space folded."""
    return re.sub(r"\s+", " ", " ".join(Tags(html).text)).strip()


def is_whole(answer: httpx.Response) -> bool:
    """Say whether an answer is a whole page rather than a fragment."""
    return "<html" in answer.text
