"""The client that `invoke_llm` and `feature_flags` use where none is handed in: one per process."""

from __future__ import annotations

from typing import Final

from rollout.client.client import RolloutClient

_made: Final[dict[str, RolloutClient]] = {}


def default_client() -> RolloutClient:
    """Return this process's client, made from its environment when it is first asked for.

    It outlives a fork: in the child the same object starts following anew.
    """
    client = _made.get("default")
    # constructing does nothing, so that of two threads one may make a client in vain; no lock to inherit in a fork
    return client if client is not None else _made.setdefault("default", RolloutClient())


def set_default_client(client: RolloutClient | None) -> RolloutClient | None:
    """Use this client from now on, None for one made from the environment; return the one before, not closed."""
    before = _made.pop("default", None)
    if client is not None:
        _made["default"] = client
    return before
