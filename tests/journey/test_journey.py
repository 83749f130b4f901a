"""The whole way through on real processes: a team moves traffic onto the gateway and throws it back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from rollout.domain.bucketing import bucket_of, salt_prefix
from tests.browser import launch
from tests.journey.installation import Installation, children_of, installation, is_alive, wait_for

pytestmark = [pytest.mark.litellm, pytest.mark.browser, pytest.mark.processes]

FLAG = "enableLiteLLM"

expect.set_options(timeout=20_000)  # LiteLLM starts beside the first pages, and takes both cores for it


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


def sign_in(page: Page, link: str) -> None:
    page.goto(link)
    expect(page.get_by_role("heading", name=FLAG, exact=True)).to_be_visible()


class Team:
    """What the people and programs of the story do."""

    def __init__(self, running: Installation, page: Page) -> None:
        self.running = running
        self.page = page
        self.upstream = running.providers()["upstream"]["base_url"].removesuffix("/api/v1")
        self.token = ""

    def make_access_token(self) -> None:
        self.page.goto(f"{self.running.url}/connect")
        self.page.get_by_label("Name").fill("shop")
        self.page.get_by_role("button", name="Make an access token").click()
        secret = self.page.locator("#c-secret")
        expect(secret).to_be_visible()
        self.token = secret.inner_text().strip()
        assert self.token.startswith("rollout_")

    def set_share(self, percent: str, *, reason: str) -> None:
        self.page.goto(f"{self.running.url}/flags/{FLAG}")
        self.page.get_by_label("Exactly").fill(percent)
        self.page.locator("#share-form").get_by_label("Reason").fill(reason)
        self.page.get_by_role("button", name="Save …").click()
        self.page.get_by_role("dialog").locator("button.primary").click()
        expect(self.page.get_by_role("dialog")).to_be_hidden()
        wait_for(lambda: self.stored()["percentage"] == float(percent) or None, within=5, what=f"{percent} %")

    def kill(self) -> None:
        self.page.goto(f"{self.running.url}/flags/{FLAG}")
        self.page.get_by_text("STOP: all direct").click()
        self.page.get_by_role("button", name="Stop now").click()
        expect(self.page.get_by_text("Restore …")).to_be_visible()

    def restore(self) -> None:
        self.page.get_by_text("Restore …").click()
        self.page.get_by_role("button", name="Restore now").click()
        expect(self.page.get_by_text("STOP: all direct")).to_be_visible()

    def force_on(self, user: str) -> None:
        self.page.goto(f"{self.running.url}/flags/{FLAG}")
        self.page.get_by_text("+ Force a user").click()
        self.page.get_by_role("group", name="Force a user").get_by_label("User id").fill(user)
        self.page.get_by_role("button", name="Force", exact=True).click()
        expect(self.page.get_by_role("rowheader", name=user, exact=True)).to_be_visible()

    def stored(self) -> dict[str, Any]:
        answer = httpx.get(f"{self.running.url}/api/v1/flags/{FLAG}", headers=self.admin())
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document

    def admin(self) -> dict[str, str]:
        (session,) = [each for each in self.page.context.cookies() if each["name"].startswith("rollout_session_")]
        return {"Cookie": f"{session['name']}={session['value']}"}

    def send(self, users: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Send a request for each user; return for each the path decided and who served."""
        with ThreadPoolExecutor(1) as other:  # Playwright keeps a loop running in this thread
            return other.submit(asyncio.run, self._send(list(users))).result()

    async def _send(self, users: Sequence[str]) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        waiting = iter(users)
        headers = {"Authorization": f"Bearer {self.token}"}

        async def worker(http: aiohttp.ClientSession) -> None:
            for user in waiting:
                body = {"messages": [{"role": "user", "content": f"Hej from {user}"}], "user": user}
                async with http.post(f"{self.running.url}/v1/chat/completions", json=body) as answer:
                    text = await answer.text()
                    assert answer.status == 200, text
                    found[user] = (answer.headers["X-Rollout-Path"], answer.headers["X-Rollout-Served-By"])

        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(120)) as http:
            await asyncio.gather(*(worker(http) for _ in range(8)))
        return found

    def arrived(self) -> dict[str, list[str]]:
        """Return what the upstream saw since it was last asked: users by the path their request came on."""
        secret = (self.running.data / "simulator.secret").read_text(encoding="ascii").strip()
        headers = {"Authorization": f"Bearer {secret}"}
        seen = httpx.get(f"{self.upstream}/simulator/requests", params={"limit": 10_000}, headers=headers).json()
        assert seen["dropped"] == 0
        httpx.delete(f"{self.upstream}/simulator/requests", headers=headers).raise_for_status()
        came: dict[str, list[str]] = {"litellm": [], "direct": []}
        for request in seen["requests"]:
            came[request["via"]].append(request["user"])
        return came


