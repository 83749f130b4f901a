"""What a process knows, compiled, and swapped in one assignment; readers take no lock.

A reader takes the whole state in one attribute read, so that a decision never mixes two snapshots. Writers are
few (the follower, a reload) and take turns.

The control plane is the authority: for its own installation the holder accepts whatever it says, an older
revision too, because a server restored from a backup has gone back and so must its clients. Another
installation is never accepted silently.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from rollout.client.killfile import KillFile
from rollout.domain.context import Context
from rollout.domain.evaluate import Decider, Evaluation, text_key, unknown_flag
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT, BrokenFlag, Flag
from rollout.domain.identity import user_id
from rollout.domain.local import SILENT, LocalOverrides
from rollout.domain.snapshot import Snapshot

_log: Final = logging.getLogger("rollout.client")


@dataclass(frozen=True, slots=True)
class _Held:
    """Everything one decision needs. `confirmed_at` is in seconds since the epoch.

    `deciders` is asked while no kill file lies there, `killed` while one does.
    """

    snapshot: Snapshot | None
    confirmed_at: float | None
    local: LocalOverrides
    salt: str
    deciders: Mapping[str, Decider]
    killed: Mapping[str, Decider]


class Holder:
    """The state in memory that evaluates.

    Args:
        local: this process's overrides.
        kill_file: the file that kills this process; None where there is none.
        salt: the salt of `enableLiteLLM` where no snapshot was ever seen.
        clock: seconds since the epoch.
        on_change: called after each new snapshot, in the thread that brought it; what it raises is logged.
        on_look: called by an evaluation, as often as the kill file is looked for, before it decides.
    """

    def __init__(
        self,
        local: LocalOverrides = SILENT,
        kill_file: KillFile | None = None,
        *,
        salt: str = PUBLISHED_SALT,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[Snapshot], None] | None = None,
        on_look: Callable[[], None] | None = None,
    ) -> None:
        self._clock, self._on_change, self._on_look = clock, on_change, on_look
        self._kill_file = kill_file or KillFile(None)
        self._writing = threading.Lock()
        self._refused: str | None = None
        self._blind = False
        self._held = _compiled(None, None, local, salt, None)

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot decisions are made from, None where none was ever seen."""
        return self._held.snapshot

    @property
    def local(self) -> LocalOverrides:
        """What the environment says, the kill file not counted."""
        return self._held.local

    @property
    def cascade(self) -> tuple[str, ...] | None:
        """The installation's model ids in order, None where no snapshot was ever seen."""
        snapshot = self._held.snapshot
        return None if snapshot is None else snapshot.cascade

    @property
    def age(self) -> float | None:
        """Seconds since the control plane last confirmed the snapshot, None without one."""
        at = self._held.confirmed_at
        return None if at is None else max(0.0, self._clock() - at)

    @property
    def overridden(self) -> bool:
        """Whether this process departs from the stored flag: by its environment or by a kill file."""
        return self._kill_file_exists() or not self._held.local.silent

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences about what could not be read or was refused, the kill file included."""
        self._kill_file_exists()
        return (*self._held.local.problems, *(why for why in (self._kill_file.problem, self._refused) if why))

    def evaluate(self, flag: str, who: object) -> Evaluation:
        """Decide for one user, with the evidence; never raises, never waits.

        Args:
            flag: the flag's key.
            who: the user's id, an evaluation context, or None for nobody.
        """
        # what is written twice, here and in `is_on`, is written for speed: a call costs as much as the hash
        try:
            now, kill_file = self._clock(), self._kill_file
            if not kill_file.looked <= now < kill_file.due:
                self._look(kill_file, now)
            held = self._held
            if type(who) is not str and isinstance(who, Context):
                who = who.targeting_key
            decider = (held.killed if kill_file.exists else held.deciders)[flag]
            at = held.confirmed_at
            return decider.evaluate(user_id(who), now, None if at is None else now - at if now > at else 0.0)
        except Exception:  # noqa: BLE001 - whatever object stands for a key: the direct path, never an exception
            return _elsewhere(self._held, flag)

    def is_on(self, flag: str, who: object) -> bool:
        """Decide for one user, the value alone; the same as `evaluate(...).value`."""
        try:
            now, kill_file = self._clock(), self._kill_file
            if not kill_file.looked <= now < kill_file.due:
                self._look(kill_file, now)
            held = self._held
            if type(who) is not str and isinstance(who, Context):
                who = who.targeting_key
            return (held.killed if kill_file.exists else held.deciders)[flag].is_on(user_id(who), now)
        except Exception:  # noqa: BLE001 - as above
            return False

    def replace(self, snapshot: Snapshot, *, confirmed_at: float, allow_new_installation: bool = False) -> bool:
        """Take over a snapshot; decisions under way finish on the old one.

        Args:
            snapshot: what to decide from now on.
            confirmed_at: when the control plane said so, in seconds since the epoch.
            allow_new_installation: take it even where it is another installation than the one held.

        Returns:
            False where it is another installation: the old one stays, and `problems` says so.
        """
        with self._writing:
            held = self._held
            if held.snapshot and held.snapshot.installation != snapshot.installation and not allow_new_installation:
                self._refused = (
                    f"the control plane is now installation {snapshot.installation[:80]!r}, this process follows "
                    f"{held.snapshot.installation[:80]!r} and keeps its last snapshot; restart the process to follow "
                    "the new one"
                )
                return False
            self._refused = None
            self._held = _compiled(snapshot, confirmed_at, held.local, held.salt, None if self._blind else held)
            self._blind = False
        if self._on_change is not None:
            try:
                self._on_change(snapshot)
            except (Exception, SystemExit):  # noqa: BLE001 - the application's listener must not end the following
                _log.warning("on_change raised; the snapshot is in force all the same", exc_info=True)
        return True

    def confirm(self, at: float) -> None:
        """Note that the control plane has just said that nothing changed; `at` in seconds since the epoch."""
        with self._writing:
            if self._held.snapshot is not None:
                self._held = replace(self._held, confirmed_at=at)
            self._refused = None

    def reload(self, local: LocalOverrides, kill_file: KillFile | None, *, salt: str) -> None:
        """Take over what the environment says now; the snapshot stays."""
        with self._writing:
            held = self._held
            self._kill_file = kill_file or KillFile(None)
            self._held = _compiled(held.snapshot, held.confirmed_at, local, salt, None)
            self._blind = False

    def blind(self, *, on: bool) -> None:
        """Send everybody direct while nothing can be heard of a kill; `on=False` lifts it."""
        if on is self._blind:
            return
        with self._writing:
            held, self._blind = self._held, on
            if on:
                self._held = replace(held, deciders=held.killed)
            else:
                self._held = _compiled(held.snapshot, held.confirmed_at, held.local, held.salt, None)

    def after_fork(self) -> None:
        """Make the child's own lock: the one copied may be held by a thread that does not exist here."""
        self._writing = threading.Lock()

    def _look(self, kill_file: KillFile, now: float) -> None:
        kill_file.look(now)
        if self._on_look is not None:
            self._on_look()

    def _kill_file_exists(self) -> bool:
        return self._kill_file.look(self._clock())


