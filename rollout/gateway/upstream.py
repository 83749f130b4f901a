"""What is known of the upstream: whether it answers, whether it takes our key, which models are free today.

Asked with `GET /models` and `GET /key`, neither of which costs quota.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import httpx

from rollout.domain.cascade import ListedModel
from rollout.domain.errors import InvalidRequest
from rollout.network import DIRECT, Network, explain
from rollout.wire.models import DailyUse, decode_key, decode_models

log = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 300.0
RETRY_SECONDS: Final = 5.0
TIMEOUT_SECONDS: Final = 15.0
SIMULATOR_KEY: Final = "sk-or-simulator"
"""What the bundled simulator is asked with; no secret, it takes any key."""

KEY_REFUSED: Final = frozenset({401, 403})


class UpstreamPhase(StrEnum):
    """What we know of the upstream."""

    UNKNOWN = "unknown"  # not asked yet
    OK = "ok"
    UNREACHABLE = "unreachable"
    KEY_MISSING = "key_missing"
    KEY_REFUSED = "key_refused"


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """The upstream at one moment; holds no secret. `checked_at` is in seconds since the epoch.

    `daily_used` and `daily_limit` are the account's free requests as the upstream counts them: None where it does
    not say, a limit of 0 where there is none.
    """

    base_url: str
    simulated: bool
    phase: UpstreamPhase = UpstreamPhase.UNKNOWN
    detail: str = "not asked yet"
    models: tuple[ListedModel, ...] = ()
    checked_at: float | None = None
    daily_used: int | None = None
    daily_limit: int | None = None


class UpstreamWatch:
    """Asks the upstream every few minutes, every few seconds while it does not answer.

    `on_models` hears each model list that was read, `on_key(used, limit)` what the upstream counts of today's free
    requests each time it says so; see `UpstreamState`.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        simulated: bool,
        on_models: Callable[[tuple[ListedModel, ...]], None] = lambda _: None,
        on_key: Callable[[int | None, int | None], None] = lambda _used, _limit: None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        network: Network = DIRECT,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = base_url
        self._network = network
        self._key = key
        self._on_models = on_models
        self._on_key = on_key
        self._clock = clock
        self._sleep = sleep
        self._transport = transport
        self._state = UpstreamState(_without_password(base_url), simulated)

    @property
    def state(self) -> UpstreamState:
        """What was last found."""
        return self._state

    async def run(self) -> None:
        """Ask until cancelled."""
        async with self.client() as http:
            while True:
                await self.check(http)
                settled = self._state.phase not in {UpstreamPhase.UNREACHABLE, UpstreamPhase.UNKNOWN}
                await self._sleep(REFRESH_SECONDS if settled else RETRY_SECONDS)

    def client(self) -> httpx.AsyncClient:
        """Return a client that takes the way of the requests on the direct path, so that an answer proves it."""
        options = self._network.httpx_options(self._url)
        if self._transport is not None:
            options["transport"] = self._transport
        return httpx.AsyncClient(timeout=TIMEOUT_SECONDS, **options)

    async def check(self, http: httpx.AsyncClient) -> UpstreamState:
        """Ask once."""
        try:
            listing = await http.get(f"{self._url}/models")
            listing.raise_for_status()
            models = decode_models(listing.content)
            phase, detail, daily = await self._check_key(http)
        except httpx.HTTPStatusError as error:
            self._found(UpstreamPhase.UNREACHABLE, f"the upstream's model list answered {error.response.status_code}")
        except (httpx.InvalidURL, UnicodeError):  # the second: a host name that is no IDNA
            self._found(UpstreamPhase.UNREACHABLE, "the upstream's address is no URL: check OPENROUTER_BASE_URL")
        except httpx.HTTPError as error:
            why = explain(error, self._network.proxy_for(self._url))
            self._found(UpstreamPhase.UNREACHABLE, f"the upstream does not answer ({why})")
        except InvalidRequest as error:
            self._found(UpstreamPhase.UNREACHABLE, error.message)
        else:
            self._found(phase, detail, models, daily)
            self._tell(models, daily)
        return self._state

    def _tell(self, models: tuple[ListedModel, ...], daily: DailyUse) -> None:
        try:
            self._on_models(models)
        except Exception:
            log.exception("what hears the model lists raised; the upstream is asked again all the same")
        if daily == DailyUse():
            return
        try:
            self._on_key(daily.used, daily.limit)
        except Exception:
            log.exception("what hears the free requests raised; the upstream is asked again all the same")

    async def _check_key(self, http: httpx.AsyncClient) -> tuple[UpstreamPhase, str, DailyUse]:
        unsaid = DailyUse()
        if self._key is None:
            return UpstreamPhase.KEY_MISSING, "no key: set OPENROUTER_API_KEY and start again", unsaid
        if not all("!" <= character <= "~" for character in self._key):
            said = "our key holds characters no key has: check OPENROUTER_API_KEY"
            return UpstreamPhase.KEY_REFUSED, said, unsaid
        answer = await http.get(f"{self._url}/key", headers={"Authorization": f"Bearer {self._key}"})
        if answer.status_code in KEY_REFUSED:
            return UpstreamPhase.KEY_REFUSED, "the upstream refuses our key: check OPENROUTER_API_KEY", unsaid
        if not answer.is_success:
            # other services than OpenRouter have no such route; only a refusal is proof against the key
            said = f"answers; whether it takes our key it did not say ({answer.status_code})"
            return UpstreamPhase.OK, said, unsaid
        return UpstreamPhase.OK, "answers and takes our key", decode_key(answer.content)

    def _found(
        self,
        phase: UpstreamPhase,
        detail: str,
        models: tuple[ListedModel, ...] | None = None,
        daily: DailyUse | None = None,
    ) -> None:
        if phase is not self._state.phase:
            log.info("upstream %s: %s", phase, detail)
        self._state = replace(
            self._state,
            phase=phase,
            detail=detail,
            models=self._state.models if models is None else models,
            checked_at=self._clock(),
            daily_used=self._state.daily_used if daily is None else daily.used,
            daily_limit=self._state.daily_limit if daily is None else daily.limit,
        )


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
