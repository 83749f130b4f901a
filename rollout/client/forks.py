"""Forks are held back for as long as something is imported or set up, so that no child inherits the half of it.

A child has the thread that forked and no other. What another thread was importing at that moment stays half
imported in the child, behind a lock that nobody there ever opens: whoever needs the module gets an AttributeError
or waits for ever. A platform without fork hooks holds nothing back; what is set up is then done before our own
thread starts, and a child notices by its process id that it is one.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Final

_LONGEST: Final = 10.0
"""Seconds a fork waits at most. An import takes far less; one that waits for the thread that forks never ends."""


class _Hold:
    def __init__(self) -> None:
        self.lock = threading.RLock()

    def before(self) -> None:
        self.lock.acquire(timeout=_LONGEST)

    def in_parent(self) -> None:
        with suppress(RuntimeError):  # it was not had in time
            self.lock.release()

    def in_child(self) -> None:
        self.lock = threading.RLock()


_hold: Final = _Hold()


@contextmanager
def held() -> Iterator[None]:
    """Hold back forks of other threads while the block runs."""
    with _hold.lock:
        yield


def import_whole(name: str) -> ModuleType:
    """Import a module with forks held back; one that fails leaves nothing behind that the next try would trip over.

    Raises:
        Exception: whatever importing raises: a process that has too many files open raises OSError.
    """
    if (known := sys.modules.get(name)) is not None and not getattr(known.__spec__, "_initializing", False):
        return known
    with held():
        before = set(sys.modules)
        try:
            return importlib.import_module(name)
        except BaseException:
            # a package that failed is gone from `sys.modules` and its parts are not: the next import would find
            # them there, and not as the package's attributes
            for left in set(sys.modules) - before:
                if left.partition(".")[0] not in sys.modules:
                    sys.modules.pop(left, None)
            raise


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_hold.before, after_in_parent=_hold.in_parent, after_in_child=_hold.in_child)
