"""Follow a control plane from a daemon thread: ask, take over, wait, until it is stopped.

Whatever goes wrong is said and tried again; nothing but `stop` ends the thread. All that is imported and opened once
is imported and opened before the thread starts, with forks held back.

What to do next is decided by `decide`, a pure function of the answer; the thread only asks and performs.
How to wait for the next change is one method, `Follower.wait_for_change`: polling sleeps, a stream would return
as soon as the server speaks.
"""

from __future__ import annotations

import codecs
import logging
import os
import random
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from rollout.client.disk import DiskCopy
from rollout.client.forks import held, import_whole
from rollout.client.holder import Holder
from rollout.client.status import Event, Progress
from rollout.client.uwsgi import without_threads
from rollout.domain.errors import InvalidRequest
from rollout.network import Network, explain
from rollout.wire.snapshot import decode

if TYPE_CHECKING:
    import httpx  # imported when a follower starts, so that importing the client stays quick

_log: Final = logging.getLogger("rollout.client")

LONGEST_BACKOFF: Final = 15.0
"""Seconds; also how slowly a control plane is asked that refused us."""
LONGEST_RETRY_AFTER: Final = 300.0
"""Seconds; a `Retry-After` beyond it would keep a kill from arriving and is left aside."""

_SHORTEST_WAIT: Final = 0.05  # full jitter may draw 0, and a loop must not spin
_TIMEOUT: Final = 5.0
_WHOLE_ANSWER: Final = 30.0  # seconds for a body that drips
_LARGEST_ANSWER: Final = 64 * 1024 * 1024

_GRACE: Final = 2.0  # seconds a thread may be late for on a busy machine
_PATIENCE: Final = 0.2  # seconds a caller waits at most for a thread that is late, once a second
_PATIENCE_OF_A_LOOP: Final = 0.02  # the same for an event loop, on which others wait
_HERE: Final = 1.0  # seconds for a question that a caller has to ask in its own thread
_LOST: Final = 10.0  # seconds late, after which a kill can no longer be expected to arrive
_LOST_ASKING: Final = 60.0  # the same for a thread that has asked: looking up a name alone may take half a minute
_NO_THREADS: Final = 3  # so many times in a row did the thread only run while a caller waited for it
ONLY_PUSHED: Final = (
    "the thread that follows the control plane runs only while somebody is evaluated, so a kill arrives with the "
    "requests alone; start this process with threads (uWSGI: --enable-threads)"
)
"""What is wrong with a host that runs no threads."""


def in_a_loop() -> bool:
    """Tell whether an event loop runs in this thread, which nobody may keep waiting."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 - documented, despite its name


class Answer(NamedTuple):
    """What came of asking once.

    `status` is the HTTP status, None where there was no answer, and then `failure` says why. `retry_after` is
    in seconds.
    """

    status: int | None
    body: bytes = b""
    etag: str | None = None
    retry_after: float | None = None
    failure: str | None = None


class Next(NamedTuple):
    """What follows from an answer: what happened, the problem if any, and seconds to wait before asking again."""

    event: Event
    problem: str | None
    delay: float


def backoff(failures: int, interval: float, chance: random.Random) -> float:
    """Return seconds to wait after `failures` in a row: exponential with full jitter, 15 s at most.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    longest = min(LONGEST_BACKOFF, interval * 2 ** min(failures, 16))
    return max(_SHORTEST_WAIT, chance.uniform(0.0, longest))


def decide(answer: Answer, *, place: str, failures: int, interval: float, chance: random.Random) -> Next:
    """Decide what an answer means, before its body is read.

    Args:
        answer: what came back.
        place: the control plane's name for people.
        failures: how many times in a row it failed before.
        interval: seconds between two questions while all is well.
        chance: what the jitter is drawn from.
    """
    at = f"the control plane at {place}"
    if answer.status in (200, 304):
        return Next(Event.CONFIRMED, None, interval)
    if answer.status in (401, 403):
        told = "does not know this access token" if answer.status == 401 else "does not let this access token follow it"
        return Next(Event.REFUSED, f"{at} {told} ({answer.status}); check ROLLOUT_TOKEN", LONGEST_BACKOFF)
    why = answer.failure or f"answered {answer.status}"
    wait = backoff(failures + 1, interval, chance)
    if answer.retry_after is not None and 0 <= answer.retry_after <= LONGEST_RETRY_AFTER:
        wait = max(wait, answer.retry_after)
    return Next(Event.FAILED, f"{at} {why}; the last snapshot decides meanwhile", wait)


