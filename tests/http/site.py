"""A served installation, and a browser that looks at it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from playwright.sync_api import Browser, Page, expect

from rollout.control.access import invite
from rollout.domain.flag import MAIN_FLAG, Flag
from rollout.domain.ledger import Entry
from rollout.domain.roles import Role
from rollout.store.flags import read_flag
from rollout.store.ledger import AuditFilter, list_entries
from tests.http.api_support import World
from tests.http.pages_support import PAGE

expect.set_options(timeout=20_000)  # for a busy machine; what is there is never waited for


@contextmanager
def served(world: World) -> Iterator[str]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(world.app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            server.force_exit = True
            thread.join(timeout=10)


class Site:
    """A served installation and the browser that looks at it; `complaints` is what a browser said was wrong."""

    def __init__(self, world: World, address: str, chromium: Browser) -> None:
        self.world, self.address, self._chromium = world, address, chromium
        self.complaints: list[str] = []
        self._contexts: list[Any] = []

    def open(self, *, scripts: bool = True, role: Role = Role.ADMIN, **how: Any) -> Page:
        """Sign in and stand on the flag's page."""
        context = self._chromium.new_context(java_script_enabled=scripts, reduced_motion="reduce", **how)
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        code = self.code(role)
        if scripts:
            page.goto(f"{self.address}/sign-in#code={code}")
        else:
            page.goto(f"{self.address}/sign-in")
            page.get_by_label("Code").fill(code)
            page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"**{PAGE}")
        return page

    def code(self, role: Role = Role.ADMIN) -> str:
        """Return a code to sign in with."""
        return invite(self.world.door, "anna", role, actor="test")

    def entries(self, action: str) -> list[Entry]:
        """Return the newest entries whose action begins so."""
        with self.world.door.reading() as connection:
            return list_entries(connection, AuditFilter(action=action))

    def flag(self) -> Flag:
        """Return the flag as stored."""
        with self.world.door.reading() as connection:
            return read_flag(connection, MAIN_FLAG)

    def by_somebody_else(self, act: Callable[..., Any], *arguments: Any, **more: Any) -> None:
        """Change the flag from outside the page."""
        act(self.world.door, MAIN_FLAG, *arguments, actor="ben", **more)
        self.world.plane.refresh()

    def close(self) -> None:
        """Close every window."""
        for context in self._contexts:
            context.close()


def hear(page: Page) -> None:
    """Let the page ask for news now rather than in three seconds."""
    page.evaluate("document.body.dispatchEvent(new Event('changed'))")


def settle(page: Page) -> None:
    """Wait until htmx knows what it has just put into the page."""
    expect(page.locator(".htmx-request, .htmx-swapping, .htmx-settling, .htmx-added")).to_have_count(0)
