"""What a request may ask for beside its model, if nothing may cost. Pure.

`max_price` is about a model's own prices. Whatever else OpenRouter bills (a search, a file it parses, a tool it runs,
a faster tier, a preset that says any of it) is allowed only if its documentation says that it is free, and what cannot
be read is not. Fields that bill nothing are not looked at.

OpenRouter chooses the parser of a PDF by itself if nobody names one, and the one it chooses is billed by the page. So
a request with a part that may be a file names the free one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rollout.dispatch.shape import is_usual, shown
from rollout.domain.errors import InvalidRequest

CASCADES: Final = frozenset({"models", "route"})
"""Fields in which a caller names models to fall back to. The cascade is the installation's, as `model` is."""

FILE_PARSER: Final = "file-parser"
FREE_ENGINE: Final = "cloudflare-ai"
"""OpenRouter's free parser of PDF files; `native` and `mistral-ocr` are charged for."""

_FREE_ENGINES: Final = (FREE_ENGINE, "pdf-text")  # the second is the first one's former name
_FREE_PLUGINS: Final[Mapping[str, frozenset[str]]] = {
    "context-compression": frozenset({"engine"}),
    "response-healing": frozenset(),
    FILE_PARSER: frozenset({"max_files", "pdf"}),
}
"""Plugins that are free, each with its options."""

_USUAL_TIERS: Final = ("auto", "default", "standard")
_OTHER_TIERS: Final = frozenset({"fast", "flex", "priority"})
"""What stands behind a slash in the slug of a provider if it names one of the provider's service tiers."""

_CHOICES_OF_TOOLS: Final = ("allowed_tools", "any", "auto", "function", "none", "required", "tool")
_FILELESS: Final = ("input_audio", "input_text", "input_video", "refusal", "text", "video_url")
_IMAGES: Final = (".avif", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".webp")


