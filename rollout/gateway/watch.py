"""A gateway as others see it: a state, and whether it answers. One that is not ours is only asked."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import httpx

from rollout.gateway.plan import USUAL_PACE, Pace
from rollout.gateway.state import TRANSITIONS, GatewayPhase, GatewayState

Sleep = Callable[[float], Awaitable[object]]
OnChange = Callable[[GatewayState], None]

_LIVENESS: Final = "/health/liveliness"  # no key, no quota


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
        since = self._state.since if phase is self._state.phase else self._clock()
        new = replace(self._state, phase=phase, detail=detail, since=since, **changes)  # type: ignore[arg-type]  # fields of it, by name
        if new != self._state:
            self._state = new
            self._on_change(new)


async def answers(http: httpx.AsyncClient) -> bool:
    """Tell whether a LiteLLM says that it lives; costs no quota and needs no key."""
    try:
        return (await http.get(_LIVENESS)).is_success
    except httpx.HTTPError:
        return False


class ExternalGateway(Gateway):
    """A gateway somebody else runs (`LITELLM_BASE_URL`): asked for its liveness, otherwise left alone."""

    def __init__(
        self,
        base_url: str,
        *,
        clock: Callable[[], float],
        sleep: Sleep,
        on_change: OnChange = lambda _: None,
        pace: Pace = USUAL_PACE,
    ) -> None:
        super().__init__(clock=clock, on_change=on_change)
        self._base_url = base_url
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
                base_url=self._base_url, trust_env=False, timeout=self._pace.answer_within
            ) as http:
                while True:
                    self._note(answered=await answers(http))
                    await self._sleep(self._pace.look)
        finally:
            self._enter(GatewayPhase.STOPPED, "the external gateway is no longer asked", answering=False)

    def _note(self, *, answered: bool) -> None:
        if answered:
            self._enter(GatewayPhase.EXTERNAL, "a gateway that is not ours answers", answering=True)
        else:
            problem = "the gateway at LITELLM_BASE_URL does not answer; check that it runs and the address is right"
            self._enter(GatewayPhase.EXTERNAL, problem, answering=False, last_error=problem)
