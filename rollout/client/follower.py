"""Follow a control plane from a daemon thread: ask, take over, wait, for ever.

What to do next is decided by `decide`, a pure function of the answer; the thread only asks and performs.
How to wait for the next change is one method, `Follower.wait_for_change`: polling sleeps, a stream would return
as soon as the server speaks.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from rollout.client.disk import DiskCopy
from rollout.client.holder import Holder
from rollout.client.status import Event, Progress
from rollout.domain.errors import InvalidRequest
from rollout.network import Network, explain
from rollout.wire.snapshot import decode

if TYPE_CHECKING:
    import httpx  # imported when a follower starts, so that importing the client stays quick

LONGEST_BACKOFF: Final = 15.0
"""Seconds; also how slowly a control plane is asked that refused us."""
LONGEST_RETRY_AFTER: Final = 300.0
"""Seconds; a `Retry-After` beyond it would keep a kill from arriving and is left aside."""

_SHORTEST_WAIT: Final = 0.05  # full jitter may draw 0, and a loop must not spin
_TIMEOUT: Final = 5.0
_WHOLE_ANSWER: Final = 30.0  # seconds for a body that drips
_LARGEST_ANSWER: Final = 64 * 1024 * 1024


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
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name="rollout-follower", daemon=True)

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the system gives no more threads.
        """
        self.thread.start()

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

    def _run(self) -> None:
        try:
            with self._open() as http:
                while not self._stopped.is_set():
                    self.wait_for_change(self._step(http))
        except Exception as error:  # noqa: BLE001 - a thread that dies silently would look like one that follows
            self._progress.happened(Event.FAILED, f"following the control plane ended ({type(error).__name__})")

    def _open(self) -> httpx.Client:
        import httpx

        headers = {"Accept": "application/json", "User-Agent": "rollout-client"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        options = self._network.httpx_options(self._url)
        if self._transport is not None:
            options = {"transport": self._transport}
        return httpx.Client(headers=headers, timeout=_TIMEOUT, **options)

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
            with http.stream("GET", self._url, headers=condition) as response:
                retry_after = read_retry_after(response.headers.get("retry-after"), self._clock())
                if response.status_code != 200:
                    return Answer(response.status_code, retry_after=retry_after)
                body = self._read(response)
                if body is None:
                    return Answer(None, failure="sent an answer that is too large or too slow")
                return Answer(200, body, response.headers.get("etag"))
        except httpx.TimeoutException:
            return Answer(None, failure=f"did not answer within {_TIMEOUT:g} s")
        except (httpx.ConnectError, httpx.ProxyError) as error:
            why = explain(error, self._network.proxy_for(self._url))
            return Answer(None, failure=f"cannot be reached ({why})")
        except Exception as error:  # noqa: BLE001 - whatever it is, the next question may be answered
            # the message is left out: it may quote a header, and so the access token
            return Answer(None, failure=f"could not be asked ({type(error).__name__})")

    def _read(self, response: httpx.Response) -> bytes | None:
        parts, size, end = [], 0, self._monotonic() + _WHOLE_ANSWER
        for part in response.iter_bytes():
            size += len(part)
            if size > _LARGEST_ANSWER or self._monotonic() > end:
                return None
            parts.append(part)
        return b"".join(parts)