def at_no_cost(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a body that costs nothing beside its model: it names the free parser if it may hold a file.

    Raises:
        InvalidRequest: it asks for something that may cost; the message names it.
    """
    if not body.keys().isdisjoint(_BILLABLE.keys()):  # of two views of keys, the shorter one is gone through
        _check(body)
    plugins = body.get("plugins") or ()
    named = bool(plugins) and any(each["id"] == FILE_PARSER for each in plugins)
    if not named and not _may_hold_a_file(body.get("messages")):
        return body
    parsers = plugins if named else [*plugins, {"id": FILE_PARSER}]
    return {**body, "plugins": [_at_no_cost(each) if each["id"] == FILE_PARSER else each for each in parsers]}


def _check(body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        problem = _BILLABLE.get(name)
        if problem is not None and value is not None and (what := problem(value)) is not None:
            raise InvalidRequest(
                f"{name} {what}; that may cost money even if the model is free. Leave it out, or set "
                "ROLLOUT_ALLOW_PAID=1",
                field=name,
            )


def _at_no_cost(parser: Mapping[str, Any]) -> Mapping[str, Any]:
    pdf = parser.get("pdf") or {}
    return parser if pdf.get("engine") else {**parser, "pdf": {**pdf, "engine": FREE_ENGINE}}


def _may_hold_a_file(messages: Any) -> bool:
    """Tell whether a message may hold a file: a part that is neither text, sound nor film, nor evidently an image.

    Parts are not searched for further parts in them, as those that could hold any count as files.
    """
    if not isinstance(messages, list | tuple):
        return False
    for message in messages:
        if is_usual(message):
            continue
        content = message.get("content") if isinstance(message, Mapping) else None
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list | tuple) or not all(map(_is_fileless, content)):
            return True
    return False


def _is_fileless(part: Any) -> bool:
    if not isinstance(part, Mapping):
        return isinstance(part, str)
    kind = part.get("type")
    if kind in ("image_url", "input_image"):
        address = part.get("image_url")
        return _is_image(address.get("url") if isinstance(address, Mapping) else address)
    return kind in _FILELESS


def _is_image(url: Any) -> bool:
    if not isinstance(url, str):
        return False
    if url[:5].lower() == "data:":
        return url[5:11].lower() == "image/"
    return url[:2048].partition("?")[0].partition("#")[0].lower().endswith(_IMAGES)


def _plugins(value: Any) -> str | None:
    if not isinstance(value, list | tuple):
        return f"must be a list of plugins, not {shown(value)}"
    for each in value:
        if not isinstance(each, Mapping) or not isinstance(each.get("id"), str):
            return f"must be objects with an id, not {shown(each)}"
        name, options = each["id"], _FREE_PLUGINS.get(each["id"])
        if each.get("enabled") is False and name != FILE_PARSER:
            continue  # it is switched off, which overrides an account that has it on
        if options is None:
            return f"may not name {shown(name)}"
        if (others := each.keys() - options - {"id", "enabled"}) or each.get("enabled") not in (None, True):
            return f"may not give {name!r} the option {shown(min(others, key=str, default='enabled'))}"
        if name == FILE_PARSER and not _parses_freely(each.get("pdf")):
            return f"may give {name!r} no other parser than {FREE_ENGINE!r}, not {shown(each.get('pdf'))}"
        if name != FILE_PARSER and each.get("engine") not in (None, "middle-out"):
            return f"may not give {name!r} the engine {shown(each.get('engine'))}"
    return None


def _parses_freely(pdf: Any) -> bool:
    if pdf is None:
        return True
    return isinstance(pdf, Mapping) and pdf.keys() <= {"engine"} and pdf.get("engine") in (None, *_FREE_ENGINES)


def _tools(value: Any) -> str | None:
    if not isinstance(value, list | tuple):
        return f"must be a list of tools, not {shown(value)}"
    for each in value:
        kind = each.get("type") if isinstance(each, Mapping) else each
        if kind != "function":
            return f"must be functions that the caller runs, {{'type': 'function', ...}}, not {shown(kind)}"
    return None


def _tool_choice(value: Any) -> str | None:
    if isinstance(value, str):
        return None
    if not isinstance(value, Mapping):
        return f"must be a text or an object, not {shown(value)}"
    if value.get("type") not in (None, *_CHOICES_OF_TOOLS):
        return f"may not choose a tool of type {shown(value['type'])}"
    for holder in (value, value.get("allowed_tools")):
        allowed = holder.get("tools") if isinstance(holder, Mapping) else None
        if allowed is not None and (problem := _tools(allowed)) is not None:
            return f"allows tools that {problem}"
    return None


def _provider(value: Any) -> str | None:
    for name in ("order", "only"):
        slugs = value.get(name) if isinstance(value, Mapping) else None
        for slug in slugs if isinstance(slugs, list | tuple) else () if slugs is None else (slugs,):
            if not isinstance(slug, str):
                return f"may name providers by their slugs in {name}, not by {shown(slug)}"
            if not _OTHER_TIERS.isdisjoint(part.strip() for part in slug.lower().split("/")[1:]):
                return f"names the service tier {shown(slug)} in {name}"
    return None


def _only(*free: str) -> Callable[[Any], str | None]:
    return lambda value: None if value in free else f"may be {' or '.join(free)}, not {shown(value)}"


def _list_of(free: str) -> Callable[[Any], str | None]:
    def problem(value: Any) -> str | None:
        fits = isinstance(value, list | tuple) and all(each == free for each in value)
        return None if fits else f"may be a list with nothing but {free!r} in it, not {shown(value)}"

    return problem


def _nothing(value: Any) -> str | None:
    return None if value is False else "is not among what is known to be free"


_BILLABLE: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "audio": _nothing,
    "container": _nothing,
    "enable_search": _nothing,
    "image_config": _nothing,
    "mcp_servers": _nothing,
    "modalities": _list_of("text"),
    "plugins": _plugins,
    "preset": _nothing,
    "provider": _provider,
    "search_parameters": _nothing,
    "service_tier": _only(*_USUAL_TIERS),
    "speed": _only("standard"),
    "tool_choice": _tool_choice,
    "tools": _tools,
    "transforms": _list_of("middle-out"),
    "web_search": _nothing,
    "web_search_options": _nothing,
    "x_search_filter": _nothing,
}
"""Each field in which something can be asked for that is billed beside the model, and what is wrong with a value."""
