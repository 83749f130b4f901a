"""Deciding in process: nanoseconds per decision, beside UnleashClient, GrowthBook and the hash alone."""

from __future__ import annotations

import gc
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from time import thread_time_ns, time
from typing import Final, NamedTuple

import httpx
import mmh3

import rollout
from bench.peers import GROWTHBOOK, UNLEASH, growthbook, unleash
from bench.report import Aim, CannotMeasure, Part, Series, at_least, at_most, number, times, versions
from bench.world import HALF, a_snapshot, flag_keys, forced, users
from rollout.client.client import RolloutClient
from rollout.client.default import set_default_client
from rollout.client.holder import Holder
from rollout.client.killfile import KillFile
from rollout.domain.evaluate import Decider
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT, Flag
from rollout.domain.share import WHOLE
from rollout.wire.snapshot import encode

Loop = Callable[[Sequence[str]], None]
"""Decides for each user in a loop of its own, so that no call but the contender's is counted."""


class Contender(NamedTuple):
    """What is timed, and the same once, to check that it decides as it should."""

    loop: Loop
    decide: Callable[[str], bool]


FLOOR: Final = "f-string + mmh3 alone"
EVALUATE: Final = "Decider.evaluate"
IS_ON: Final = "Decider.is_on"
HOLDER: Final = "Holder.evaluate"
HOLDER_IS_ON: Final = "Holder.is_on"
FLAGS: Final = "rollout.feature_flags"

_TURN_NANOSECONDS: Final = 6_000_000
_TURNS: Final = 5  # a round's; short turns, so that contenders see the same moments of the machine
_USERS: Final = 10_000


class Scene(NamedTuple):
    """How much is held."""

    overrides: int
    flags: int

    def __str__(self) -> str:
        return f"{self.overrides:,} overrides, {self.flags:,} flags"


SMALL: Final = Scene(10, 10)
MANY_OVERRIDES: Final = Scene(100_000, 10)
MANY_FLAGS: Final = Scene(10, 10_000)


def run(rounds: int) -> Part:
    crowd = users(_USERS)
    with tempfile.TemporaryDirectory() as root:
        logging.getLogger("httpx").setLevel(logging.WARNING)
        loops: dict[Scene, Mapping[str, Contender]] = {}
        for place, scene in enumerate((SMALL, MANY_OVERRIDES, MANY_FLAGS)):
            folder = Path(root) / str(place)
            folder.mkdir()
            loops[scene] = {**_ours(scene, folder), **_peers(scene, folder)}
        for scene, contenders in loops.items():
            for name, contender in contenders.items():
                _check(name, scene, contender.decide, crowd)
        found = {scene: Series() for scene in loops}
        for _ in range(rounds * _TURNS):
            gc.collect()
            for scene, contenders in loops.items():
                for name, contender in contenders.items():
                    found[scene].add(name, _nanoseconds(contender.loop, crowd))
        set_default_client(None)
    return _part(found)


def _ours(scene: Scene, folder: Path) -> Mapping[str, Contender]:
    snapshot = a_snapshot(overrides=scene.overrides, flags=scene.flags)
    flag = snapshot.flags[MAIN_FLAG]
    assert isinstance(flag, Flag)
    decider = Decider(flag)
    holder = Holder(kill_file=KillFile(folder / "kill"))
    holder.replace(snapshot, confirmed_at=time())
    client = _client(encode(snapshot), folder)

    def floor(crowd: Sequence[str]) -> None:
        hashed, salt = mmh3.hash, PUBLISHED_SALT
        for user in crowd:
            hashed(f"{salt}:{user}", 0, False)

    def decider_evaluate(crowd: Sequence[str]) -> None:
        evaluate = decider.evaluate
        for user in crowd:
            evaluate(user, 1.0, 0.5)

    def decider_is_on(crowd: Sequence[str]) -> None:
        is_on = decider.is_on
        for user in crowd:
            is_on(user, 1.0)

    def holder_evaluate(crowd: Sequence[str]) -> None:
        evaluate = holder.evaluate
        for user in crowd:
            evaluate(MAIN_FLAG, user)

    def holder_is_on(crowd: Sequence[str]) -> None:
        is_on = holder.is_on
        for user in crowd:
            is_on(MAIN_FLAG, user)

    def feature_flags(crowd: Sequence[str]) -> None:
        set_default_client(client)
        flags = rollout.feature_flags
        for user in crowd:
            flags(user)

    def decide(user: str) -> bool:
        return decider.is_on(user, 1.0)

    return {
        FLOOR: Contender(floor, decide),
        IS_ON: Contender(decider_is_on, decide),
        EVALUATE: Contender(decider_evaluate, lambda user: decider.evaluate(user, 1.0, 0.5).value),
        HOLDER_IS_ON: Contender(holder_is_on, lambda user: holder.is_on(MAIN_FLAG, user)),
        HOLDER: Contender(holder_evaluate, lambda user: holder.evaluate(MAIN_FLAG, user).value),
        FLAGS: Contender(feature_flags, lambda user: client.feature_flags(user).enableLiteLLM),
    }