def test_a_team_moves_ten_percent_stops_restores_forces_one_and_loses_its_gateway(
    running: Installation, browser: Browser
) -> None:
    page = browser.new_page()
    sign_in(page, running.sign_in_link())
    running.wait_until_healthy()
    team = Team(running, page)
    team.make_access_token()

    # 10 % on the page: exactly the users whose bucket says so come through LiteLLM, none else
    team.set_share("10", reason="early adopters")
    users = [f"user-{number}" for number in range(2_000)]
    prefix = salt_prefix(team.stored()["salt"])
    chosen = {user for user in users if bucket_of(prefix, user) < 10_000}
    assert 140 < len(chosen) < 260
    decided = team.send(users)
    came = team.arrived()
    assert sorted(came["litellm"]) == sorted(chosen)
    assert sorted(came["direct"]) == sorted(set(users) - chosen)
    assert {user for user, (path, served) in decided.items() if path == served == "litellm"} == chosen

    # stop: the next requests all come direct; restore: the same users are back
    sample = [*sorted(chosen)[:40], *sorted(set(users) - chosen)[:40]]
    team.kill()
    assert set(team.send(sample).values()) == {("openrouter", "openrouter")}
    came = team.arrived()
    assert (came["litellm"], sorted(came["direct"])) == ([], sorted(sample))
    team.restore()
    again = team.send(sample)
    assert {user for user, (path, _) in again.items() if path == "litellm"} == chosen & set(sample)
    assert sorted(team.arrived()["litellm"]) == sorted(chosen & set(sample))

    # one tester at 0 %
    team.set_share("0", reason="back to testing")
    tester = next(user for user in users if user not in chosen)
    team.force_on(tester)
    alone = team.send([tester, *sorted(chosen)[:20]])
    assert [user for user, (path, _) in alone.items() if path == "litellm"] == [tester]
    assert team.arrived()["litellm"] == [tester]

    # the gateway's process dies: the tester is answered directly, and the gateway comes back
    gateway = running.providers()["gateway"]
    os.kill(gateway["pid"], signal.SIGKILL)
    assert team.send([tester]) == {tester: ("litellm", "openrouter")}
    assert team.arrived() == {"litellm": [], "direct": [tester]}
    running.wait_until_healthy(restarts=gateway["restarts"] + 1)
    assert team.send([tester]) == {tester: ("litellm", "litellm")}

    # the ledger holds each step, and holds
    entries = running.cli("audit", "list")["entries"]
    steps = [entry["action"] for entry in reversed(entries)]
    story = [
        "installation:create", "flag:create", "cascade:set", "session:open", "access_token:create",
        "flag:percentage:set", "flag:kill", "flag:restore", "flag:percentage:set", "override:set",
    ]  # fmt: skip
    assert [step for step in steps if step in story] == story
    assert entries[0]["after"]["user"] == tester
    assert running.cli("audit", "verify")["ok"] is True

    # Ctrl-C stops everything
    below = children_of(running.process.pid)
    assert below
    assert running.stop() == 0
    assert not [pid for pid in below if is_alive(pid)]


def test_kill_nine_leaves_no_process_behind_and_the_next_start_goes_on(running: Installation, tmp_path: Path) -> None:
    running.sign_in_link()
    running.wait_until_healthy()
    head = running.cli("audit", "head")
    below = children_of(running.process.pid)
    running.process.kill()
    running.process.wait(timeout=10)
    wait_for(lambda: not [pid for pid in below if is_alive(pid)] or None, within=10, what="the end of all processes")
    with installation(tmp_path) as again:
        again.sign_in_link()
        assert again.cli("audit", "verify")["ok"] is True
        assert again.cli("audit", "head")["revision"] == head["revision"] + 1  # its own sign-in link
