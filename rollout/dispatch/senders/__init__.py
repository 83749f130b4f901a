"""What touches sockets: httpx synchronously; aiohttp asynchronously where it is installed, else httpx."""

from __future__ import annotations

from importlib.util import find_spec

from rollout.client.forks import held
from rollout.dispatch.senders.seam import AsyncSender, Sender
from rollout.network import DIRECT, Network


def make_sender(network: Network = DIRECT) -> Sender:
    """Return a synchronous sender; it opens nothing before its first call."""
    with held():
        from rollout.dispatch.senders.sync_httpx import HttpxSender

        return HttpxSender(network=network)


def make_async_sender(network: Network = DIRECT) -> AsyncSender:
    """Return an asynchronous sender: aiohttp where it is installed, because httpx collapses under concurrency."""
    try:
        installed = find_spec("aiohttp") is not None
    except (ImportError, ValueError):
        installed = False
    with held():
        if installed:
            from rollout.dispatch.senders.async_aiohttp import AiohttpSender

            return AiohttpSender(network)
        from rollout.dispatch.senders.async_httpx import AsyncHttpxSender

        return AsyncHttpxSender(network)
