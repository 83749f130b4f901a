"""A time limit on what a task awaits: what `asyncio.timeout` does, for a tenth of its cost.

Every attempt and every piece of a stream has one, and next to none of them ever runs out. So they share one timer
for each event loop, set for the earliest of them, instead of setting and clearing a timer each.
"""

from __future__ import annotations

import asyncio
import threading
from math import inf
from types import TracebackType
from typing import Final

_MARGIN: Final = 0.001
"""Seconds; event loops round their timers to milliseconds."""


class _Watch:
    """The limits that run on one event loop, and the timer for the earliest."""

    __slots__ = ("_at", "_handle", "limits", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.limits: set[Within] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._at = inf

    def add(self, limit: Within) -> None:
        self.limits.add(limit)
        if limit.due < self._at:
            self._arm(limit.due)

    def _arm(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._at = at
        self._handle = self.loop.call_at(at, self._look)

    def _look(self) -> None:
        self._handle, self._at = None, inf
        now = self.loop.time() + _MARGIN
        for limit in [each for each in self.limits if each.due <= now]:
            self.limits.discard(limit)
            limit.run_out()
        if self.limits:
            self._arm(min(each.due for each in self.limits))


class _Here(threading.local):
    watch: _Watch | None = None


_here: Final = _Here()


class Within:
    """Cancel a block of a task after so many seconds, and raise `TimeoutError` in its place; used once.

    Nothing is awaited on the way in and out, so it is a plain context manager around what is.
    """

    __slots__ = ("_cancelling", "_late", "_seconds", "_task", "_watch", "due")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._late = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - what awaits is in a task
        self._task, self._cancelling = task, task.cancelling()
        watch = _here.watch
        if watch is None or watch.loop is not loop:
            watch = _here.watch = _Watch(loop)
        self._watch = watch
        self.due = loop.time() + self._seconds
        watch.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.limits.discard(self)
        # another cancellation at the same time, by the caller leaving, is the stronger one
        if self._late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def run_out(self) -> None:
        """Cancel the block; the watch calls this."""
        self._late = True
        self._task.cancel()