def read_retry_after(text: str | None, now: float) -> float | None:
    """Read `Retry-After`, seconds or a date (RFC 9110, 10.2.3); None where it is absent or unreadable.

    Args:
        text: the header.
        now: seconds since the epoch.
    """
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
        return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


class Follower:
    """One thread that keeps a holder up to date with one control plane.

    Args:
        url: the control plane's base URL, without a trailing slash.
        token: the access token.
        holder: what to keep up to date.
        progress: where to say how it goes.
        disk: where each new snapshot is kept.
        poll_interval: seconds between two questions while all is well.
        allow_new_installation: whether the first answer may be of another installation than the one held.
        transport: how httpx sends; its own where None.
        network: through which proxy the control plane is reached, and which certificates are trusted.
        clock: seconds since the epoch.
        monotonic: a monotonic clock in seconds.
        chance: what the jitter is drawn from.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        holder: Holder,
        progress: Progress,
        disk: DiskCopy,
        poll_interval: float,
        allow_new_installation: bool,
        transport: httpx.BaseTransport | None,
        network: Network,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        chance: random.Random | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._place = parts.netloc.rpartition("@")[2]  # a URL may carry a password
        self._url, self._token = f"{url}/api/v1/snapshot", token
        self._holder, self._progress, self._disk = holder, progress, disk
        self._interval, self._allow_new = poll_interval, allow_new_installation
        self._transport, self._clock, self._monotonic = transport, clock, monotonic
        self._network = network
        self._chance = chance or random.Random()  # noqa: S311 - jitter, not a secret
        self._etag: str | None = None
        self._failures = 0
        self._http: httpx.Client | None = None
        self._pid = os.getpid()
        self._stopped = threading.Event()
        self._heard = threading.Event()
        self._due, self._lost_after = monotonic() + _GRACE, _LOST
        self._push_again = float("-inf")
        self._pushed = 0
        self._wait = _TIMEOUT
        self.problem: str | None = None
        self.thread = threading.Thread(target=self._run, name="rollout-follower", daemon=True)

    def start(self) -> None:
        """Import and open what is needed, then start the thread.

        Raises:
            RuntimeError: the system gives no more threads.
        """
        with suppress(Exception):  # too many open files, say: the thread tries again and says so
            self._http = self._open()
        with held():
            self.thread.start()
        if without_threads():
            self._say(ONLY_PUSHED)

    def stop(self) -> None:
        """Tell the thread to end; it does so after the question it may be in."""
        self._stopped.set()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended, `timeout` seconds at most."""
        if self.thread.ident is not None and self.thread is not threading.current_thread():
            self.thread.join(timeout)

    def wait_for_change(self, seconds: float) -> None:
        """Return when it is time to ask again, or the follower was stopped; this one sleeps."""
        self._stopped.wait(seconds)

    @property
    def late(self) -> float:
        """Seconds since the thread should have been heard of; negative while all is well."""
        return self._monotonic() - self._due

    @property
    def lost(self) -> bool:
        """Whether the thread has not run for so long that a kill cannot be expected to arrive."""
        return self.late > self._lost_after

    @property
    def died(self) -> bool:
        """Whether the thread ended without having been told to."""
        return self.thread.ident is not None and not self.thread.is_alive() and not self._stopped.is_set()

    def push(self) -> None:
        """Give a thread that is late the time of the caller, who waits for it a moment, at most once a second.

        A host that was told to run no threads (uWSGI without `enable-threads`) runs ours only while its own waits.
        """
        if self._monotonic() < self._push_again:
            return
        self._push_again = self._monotonic() + 1.0
        self._heard.clear()
        self._pushed += 1
        self._heard.wait(_PATIENCE_OF_A_LOOP if in_a_loop() else _PATIENCE)
        if self._pushed >= _NO_THREADS:
            self._say(ONLY_PUSHED)

    def ask_here(self) -> None:
        """Ask once in the caller's thread, `_HERE` seconds or little more: the system gives us no thread."""
        self._wait = _HERE
        self._turn()

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("%s", problem)
        self.problem = problem

    def _run(self) -> None:
        while not self._is_over():
            pushed = self._pushed
            delay = self._turn()
            if pushed == self._pushed and not self._heard.is_set():
                self._pushed = 0
            self._expect(delay)
            self._heard.set()
            self.wait_for_change(delay)
        if (http := self._http) is not None:
            with suppress(Exception):
                http.close()

    def _is_over(self) -> bool:
        # a listener of the application may have forked in this thread: the child's client starts its own
        return self._stopped.is_set() or os.getpid() != self._pid

    def _expect(self, seconds: float) -> None:
        """Note that the thread runs, and will run again before that many seconds are over."""
        self._due, self._lost_after = self._monotonic() + seconds + _GRACE, _LOST if seconds else _LOST_ASKING

    def _turn(self) -> float:
        """Ask once, whatever happens; return seconds to wait."""
        self._expect(0.0)
        try:
            if self._http is None:
                self._http = self._open()
            return self._step(self._http)
        except Exception as error:  # noqa: BLE001 - a thread that ends would look like one that follows
            broken, self._http, self._etag = self._http, None, None
            self._failures += 1
            with suppress(Exception):
                why = f"cannot be followed ({type(error).__name__}); it is tried again"
                said = f"the control plane at {self._place} {why}, the last snapshot decides meanwhile"
                self._progress.happened(Event.FAILED, said)
            with suppress(Exception):
                if broken is not None:
                    broken.close()
            return backoff(self._failures, self._interval, self._chance)
        finally:
            self._holder.blind(on=False)

    def _open(self) -> httpx.Client:
        with held():
            codecs.lookup("idna")  # sockets load it for a host's name when they first connect
            return self._opened(import_whole("httpx"))

    def _opened(self, library: ModuleType) -> httpx.Client:
        headers = {"Accept": "application/json", "User-Agent": "rollout-client"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        options = self._network.httpx_options(self._url)
        if self._transport is not None:
            options = {"transport": self._transport}
        made: httpx.Client = library.Client(headers=headers, timeout=_TIMEOUT, **options)
        return made

    def _step(self, http: httpx.Client) -> float:
        """Ask once and perform what follows; return seconds to wait."""
        answer = self._ask(http)
        if self._stopped.is_set():
            return 0.0
        todo = decide(answer, place=self._place, failures=self._failures, interval=self._interval, chance=self._chance)
        if todo.event is Event.CONFIRMED:
            problem = self._take(answer)
            if problem is not None:
                failed = answer._replace(status=None, failure=problem)
                todo = decide(
                    failed, place=self._place, failures=self._failures, interval=self._interval, chance=self._chance
                )
        self._failures = 0 if todo.event is Event.CONFIRMED else self._failures + 1
        self._progress.happened(todo.event, todo.problem)
        return todo.delay

    def _take(self, answer: Answer) -> str | None:
        """Take over a good answer; return what is wrong with it, if anything is."""
        if answer.status == 304:
            if self._holder.snapshot is None or self._etag is None:
                return "answered 304 to a question without a condition"
            self._holder.confirm(self._clock())
            return None
        try:
            snapshot = decode(answer.body)
        except InvalidRequest as error:
            self._etag = None
            return f"answered something else ({error.message})"
        taken = self._holder.replace(snapshot, confirmed_at=self._clock(), allow_new_installation=self._allow_new)
        if not taken:
            self._etag = None
            return "is another installation than the one this process follows"
        self._allow_new, self._etag = False, answer.etag
        self._disk.save(answer.body)
        return None

    def _ask(self, http: httpx.Client) -> Answer:
        import httpx

        try:
            condition = {"If-None-Match": self._etag} if self._etag else {}
            with http.stream("GET", self._url, headers=condition, timeout=self._wait) as response:
                retry_after = read_retry_after(response.headers.get("retry-after"), self._clock())
                if response.status_code != 200:
                    return Answer(response.status_code, retry_after=retry_after)
                body = self._read(response)
                if body is None:
                    return Answer(None, failure="sent an answer that is too large or too slow")
                return Answer(200, body, response.headers.get("etag"))
        except httpx.TimeoutException:
            return Answer(None, failure=f"did not answer within {self._wait:g} s")
        except (httpx.ConnectError, httpx.ProxyError) as error:
            why = explain(error, self._network.proxy_for(self._url))
            return Answer(None, failure=f"cannot be reached ({why})")
        except Exception as error:  # noqa: BLE001 - whatever it is, the next question may be answered
            # the message is left out: it may quote a header, and so the access token
            return Answer(None, failure=f"could not be asked ({type(error).__name__})")

    def _read(self, response: httpx.Response) -> bytes | None:
        parts, size, end = [], 0, self._monotonic() + _WHOLE_ANSWER
        for part in response.iter_bytes():
            self._expect(0.0)
            size += len(part)
            if size > _LARGEST_ANSWER or self._monotonic() > end:
                return None
            parts.append(part)
        return b"".join(parts)
