"""One thing per event loop: a session must not be used on another loop than the one it was opened on."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

_T = TypeVar("_T")


class PerLoop(Generic[_T]):
    """Open a thing lazily on each event loop, and close it when the loop shuts down.

    The closing hangs on `loop.shutdown_asyncgens()`, which `asyncio.run`, `asyncio.Runner` and everything built
    on them call before they close a loop: an asynchronous generator that has begun is ended then, and its
    `finally` still runs on the loop. A loop that was closed without that call can run nothing any more: its thing
    is let go of without it, when another loop opens one, when this object goes, or when the interpreter ends.
    """

    def __init__(
        self,
        make: Callable[[], _T],
        close: Callable[[_T], Awaitable[None]],
        let_go: Callable[[_T], None] = lambda _: None,
    ) -> None:
        self._make = make
        self._close = close
        self._let_go = let_go
        self._kept: dict[asyncio.AbstractEventLoop, tuple[_T, AsyncGenerator[None, None]]] = {}
        weakref.finalize(self, _bury, self._kept, let_go)

    async def get(self) -> _T:
        """Return this loop's thing."""
        kept = self._kept.get(asyncio.get_running_loop())
        return kept[0] if kept is not None else await self._open()

    async def aclose(self) -> None:
        """Close this loop's thing, if there is one, and those of loops that are closed."""
        _bury(self._kept, self._let_go)
        kept = self._kept.get(asyncio.get_running_loop())
        if kept is not None:
            await kept[1].aclose()

    async def _open(self) -> _T:
        loop = asyncio.get_running_loop()
        _bury(self._kept, self._let_go)
        thing = self._make()
        keeper = self._keep(loop, thing)
        self._kept[loop] = (thing, keeper)
        await anext(keeper)  # only a generator that has begun is ended with the loop
        return thing

    async def _keep(self, loop: asyncio.AbstractEventLoop, thing: _T) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self._kept.pop(loop, None) is not None:  # else it was let go of
                await self._close(thing)


def _bury(
    kept: dict[asyncio.AbstractEventLoop, tuple[_T, AsyncGenerator[None, None]]], let_go: Callable[[_T], None]
) -> None:
    """Let go of what belongs to loops that are closed."""
    for loop in list(kept):
        if loop.is_closed() and (found := kept.pop(loop, None)) is not None:
            let_go(found[0])


def end_transport(transport: object) -> None:
    """Close the socket of a transport whose loop is closed.

    asyncio closes a socket on its loop, and warns of one that is left, so what the loop would have called is called
    here: by its name inside asyncio, because there is no other way. Without that name the socket is closed when it is
    collected.
    """
    under = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    for each in filter(None, (transport, under)):
        if (end := getattr(each, "_call_connection_lost", None)) is not None:
            with suppress(Exception):
                end(None)