_KILLED: Final = LocalOverrides(killed=True)


def _compiled(
    snapshot: Snapshot | None, at: float | None, local: LocalOverrides, salt: str, before: _Held | None
) -> _Held:
    flags: Mapping[str, Flag | BrokenFlag] = snapshot.flags if snapshot else {}
    known: Mapping[str, Flag | BrokenFlag] = before.snapshot.flags if before and before.snapshot else {}
    deciders: dict[str, Decider] = {}
    for key, flag in flags.items():
        # compiling is the dear part where thousands are forced, so what did not change is kept
        kept = before.deciders.get(key) if before and known.get(key) == flag else None
        deciders[key] = kept or Decider(flag, local)
    main = flags.get(MAIN_FLAG)
    if main is None and (snapshot is None or not local.silent):
        # without a flag the environment decides; where it is silent and a snapshot is there, the flag is unknown
        deciders[MAIN_FLAG] = Decider(None, local, salt=salt)
    killed = dict(deciders)
    # a killed flag answers before it asks who is forced: no use in compiling the overrides twice
    bare = replace(main, overrides={}) if isinstance(main, Flag) else main
    killed[MAIN_FLAG] = Decider(bare, replace(_KILLED, share=local.share), salt=salt)
    return _Held(snapshot, at, local, salt, deciders, killed)


def _elsewhere(held: _Held, flag: object) -> Evaluation:
    """Answer for a flag that is not held: unknown, or not known yet where no snapshot was ever seen."""
    key = text_key(flag)
    return unknown_flag(key) if held.snapshot else Decider(None, key=key).evaluate(None, 0.0, None)
