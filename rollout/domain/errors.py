"""Every error this package raises, as one tree.

    RolloutError
    ├── InvalidRequest            what the caller handed in; nothing was sent, nothing changed
    │   └── InvalidValue          one named field of a change
    ├── SendingFailed             attempts were made and none served the caller (`.attempts`)
    │   ├── UpstreamRejected      the upstream refused this request, now and on a second try
    │   ├── UpstreamUnavailable   unreachable, 5xx, or an answer that is no answer
    │   ├── RateLimited           a quota or a busy upstream; `.retry_after` in seconds where it is known
    │   └── DeadlineExceeded      time ran out before the answer was there
    ├── ChangeRefused             a change that was understood and not made
    │   ├── NotFound              no such flag, override, token or entry
    │   ├── StaleChange           the thing changed meanwhile (`.current`)
    │   └── PreflightFailed       raising the share is not safe now (`.problems`)
    ├── NotSignedIn               no session and no access token, or not a valid one
    ├── NotAllowed                signed in, but the role does not reach
    │   └── ForeignOrigin         a browser's change that did not come from our own pages
    └── StoreFailed               the database: unreachable, newer than the code, or written around the door
        ├── StoreUnreachable
        └── StoreNewer

Messages quote values with `!r` and say what to do next. None carries a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RolloutError(Exception):
    """Base of everything this package raises; `attempts` lists what was sent before it (often nothing)."""

    attempts: Sequence[Any] = ()

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self.args[0]) if self.args else type(self).__name__

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by what the error holds: its constructor may take other arguments than `args`."""
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[RolloutError], args: tuple[Any, ...]) -> RolloutError:
    return kind.__new__(kind, *args)


class InvalidRequest(RolloutError):
    """What the caller handed in cannot be used; nothing was sent and nothing changed."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class InvalidValue(InvalidRequest):
    """One field of a change is outside what it may be."""


class SendingFailed(RolloutError):
    """Attempts were made and none of them served the caller."""

    def __init__(
        self,
        message: str,
        *,
        attempts: Sequence[Any] = (),
        status: int | None = None,
        retry_after: float | None = None,
        decision: Any = None,
    ) -> None:
        super().__init__(message)
        self.attempts = tuple(attempts)
        self.status = status
        self.retry_after = retry_after
        self.decision = decision


class UpstreamRejected(SendingFailed):
    """The upstream refused this request and would refuse it again."""


class UpstreamUnavailable(SendingFailed):
    """The upstream could not be reached, failed, or answered something that is no answer."""


class RateLimited(SendingFailed):
    """A quota is used up or the upstream is busy; `retry_after` is in seconds where it is known."""


class DeadlineExceeded(SendingFailed):
    """Time ran out before the answer was there."""


class ChangeRefused(RolloutError):
    """A change that was understood and not made; nothing was written."""


class NotFound(ChangeRefused):
    """The thing named does not exist."""


class StaleChange(ChangeRefused):
    """The thing changed after the caller looked at it; `current` is its state now."""

    def __init__(self, message: str, *, current: Any, seen: int, now: int) -> None:
        super().__init__(message)
        self.current = current
        self.seen = seen
        self.now = now


class PreflightFailed(ChangeRefused):
    """The share may not be raised now; `problems` are sentences that say why."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(
            "the share was not raised: " + "; ".join(problems) + ". Put it right, or skip the preflight on purpose."
        )
        self.problems = tuple(problems)


class NotSignedIn(RolloutError):
    """No session and no access token came with the request, or none that is valid."""


class NotAllowed(RolloutError):
    """The caller is known, but its role does not reach this far."""


class ForeignOrigin(NotAllowed):
    """A browser sent a change that did not come from our own pages, or not from this session's."""


class StoreFailed(RolloutError):
    """The database cannot be used."""


class StoreUnreachable(StoreFailed):
    """The database did not answer."""


class StoreNewer(StoreFailed):
    """The database was migrated by a newer version of this program."""
