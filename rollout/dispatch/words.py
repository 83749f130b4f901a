"""What an error says, for people: one bounded line, in the provider's words if it quotes any, without secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rollout.wire.chat import parse_json

LONGEST_TEXT: Final = 16_384
"""Characters of a text that are looked at."""

_LONGEST_DETAIL: Final = 500
_SCRUBBED: Final = 4 * _LONGEST_DETAIL  # a secret that is cut in half here lies beyond what is shown
_DEEPEST: Final = 8
_GENERIC: Final = "Provider returned error"
_WORDS: Final = ("error", "message", "detail", "details", "data", "errors", "msg", "reason", "code", "type", "status")
"""Where a provider's error keeps its words, best first."""

QUOTES: Final = re.compile(r"\b[A-Z]\w*Exception - ")
"""What stands before the upstream's words in the gateway's, as in `litellm.BadRequestError: OpenrouterException - `."""

_ACCOUNT: Final = re.compile(r""",?\s*["']?\buser[ _]id["']?\s*:.*""", re.DOTALL | re.IGNORECASE)
_BODY_IN_TEXT: Final = re.compile(
    r"(?:,? ?Original Response:|received_args=|Got unexpected response from OpenRouter:|Received chunk:|same chunk ="
    r"|input_value=|Traceback \().*",
    re.DOTALL,
)
"""Where the gateway's message goes on with an answer, or with what it was asked: no part of a sentence for people."""

_WHOSE: Final = r"(?:user|account|acct|org(?:ani[sz]ation)?|proj(?:ect)?|team|workspace|cus(?:tomer)?|tenant)"
_SECRETS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), r"\1***")
    for pattern in (
        # credentials in an address, and in its query
        r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]+(?=@)",
        r"([?&][\w-]*(?:key|token|secret|sig|signature|password|auth)=)[^&\s\"']+",
        # keys, by what stands before them and by how they look
        r"(\b(?:bearer|basic)\s+)[\w.~+/=*-]{6,}",
        r"(\b(?:api|access|secret)[ _-]?(?:key|token)\b[\"']?(?: provided)?\s*[:=]\s*[\"']?)[^\s\"',;)}]{4,}",
        r"()\b(?:sk|pk|rk|gsk|xai|hf|nvapi|csk|tgp|fw|r8)[-_][\w*.…-]{6,}",
        r"()\b(?:AIza[\w-]{10,}|AKIA[0-9A-Z]{8,}|eyJ[\w-]{8,}\.[\w.-]+|[0-9a-f]{32,})",
        # accounts and people, by their ids
        rf"()\b{_WHOSE}[-_](?=[a-z]*\d|(?-i:[a-z]*[A-Z]))[a-z0-9]{{5,}}",
        rf"(\b{_WHOSE}[ _-]?ids?\b[\"']?\s*[:=]\s*[\"']?)[^\s\"',;)}}]{{4,}}",
        rf"(\b{_WHOSE}(?:[ _-]?id)?\s+[`\"']?)(?=[\w-]*\d)[\w-]{{6,}}",
        r"()\b[\w.+-]+@[\w-]+\.[\w.-]*\w",
    )
)


def sentence(error: Mapping[str, Any] | None, otherwise: str) -> str:
    """Return what an error says, as one bounded line without secrets; `otherwise` if it says nothing.

    A provider's own words take the place of the sentence that only says that there are some.
    """
    message = error.get("message") if error else None
    text = str(message)[:LONGEST_TEXT] if message else ""
    if error is not None and text.strip() in ("", _GENERIC):
        text = _of_provider(error) or text
    text = _BODY_IN_TEXT.sub("", text)
    if (mark := QUOTES.search(text)) is not None:
        told = told_in_stream(text[mark.end() :])
        text = _ACCOUNT.sub("", text) if told is None else told[0]
    text = " ".join(text.split())[:_SCRUBBED]
    for secret, shown in _SECRETS:
        text = secret.sub(shown, text)
    return (text[:_LONGEST_DETAIL] + "…") if len(text) > _LONGEST_DETAIL else text or otherwise


def told_in_stream(quoted: str) -> tuple[str, str] | None:
    """Return message and metadata of an error as the gateway tells it in a stream, None for other texts."""
    message, between, more = quoted.partition(", Metadata: ")
    if not between or not message.startswith("Message: "):
        return None
    return message.removeprefix("Message: "), more.rpartition(", User ID:")[0]


def _of_provider(error: Mapping[str, Any]) -> str:
    """Return a provider's words out of an error's metadata, with its name before them; empty if it quotes none."""
    metadata = error.get("metadata")
    if not isinstance(metadata, Mapping):
        return ""
    words, name = _first(_words(metadata.get("raw"), 0)), metadata.get("provider_name")
    if not words:
        return ""
    return f"{name}: {words}" if isinstance(name, str) and name else words


def _words(said: object, depth: int) -> Iterator[str]:
    """Yield what may be words in a provider's error, best first: it may be text, JSON in text, or an object."""
    if depth > _DEEPEST:
        return
    match said:
        case str():
            text = said[:LONGEST_TEXT].strip()
            try:
                inner = parse_json(text.encode("utf-8", "replace")) if text[:1] in ("{", "[") else None
            except ValueError:
                inner = None
            if inner is not None:
                yield from _words(inner, depth + 1)
            yield text
        case Mapping():
            for name in _WORDS:
                yield from _words(said.get(name), depth + 1)
        case list():
            for each in said[:_DEEPEST]:
                yield from _words(each, depth + 1)


def _first(texts: Iterator[str]) -> str:
    return next((text for text in texts if text), "")
