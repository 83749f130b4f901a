"""What a request may not ask for where nothing may cost: extras that OpenRouter charges for beside the model. Pure.

`max_price` is about a model's own prices; a search on the web is billed whichever model asked for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rollout.domain.errors import InvalidRequest

FREE_PLUGINS: Final = frozenset({"context-compression", "response-healing"})
"""Plugins that change a text and call nobody."""

CASCADES: Final = frozenset({"models", "route"})
"""Fields in which a caller names models to fall back to. The cascade is the installation's, as `model` is."""

_CHARGED_TOOL: Final = "openrouter:"  # tools that OpenRouter runs itself


def check_extras(body: Mapping[str, Any]) -> None:
    """Check that nothing is asked for that costs something beside the model.

    Raises:
        InvalidRequest: something is; the message names it.
    """
    if body.get("web_search_options") is not None:
        raise _costs("web_search_options", "web_search_options")
    for field, key in (("plugins", "id"), ("tools", "type")):
        given = body.get(field)
        for each in given if isinstance(given, list | tuple) else ():
            name = str(each.get(key)) if isinstance(each, Mapping) else ""
            if (field == "plugins" and name not in FREE_PLUGINS) or name.startswith(_CHARGED_TOOL):
                raise _costs(f"{name!r:.80} among the {field}", field)


def _costs(what: str, field: str) -> InvalidRequest:
    return InvalidRequest(
        f"{what} may cost money even where the model is free; leave it out, or set ROLLOUT_ALLOW_PAID=1", field=field
    )
