"""A simulated upstream on a real socket, shared by the tests of this folder and set back before each."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from rollout.simulator import World, running

MODEL = "qwen/qwen3-coder:free"
SECRET = "the-secret-of-the-control-routes"


@dataclass
class Upstream:
    base_url: str
    client: httpx.Client
    secret: str

    @property
    def control(self) -> str:
        return self.base_url.removesuffix("/api/v1") + "/simulator"

    def ask(self, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hej!"}], **body}
        return self.client.post(f"{self.base_url}/chat/completions", json=asked, headers=headers)

    def manage(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask a control route, with the secret."""
        headers = {"authorization": f"Bearer {self.secret}"}
        return self.client.request(method, f"{self.control}/{path}", headers=headers, **more)

    def script(self, *faults: dict[str, Any]) -> None:
        self.manage("PUT", "faults", json=list(faults)).raise_for_status()

    def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.manage("GET", "requests").json()["requests"]
        return found

    def counts(self) -> dict[str, Any]:
        found: dict[str, Any] = self.manage("GET", "counts").json()
        return found

    def wait_for(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the last entry once it is as described; the server learns of a leaving client a moment later."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if (found := self.entries()) and true(found[-1]):
                return found[-1]
            time.sleep(0.01)
        raise AssertionError(f"never came true: {self.entries()}")


@pytest.fixture(scope="session")
def simulated() -> Iterator[str]:
    with running(World(seed=7, max_body_bytes=100_000, secret=SECRET)) as base_url:
        yield base_url


@pytest.fixture
def upstream(simulated: str) -> Iterator[Upstream]:
    with httpx.Client(headers={"authorization": "Bearer sk-or-test"}, timeout=10) as client:
        found = Upstream(simulated, client, SECRET)
        found.manage("DELETE", "requests").raise_for_status()
        found.manage("DELETE", "faults").raise_for_status()
        found.manage("PUT", "account", json={"per_minute": 0, "per_day": 0, "spend_limit": None})
        yield found
