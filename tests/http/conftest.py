"""One browser for each file of tests, and an installation for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from tests.browser import launch
from tests.http.api_support import a_gate, a_world
from tests.http.site import Site, served


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no browser here: {error.message.splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture
def site(tmp_path: Path, chromium: Browser) -> Iterator[Site]:
    with a_world(tmp_path, gate=a_gate()) as world, served(world) as address:
        site = Site(world, address, chromium)
        yield site
        site.close()