def _client(document: bytes, folder: Path) -> RolloutClient:
    """Return a client that has learned a snapshot as it would from a control plane, and then is left alone."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=document, headers={"ETag": '"bench"'})

    client = RolloutClient(
        "http://127.0.0.1:9",
        environ={},
        data_dir=folder,
        poll_interval=3600,
        transport=httpx.MockTransport(answer),
    )
    if not client.wait_until_ready(60):
        raise CannotMeasure(f"the client did not take its snapshot: {client.status().problems}")
    return client


def _peers(scene: Scene, folder: Path) -> Mapping[str, Contender]:
    keys, people = flag_keys(scene.flags), forced(scene.overrides)

    def contender(decide: Callable[[str], bool]) -> Contender:
        def loop(crowd: Sequence[str]) -> None:
            for user in crowd:
                decide(user)

        return Contender(loop, decide)

    return {
        UNLEASH: contender(unleash(keys, MAIN_FLAG, people, folder / "unleash")),
        GROWTHBOOK: contender(growthbook(keys, MAIN_FLAG, people)),
    }


def _check(name: str, scene: Scene, decide: Callable[[str], bool], crowd: Sequence[str]) -> None:
    """Make sure that what is timed is the same work: half of the users are on, and whoever is forced is."""
    some, people = crowd[:400], forced(min(scene.overrides, 10))
    on = sum(map(decide, some))
    if not 0.38 < on / len(some) < 0.62 or not all(map(decide, people)):
        raise CannotMeasure(f"{name} does not decide as it was set up to ({on} of {len(some)} are on)")


def _nanoseconds(loop: Loop, crowd: Sequence[str]) -> float:
    """Return nanoseconds of this thread's processor time per decision, over about one turn's time.

    Nothing here waits, so that processor time is the time it takes on a machine that does nothing else.
    """
    few = crowd[:5]
    began = thread_time_ns()
    loop(few)
    count = int(_TURN_NANOSECONDS * len(few) / max(1, thread_time_ns() - began))
    part = crowd[: max(len(few), count)]
    passes = max(1, count // len(part))
    loop(part)  # not counted: whoever had the turn before has left the processor's caches full of other things
    gc.disable()
    try:
        began = thread_time_ns()
        for _ in range(passes):
            loop(part)
        return (thread_time_ns() - began) / (passes * len(part))
    finally:
        gc.enable()


def _part(found: Mapping[Scene, Series]) -> Part:
    small, overrides, flags = found[SMALL], found[MANY_OVERRIDES], found[MANY_FLAGS]

    def slower(contender: str, scene: Series) -> float:
        return scene.median(contender) / small.median(contender)

    rows = [
        (
            contender,
            number(small.median(contender)),
            times(small.ratio(UNLEASH, contender)),
            number(overrides.median(contender)),
            times(slower(contender, overrides)),
            number(flags.median(contender)),
            times(slower(contender, flags)),
        )
        for contender in (FLOOR, IS_ON, EVALUATE, HOLDER_IS_ON, HOLDER, FLAGS, GROWTHBOOK, UNLEASH)
    ]
    aims: list[Aim] = []
    for contender, limit in ((EVALUATE, 40), (IS_ON, 80)):
        aims.append(at_least(f"{contender}, faster than UnleashClient", small.ratio(UNLEASH, contender), limit, "x"))
    for contender in (EVALUATE, IS_ON):
        aims.append(at_most(f"{contender}, slower with {MANY_OVERRIDES}", slower(contender, overrides), 2, "x"))
        aims.append(at_most(f"{contender}, slower with {MANY_FLAGS}", slower(contender, flags), 2, "x"))
    peers = versions({"UnleashClient": version("unleashclient"), "GrowthBook": version("growthbook")})
    return Part(
        title="Deciding in process",
        head=("ns per decision", str(SMALL), "faster than Unleash", str(MANY_OVERRIDES), "", str(MANY_FLAGS), ""),
        rows=rows,
        aims=aims,
        notes=(
            f"A share of 50 % and users forced on; {_USERS:,} users in turn, none of them forced; processor time with "
            f"warm caches. {peers}.",
            "Decider is the evaluator; Holder adds the clock, the kill file and the choice of the flag; feature_flags "
            "adds the client and the current user.",
            f"The floor is one f-string and one hash; {HALF:,} of {WHOLE:,} parts are on for everybody alike.",
        ),
    )
