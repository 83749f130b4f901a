"""Move an application's LLM traffic onto a new path, a share of users at a time.

The public names below are loaded when they are first asked for: `import rollout` itself loads nothing, and an
application that only sends never loads the server's parts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rollout.client import RolloutClient
    from rollout.client.user import user
    from rollout.dispatch.decision import Decision, Exchange, InvokeResult
    from rollout.dispatch.invoke import aclose, ainvoke_llm, feature_flags, invoke_llm
    from rollout.dispatch.wrapping import wrap
    from rollout.domain.context import Context
    from rollout.domain.errors import (
        DeadlineExceeded,
        InvalidRequest,
        RateLimited,
        RolloutError,
        SendingFailed,
        UpstreamRejected,
        UpstreamUnavailable,
    )

__all__ = [
    "Context",
    "DeadlineExceeded",
    "Decision",
    "Exchange",
    "InvalidRequest",
    "InvokeResult",
    "RateLimited",
    "RolloutClient",
    "RolloutError",
    "SendingFailed",
    "UpstreamRejected",
    "UpstreamUnavailable",
    "aclose",
    "ainvoke_llm",
    "feature_flags",
    "invoke_llm",
    "user",
    "wrap",
]

_HOMES: Final = {
    "Context": "rollout.domain.context",
    "Decision": "rollout.dispatch.decision",
    "Exchange": "rollout.dispatch.decision",
    "InvokeResult": "rollout.dispatch.decision",
    "RolloutClient": "rollout.client",
    "aclose": "rollout.dispatch.invoke",
    "ainvoke_llm": "rollout.dispatch.invoke",
    "feature_flags": "rollout.dispatch.invoke",
    "invoke_llm": "rollout.dispatch.invoke",
    "user": "rollout.client.user",
    "wrap": "rollout.dispatch.wrapping",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_HOMES.get(name, "rollout.domain.errors")), name)
    globals()[name] = found  # the next look-up costs nothing
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
