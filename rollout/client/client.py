"""The client in an application's process: knows the flags, decides in memory, never in the way.

Constructing does nothing. The first question reads the last snapshot from disk and starts one daemon thread per
process, which follows the control plane; a fork starts its own. A process without `ROLLOUT_URL` starts nothing:
its environment decides, else everything goes direct.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rollout.client.disk import DiskCopy
from rollout.client.environment import read_overrides
from rollout.client.follower import Follower, in_a_loop
from rollout.client.holder import Holder
from rollout.client.killfile import KillFile
from rollout.client.status import ClientStatus, Event, Progress, Source, State
from rollout.client.user import current_user
from rollout.client.uwsgi import forks_later
from rollout.domain.evaluate import Evaluation
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT
from rollout.domain.local import LocalOverrides
from rollout.domain.share import percentage_of
from rollout.domain.snapshot import Snapshot
from rollout.settings import Settings, Upstreams, parse_settings

if TYPE_CHECKING:
    import httpx  # only the follower needs it, and only when it starts

_log: Final = logging.getLogger("rollout.client")

_SHORTEST_INTERVAL: Final = 0.01
_LONGEST_INTERVAL: Final = 3600.0
_START_AGAIN: Final = 5.0  # seconds after a thread could not be had


@dataclass(frozen=True, slots=True)
class FeatureFlags:
    """What the plan calls the two fields: whether this user goes to the gateway, and the share as a percentage."""

    enableLiteLLM: bool  # noqa: N815 - the plan's own name
    litellmRolloutPercentage: float  # noqa: N815 - the plan's own name


class RolloutClient:
    """Knows the flags of one installation and decides for its users.

    Use one per process and the same from threads and from asynchronous code: evaluating never blocks, because
    the following is done by a thread, so no event loop needs a task of its own. Only `wait_until_ready` waits;
    from a coroutine: `await asyncio.to_thread(client.wait_until_ready, 5)`.

    Args:
        url: the control plane; else `ROLLOUT_URL`. One that cannot be read is a problem in `status()`.
        token: the access token; else `ROLLOUT_TOKEN`.
        environ: the environment; the process's own where None.
        data_dir: where the last snapshot and the kill file lie; else `ROLLOUT_DATA_DIR`.
        poll_interval: seconds between two questions to the control plane.
        cascade: the model ids to use where no snapshot was ever seen.
        on_change: called with each new snapshot, in the follower's thread.
        transport: how httpx sends; its own where None.
        clock: seconds since the epoch.
        monotonic: a monotonic clock in seconds.
    """

    _settings: Settings
    _holder: Holder
    _disk: DiskCopy | None
    _progress: Progress
    _follower: Follower | None
    _finalizer: weakref.finalize[[], RolloutClient] | None
    _source: Source
    _awake: bool  # nothing is left to start; the one thing an evaluation looks at
    _waking: bool
    _not_before: float
    _pid: int
    _unstarted: str | None  # why there is no thread that follows

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        data_dir: str | Path | None = None,
        poll_interval: float = 1.0,
        cascade: Sequence[str] = (),
        on_change: Callable[[Snapshot], None] | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        named = {"ROLLOUT_URL": url, "ROLLOUT_TOKEN": token, "ROLLOUT_DATA_DIR": data_dir}
        self._named = {name: str(value) for name, value in named.items() if value is not None}
        self._interval = min(_LONGEST_INTERVAL, max(_SHORTEST_INTERVAL, poll_interval))
        self._cascade, self._on_change = tuple(cascade), on_change
        self._transport, self._clock, self._monotonic = transport, clock, monotonic
        self._lock = threading.RLock()  # never taken by an evaluation once the client is awake
        self._closed = False
        self._start()
        _clients.add(self)

    def evaluate(self, flag: str = MAIN_FLAG, who: object = None) -> Evaluation:
        """Decide for one user, with the evidence; never raises, never waits for the network.

        Args:
            flag: the flag's key.
            who: the user's id, an evaluation context, or None for nobody.
        """
        if not self._awake:
            self.start()
        return self._holder.evaluate(flag, who)

    def is_on(self, flag: str = MAIN_FLAG, who: object = None) -> bool:
        """Decide for one user, the value alone; cheaper than `evaluate`."""
        if not self._awake:
            self.start()
        return self._holder.is_on(flag, who)

    def feature_flags(self, who: object = None) -> FeatureFlags:
        """Return the plan's two fields for a user: the argument, else the one of `with user(...)`, else nobody."""
        made = self.evaluate(MAIN_FLAG, current_user() if who is None else who)
        return FeatureFlags(made.value, percentage_of(made.share))

    @property
    def cascade(self) -> tuple[str, ...]:
        """The model ids to try, in order: the snapshot's, else the constructor's."""
        if not self._awake:
            self.start()
        known = self._holder.cascade
        return self._cascade if known is None else known

    @property
    def upstreams(self) -> Upstreams:
        """Where the two paths lead, read from the same environment."""
        return self._settings.upstreams

    @property
    def follower_thread(self) -> threading.Thread | None:
        """The thread that follows, None where none was started; for those who watch a process's threads."""
        return self._follower.thread if self._follower is not None else None

    def start(self) -> None:
        """Read the snapshot on disk and start following, where that has not been done; never raises."""
        # whoever asks meanwhile waits for one local file and an import, and so never sees a half-made start
        with self._lock:
            if self._awake or self._waking or self._monotonic() < self._not_before:
                return
            self._waking, without = True, None
            try:
                without = self._wake()
                self._awake = without is None
            except Exception as error:  # noqa: BLE001 - a system without threads still gets its answers
                self._not_before = self._monotonic() + _START_AGAIN
                without, self._follower = self._follower, None
                self._unstarted = (
                    f"the follower could not start ({type(error).__name__}) and is tried again in {_START_AGAIN:g} s; "
                    "until then a kill arrives only when somebody is evaluated"
                )
                self._progress.happened(Event.FAILED, self._unstarted)
            else:
                self._unstarted = None
                self._not_before = self._monotonic() + _START_AGAIN
            finally:
                self._waking = False
        if without is not None:
            self._follow_without(without)

    def wait_until_ready(self, timeout: float | None = None) -> bool:
        """Wait until the control plane has answered once, `timeout` seconds at most; say whether it has.

        Without a control plane there is nothing to wait for: True. A snapshot from disk decides meanwhile.
        """
        self.start()
        return self._progress.ready.wait(timeout)

    def reload_environment(self) -> None:
        """Read the environment again: overrides, kill file, salt, upstreams, and where the control plane is."""
        with self._lock:
            before = self._settings
            settings, overrides = self._read()
            if settings.url != before.url:
                self._stop_following()
                self._start()
                return
            self._settings = settings
            self._holder.reload(
                overrides,
                KillFile(settings.kill_file, named=settings.kill_file_given),
                salt=settings.salt or PUBLISHED_SALT,
            )
            self._say_problems()
            if (settings.token, settings.data_dir) != (before.token, before.data_dir):
                # the same control plane, asked in another way: what is known stays known
                self._stop_following()
                self._source = self._source_now()
                self._disk = DiskCopy(settings.data_dir, settings.url) if settings.url else None
                self._live()

    def status(self) -> ClientStatus:
        """Return what the client knows of itself now."""
        holder, progress, disk = self._holder, self._progress, self._disk
        snapshot = holder.snapshot
        said = [str(problem) for problem in self._settings.problems]
        said += [*holder.problems, *(why for why in (progress.problem, disk.problem if disk else None) if why)]
        said += _problems_of(self._follower)
        if self._unstarted is not None and self._unstarted not in said:
            said.append(self._unstarted)
        return ClientStatus(
            state=progress.state,
            source=self._source_now(),
            installation=snapshot.installation if snapshot else None,
            revision=snapshot.revision if snapshot else None,
            age=holder.age,
            overridden=holder.overridden,
            problems=tuple(said),
        )

    def close(self, timeout: float = 2.0) -> None:
        """Stop following, waiting `timeout` seconds at most for the thread; what was known last still decides."""
        with self._lock:
            self._closed = self._awake = True
            follower = self._follower
            self._stop_following()
            self._progress.happened(Event.CLOSE)
        if follower is not None:
            follower.join(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def after_fork(self) -> None:
        """Begin a new life in a forked child: no thread came along, and locks may be held by ones that stayed."""
        self._lock = threading.RLock()
        self._holder.after_fork()
        self._source = self._source_now()
        if self._finalizer is not None:
            self._finalizer.detach()  # it would touch the lock of the parent's follower
        self._live()

    def _look_after(self) -> None:
        """See to it that there is a thread which follows; called by evaluations, several times a second at most."""
        if os.getpid() != self._pid:  # forked by something that runs no hooks of Python's, as uWSGI does
            self.after_fork()
            self.start()
        follower = self._follower
        if follower is None or self._closed or follower.late <= 0:
            return
        if follower.died:
            with self._lock:
                if self._follower is follower and not self._closed:
                    _log.warning("the thread that followed the control plane ended; another one is started")
                    self._source = self._source_now()
                    self._live()
            self.start()
        elif follower.thread is not threading.current_thread():
            follower.push()
            if follower.lost:
                self._holder.blind(on=True)

    def _follow_without(self, follower: Follower) -> None:
        """Ask in the caller's thread where no other could be had; an event loop cannot wait, so all goes direct."""
        if in_a_loop():
            self._holder.blind(on=True)
        else:
            follower.ask_here()

    def _read(self) -> tuple[Settings, LocalOverrides]:
        environ = {**self._environ, **self._named}
        return parse_settings(environ), read_overrides(environ)

    def _start(self) -> None:
        """Begin with nothing known."""
        self._settings, overrides = self._read()
        self._holder = Holder(
            overrides,
            KillFile(self._settings.kill_file, named=self._settings.kill_file_given),
            salt=self._settings.salt or PUBLISHED_SALT,
            clock=self._clock,
            on_change=self._on_change,
            on_look=_looking_after(weakref.ref(self)),
        )
        self._source = Source.NONE
        self._disk = DiskCopy(self._settings.data_dir, self._settings.url) if self._settings.url else None
        self._live()

    def _live(self) -> None:
        """Begin a life with what the holder knows: nothing runs until somebody asks."""
        self._pid = os.getpid()
        self._progress = Progress(State.IDLE if self._settings.url else State.LOCAL)
        self._follower = None
        self._finalizer = None
        self._waking, self._not_before, self._unstarted = False, float("-inf"), None
        self._awake = self._closed
        if self._closed:
            self._progress.happened(Event.CLOSE)

    def _wake(self) -> Follower | None:
        """Start what follows; return it where no thread may be started yet."""
        self._say_problems()
        url, disk = self._settings.url, self._disk
        if url is None or disk is None:
            return None
        if self._holder.snapshot is None and (found := disk.load()) is not None:
            self._holder.replace(found[0], confirmed_at=found[1])
            self._source = Source.DISK
        follower = Follower(
            url,
            self._settings.token,
            holder=self._holder,
            progress=self._progress,
            disk=disk,
            poll_interval=self._interval,
            # what lies on disk is a memory; what the server of this process said is what it follows
            allow_new_installation=self._source is not Source.SERVER,
            transport=self._transport,
            network=self._settings.upstreams.network,
            clock=self._clock,
            monotonic=self._monotonic,
        )
        self._progress.happened(Event.START)
        if forks_later():
            return follower
        self._follower = follower
        follower.start()
        self._finalizer = weakref.finalize(self, follower.stop)
        self._finalizer.atexit = False
        return None

    def _stop_following(self) -> None:
        if self._follower is not None:
            self._follower.stop()
            self._follower = None

    def _source_now(self) -> Source:
        answered = self._progress.ready.is_set() and self._settings.url is not None
        return Source.SERVER if answered else self._source

    def _say_problems(self) -> None:
        for problem in (*self._settings.problems, *self._holder.local.problems):
            _log.warning("%s", problem)


def _looking_after(client: weakref.ref[RolloutClient]) -> Callable[[], None]:
    """Return what a holder calls; it does not keep a client that nobody uses."""

    def look_after() -> None:
        if (used := client()) is not None:
            used._look_after()  # noqa: SLF001 - its own

    return look_after


def _problems_of(follower: Follower | None) -> Sequence[str]:
    if follower is None:
        return ()
    lost = (
        f"the thread that follows the control plane has not run for {follower.late:.0f} s, so a kill cannot be "
        "expected to arrive and all goes direct; start this process with threads (uWSGI: --enable-threads)"
    )
    return [why for why in (follower.problem, lost if follower.lost else None) if why]


_clients: Final[weakref.WeakSet[RolloutClient]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
