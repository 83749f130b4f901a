"""A gateway as others see it: a state, and whether it answers. One that is not ours is only asked."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import httpx

from rollout.domain.release import parse_release
from rollout.gateway.plan import USUAL_PACE, Pace
from rollout.gateway.state import TRANSITIONS, GatewayPhase, GatewayState
from rollout.network import DIRECT, Network, explain

Sleep = Callable[[float], Awaitable[object]]
OnChange = Callable[[GatewayState], None]

_LIVENESS: Final = "/health/liveliness"  # no key, no quota
RELEASE_PATH: Final = "/health/readiness/details"
"""Where LiteLLM says which release it is; asks for the key, spends no quota."""

_LOOKS_PER_RELEASE: Final = 60
"""Questions for its health between two for its release, which changes with a restart that may go unnoticed."""


class Gateway:
    """What every gateway has: a state, and people who want to know of it."""

    def __init__(self, *, clock: Callable[[], float], on_change: OnChange) -> None:
        self._clock = clock
        self._on_change = on_change
        self._state = GatewayState(GatewayPhase.WAITING, "the gateway was not started yet", clock())

    @property
    def state(self) -> GatewayState:
        """Return the state at this moment."""
        return self._state

    def _enter(self, phase: GatewayPhase, detail: str, **changes: object) -> None:
        if phase is not self._state.phase and phase not in TRANSITIONS[self._state.phase]:
            raise AssertionError(f"the gateway cannot go from {self._state.phase} to {phase}")
        now = self._clock()
        since = self._state.since if phase is self._state.phase else now
        if "last_error" in changes:
            changes["last_error_at"] = now
        new = replace(self._state, phase=phase, detail=detail, since=since, **changes)  # type: ignore[arg-type]  # fields of it, by name
        if new != self._state:
            self._state = new
            self._on_change(new)


async def answers(http: httpx.AsyncClient) -> bool:
    """Tell whether a LiteLLM says that it lives; costs no quota and needs no key."""
    return await _silence(http) is None


async def _silence(http: httpx.AsyncClient) -> str | None:
    """Return why a LiteLLM does not say that it lives, None if it does."""
    try:
        answer = await http.get(_LIVENESS)
    except httpx.TimeoutException:
        return "it took too long"
    except httpx.HTTPError as error:
        return explain(error)
    return None if answer.is_success else f"it answered {answer.status_code}"


def key_header(key: str | None) -> Mapping[str, str]:
    """Return the header that carries the gateway's key, none if there is no key that can be sent."""
    return {"Authorization": f"Bearer {key}"} if key and key.isascii() and key.isprintable() else {}


def release_in(answer: httpx.Response) -> str | None:
    """Return the release that an answer to `RELEASE_PATH` names, None if it names none."""
    try:
        said = answer.json() if answer.is_success else None
    except ValueError:
        return None
    release = said.get("litellm_version") if isinstance(said, dict) else None
    return release if isinstance(release, str) and parse_release(release) is not None else None


class ExternalGateway(Gateway):
    """A gateway somebody else runs (`LITELLM_BASE_URL`): asked for its liveness and release, otherwise left alone."""

    def __init__(
        self,
        base_url: str,
        *,
        clock: Callable[[], float],
        sleep: Sleep,
        key: str | None = None,
        on_change: OnChange = lambda _: None,
        pace: Pace = USUAL_PACE,
        network: Network = DIRECT,
    ) -> None:
        super().__init__(clock=clock, on_change=on_change)
        self._base_url = base_url
        self._key = key
        self._looks = 0
        self._network = network
        self._sleep = sleep
        self._pace = pace

    def set_cascade(self, cascade: Sequence[str]) -> bool:
        """Change nothing: its configuration is its owner's (`rollout gateway config` prints one)."""
        del cascade
        return False

    async def run(self) -> None:
        """Ask until cancelled."""
        self._enter(GatewayPhase.EXTERNAL, "a gateway that is not ours; it was not asked yet")
        try:
            async with httpx.AsyncClient(
                base_url=self._base_url,
                timeout=self._pace.answer_within,
                **self._network.httpx_options(self._base_url),
            ) as http:
                while True:
                    silence = await _silence(http)
                    self._note(silence, release=await self._release(http) if silence is None else None)
                    await self._sleep(self._pace.look)
        finally:
            self._enter(GatewayPhase.STOPPED, "the external gateway is no longer asked", answering=False)

    async def _release(self, http: httpx.AsyncClient) -> str | None:
        """Ask for the release as soon as it answers and now and then; else return what was last said."""
        self._looks += 1
        if self._state.answering and self._looks % _LOOKS_PER_RELEASE:
            return self._state.release
        try:
            return release_in(await http.get(RELEASE_PATH, headers=key_header(self._key)))
        except httpx.HTTPError:
            return self._state.release

    def _note(self, silence: str | None, *, release: str | None) -> None:
        if silence is None:
            detail = "a gateway that is not ours answers" + (f" (LiteLLM {release})" if release else "")
            self._enter(GatewayPhase.EXTERNAL, detail, answering=True, release=release)
        else:
            problem = (
                f"the gateway at LITELLM_BASE_URL does not answer ({silence}); "
                "check that it runs and the address is right"
            )
            self._enter(GatewayPhase.EXTERNAL, problem, answering=False, last_error=problem)
