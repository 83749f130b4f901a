"""All that the simulated upstream knows and is given: nothing else decides an answer."""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable

from rollout.simulator.account import Account
from rollout.simulator.faults import Fault, Script
from rollout.simulator.models import DEFAULT_MODELS, WITHDRAWN_TODAY, Catalogue, Model
from rollout.simulator.record import Record


class World:
    """One simulated upstream.

    Attributes:
        catalogue: the models, listed and withdrawn.
        account: the quota and the money; no limits unless set.
        script: the faults being played.
        record: what was asked.
        clock: the time in epoch seconds.
        sleep: waits for a number of seconds.
        max_body_bytes: larger request bodies are refused with 413.
        secret: what the control routes are asked with; made at random unless given.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        models: Iterable[Model] = DEFAULT_MODELS,
        withdrawn: Iterable[str] = WITHDRAWN_TODAY,
        faults: Iterable[Fault] = (),
        record_limit: int = 50_000,
        max_body_bytes: int = 20 * 1024 * 1024,
        secret: str | None = None,
    ) -> None:
        self.seed = seed
        self.clock = clock
        self.sleep = sleep
        self.catalogue = Catalogue(models, withdrawn)
        self.account = Account(clock)
        self.script = Script(seed, faults)
        self.record = Record(limit=record_limit)
        self.max_body_bytes = max_body_bytes
        self.secret = secret or secrets.token_urlsafe(32)
        self._chance = random.Random(seed)  # noqa: S311 - ids of simulated answers, no secret

    def generation_id(self) -> str:
        """Draw the id of the next answer."""
        return f"gen-{int(self.clock())}-{self._chance.getrandbits(80):020x}"
