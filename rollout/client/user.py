"""Who is asking, for calls that carry no user: a context variable.

    with user("user-42"):
        invoke_llm(messages=[...])

It is kept across `await`, into tasks, and into threads started with `contextvars.copy_context()`.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Final

from rollout.domain.identity import user_from_header, user_id

__all__ = ["current_user", "user", "user_from_header"]

_current: Final[ContextVar[str]] = ContextVar("rollout_user", default="")


class user:  # noqa: N801 - read as a statement: `with user("user-42"):`
    """Name who is asking within a `with` block, in synchronous and asynchronous code alike.

    Args:
        who: the user's id, or something whose `str()` is the id; None and empty name nobody.
    """

    __slots__ = ("_before", "_who")

    def __init__(self, who: object) -> None:
        self._who = user_id(who)
        self._before: list[Token[str]] = []  # a stack, so that one object may be entered twice

    def __enter__(self) -> str | None:
        self._before.append(_current.set(self._who))
        return self._who or None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            _current.reset(self._before.pop())
        except ValueError:
            # left in another context than it was entered in (a dependency that a framework runs in two threads):
            # that other context ends with its request, there is nothing to put back
            return


def current_user() -> str | None:
    """Return who is asking here and now, None for nobody."""
    return _current.get() or None
