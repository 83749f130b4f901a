"""What the simulated upstream was asked: the measure tests take of who really came, and by which path."""

import json
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

LITELLM: Final = "litellm"
DIRECT: Final = "direct"
_MANY_BRACKETS: Final = 300
_NAMED_HEADERS: Final = ("user-agent", "http-referer", "x-title", "x-session-id")


def via_of(user_agent: str) -> str:
    """Name the path a request took: LiteLLM introduces itself as `litellm/<version>`."""
    return LITELLM if user_agent.lower().startswith(LITELLM) else DIRECT


def _parsed(raw: bytes) -> Any:
    """Parse a body so that it can be written again; None when it cannot."""
    try:
        body = json.loads(raw, parse_constant=str)
        if raw.count(b"[") + raw.count(b"{") > _MANY_BRACKETS:
            json.dumps([[[[[[body]]]]]])  # as deep as the control route's answer will nest it
    except (ValueError, RecursionError):
        return None
    return body


@dataclass(slots=True, eq=False)
class Entry:
    """One completion request, from its arrival on; the later fields are filled while it is answered.

    Attributes:
        seq: 1 for the first request ever, without gaps.
        at: arrival in epoch seconds.
        via: `litellm` or `direct`, judged by the user agent.
        headers: the headers of interest, lower-case names.
        model: the id asked for, "" when the request named none.
        user: the `user` of the body, None when there was none.
        stream: whether a stream was asked for.
        status: the HTTP status sent; None while, or when, none was.
        fault: the kind of the scripted fault that was applied, or None.
        closed_early: whether the client left before the answer's end.
        finished: whether the request is over.
        body: the bytes of the body as they came.
    """

    seq: int
    at: float
    via: str
    headers: dict[str, str]
    model: str = ""
    user: str | None = None
    stream: bool = False
    status: int | None = None
    fault: str | None = None
    closed_early: bool = False
    finished: bool = False
    body: bytes = b""

    def document(self) -> dict[str, Any]:
        """Write the entry for the control route; `body` is parsed, or null when it was not JSON."""
        return {
            "seq": self.seq,
            "at": self.at,
            "via": self.via,
            "model": self.model,
            "user": self.user,
            "stream": self.stream,
            "status": self.status,
            "fault": self.fault,
            "closed_early": self.closed_early,
            "finished": self.finished,
            "headers": self.headers,
            "body": _parsed(self.body),
        }


class Record:
    """The last requests, bounded in number and in bytes of bodies; the oldest go first."""

    def __init__(self, *, limit: int = 50_000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._entries: deque[Entry] = deque()
        self._limit = limit
        self._max_bytes = max_bytes
        self._bytes = 0
        self.seen = 0
        self.dropped = 0
        self.lookups: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        # A copy: a test reads from its own thread while requests arrive in the server's.
        return iter(list(self._entries))

    def open(self, at: float, user_agent: str, headers: list[tuple[bytes, bytes]]) -> Entry:
        """Add the entry of a request that has just arrived."""
        named = {
            name: value.decode("latin-1") for raw, value in headers if (name := raw.decode("latin-1")) in _NAMED_HEADERS
        }
        self.seen += 1
        entry = Entry(self.seen, at, via_of(user_agent), named)
        self._entries.append(entry)
        self._shrink()
        return entry

    def keep_body(self, entry: Entry, body: bytes) -> None:
        """Attach the request's body to its entry."""
        entry.body = body
        self._bytes += len(body)
        self._shrink()

    def _shrink(self) -> None:
        while len(self._entries) > self._limit or (self._bytes > self._max_bytes and len(self._entries) > 1):
            self._bytes -= len(self._entries.popleft().body)
            self.dropped += 1

    def clear(self) -> None:
        """Forget every entry; numbering goes on."""
        self._entries.clear()
        self._bytes = 0
        self.dropped = 0
        self.lookups.clear()

    def since(self, seq: int, limit: int | None = None) -> list[Entry]:
        """Return the entries numbered above `seq`, oldest first, at most `limit` of them."""
        found = [entry for entry in self if entry.seq > seq]
        return found if limit is None else found[:limit]

    def counts(self) -> dict[str, Any]:
        """Count the kept entries by path, user, model, status and fault."""
        entries = list(self)
        return {
            "requests": len(entries),
            "dropped": self.dropped,
            "closed_early": sum(entry.closed_early for entry in entries),
            "via": Counter(entry.via for entry in entries),
            "user": Counter(entry.user for entry in entries if entry.user is not None),
            "model": Counter(entry.model for entry in entries),
            "status": Counter(str(entry.status) if entry.status else "none" for entry in entries),
            "fault": Counter(entry.fault for entry in entries if entry.fault is not None),
            "lookups": dict(self.lookups),
        }
