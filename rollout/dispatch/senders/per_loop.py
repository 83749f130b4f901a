"""One thing per event loop: a session must not be used on another loop than the one it was opened on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class PerLoop(Generic[_T]):
    """Open a thing lazily on each event loop, and close it when the loop shuts down.

    The closing hangs on `loop.shutdown_asyncgens()`, which `asyncio.run`, `asyncio.Runner` and everything built
    on them call before they close a loop: an asynchronous generator that has begun is ended then, and its
    `finally` still runs on the loop. Whoever closes a loop without that call awaits `aclose` first.
    """

    def __init__(self, make: Callable[[], _T], close: Callable[[_T], Awaitable[None]]) -> None:
        self._make = make
        self._close = close
        self._kept: dict[asyncio.AbstractEventLoop, tuple[_T, AsyncGenerator[None, None]]] = {}

    async def get(self) -> _T:
        """Return this loop's thing."""
        kept = self._kept.get(asyncio.get_running_loop())
        return kept[0] if kept is not None else await self._open()

    async def aclose(self) -> None:
        """Close this loop's thing, if there is one."""
        kept = self._kept.get(asyncio.get_running_loop())
        if kept is not None:
            await kept[1].aclose()

    async def _open(self) -> _T:
        loop = asyncio.get_running_loop()
        for other in list(self._kept):  # loops that were closed without a word
            if other.is_closed():
                self._kept.pop(other, None)
        thing = self._make()
        keeper = self._keep(loop, thing)
        self._kept[loop] = (thing, keeper)
        await anext(keeper)  # only a generator that has begun is ended with the loop
        return thing

    async def _keep(self, loop: asyncio.AbstractEventLoop, thing: _T) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._kept.pop(loop, None)
            await self._close(thing)
