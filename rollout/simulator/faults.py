"""Named, seeded faults: what may go wrong at the upstream, said as values.

A script is a list of faults, tried in order for each request; the first that matches and whose turn it is
decides the answer. `every`, `first` and `probability` count the requests that matched, so the same requests
under the same seed meet the same faults.
"""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from rollout.simulator.record import DIRECT, LITELLM


class Kind(StrEnum):
    """Every fault there is; the comment says what the client meets."""

    ERROR_500 = "error_500"
    ERROR_502 = "error_502"  # "Provider returned error"
    ERROR_503_RETRY_AFTER = "error_503_retry_after"  # `seconds` is the Retry-After
    RATE_LIMIT_MINUTE = "rate_limit_minute"  # 429 free-models-per-min; resets in `seconds`, 0: at the full minute
    RATE_LIMIT_DAY = "rate_limit_day"  # 429 free-models-per-day; resets in `seconds`, 0: at 00:00 UTC
    UPSTREAM_BUSY = "upstream_busy"  # 429 of the provider's shared pool
    PAYMENT_REQUIRED = "payment_required"  # 402
    FORBIDDEN = "forbidden"  # 403, moderation
    UNAUTHORIZED = "unauthorized"  # 401
    NOT_FOUND_FREE_VARIANT_ENDED = "not_found_free_variant_ended"  # 404 that suggests the paid twin
    NOT_FOUND_DATA_POLICY = "not_found_data_policy"  # 404 of the account's privacy switch
    PROVIDER_REFUSED = "provider_refused"  # 400 with a provider's own words in its metadata
    CONTEXT_TOO_LONG = "context_too_long"  # 400, longer than the model's context
    REGION_RESTRICTED = "region_restricted"  # 403, the model is not for this region
    HANG = "hang"  # accepts, never answers
    HEADERS_THEN_SILENCE = "headers_then_silence"
    COMMENTS_FOREVER = "comments_forever"  # a keep-alive comment every `seconds`
    ONE_TOKEN_THEN_SILENCE = "one_token_then_silence"  # noqa: S105 - a model's token, no secret
    SLOW = "slow"  # `seconds` before the answer, `chunk_seconds` between the chunks of a stream
    FINISH_REASON_ERROR = "finish_reason_error"  # 200, partial content, finish_reason "error"
    FINISH_REASON_ERROR_AT_ONCE = "finish_reason_error_at_once"  # the same without any content
    ERROR_IN_200_BODY = "error_in_200_body"
    MID_STREAM_ERROR = "mid_stream_error"  # a chunk with a top-level error, then the stream ends
    EMPTY_CONTENT = "empty_content"
    NO_DONE = "no_done"  # streams only
    TRUNCATED_JSON = "truncated_json"  # the document itself
    TRUNCATED_CONTENT = "truncated_content"  # the text in it, which ends with "stop" all the same
    HTML_200 = "html_200"
    GARBAGE_LINES = "garbage_lines"
    GIANT_LINE = "giant_line"  # one line of `size_bytes`
    ODD_FIRST_CHUNK = "odd_first_chunk"  # no `choices` in the first chunk of a stream, no `role` in a plain answer
    ODD_LAST_CHUNK = "odd_last_chunk"  # streams only; the chunk with the usage says `"choices": null`
    EQUAL_PIECES = "equal_pieces"  # 300 equal pieces before the answer, as of a line of dashes
    CUT_CONNECTION = "cut_connection"  # the socket closes in the middle
    COSTS_MONEY = "costs_money"  # usage.cost is `cost`
    BILLS_OWN_KEY = "bills_own_key"  # usage.cost is 0; `cost` is billed to the provider key of the account's own
    # what free models do without any fault in it
    FENCED = "fenced"  # the text stands in a Markdown fence
    THOUGHT_IN_TAGS = "thought_in_tags"  # the text begins with <think>, and no field holds any reasoning
    STOP_AFTER_TOOL_CALL = "stop_after_tool_call"  # finish_reason "stop" although a tool is called
    UNKNOWN_FINISH = "unknown_finish"  # a finish_reason that nobody else says
    END_MARK_IN_TEXT = "end_mark_in_text"  # one piece of the text, or of a tool call's arguments, holds [DONE]
    BROKEN_ARGUMENTS = "broken_arguments"  # half of a tool call's arguments
    EVENTS_WITHOUT_MEANING = "events_without_meaning"  # null, empty data, other fields, a whole answer after [DONE]


PARAMETERS: Final[Mapping[Kind, Mapping[str, float]]] = MappingProxyType(
    {
        Kind.ERROR_503_RETRY_AFTER: {"seconds": 2.0},
        Kind.RATE_LIMIT_MINUTE: {"seconds": 0.0},
        Kind.RATE_LIMIT_DAY: {"seconds": 0.0},
        Kind.COMMENTS_FOREVER: {"seconds": 1.0},
        Kind.SLOW: {"seconds": 1.0, "chunk_seconds": 0.0},
        Kind.GIANT_LINE: {"size_bytes": 64 * 1024 * 1024},
        Kind.COSTS_MONEY: {"cost": 0.0001},
        Kind.BILLS_OWN_KEY: {"cost": 0.0001},
    }
)
"""What each kind may be told, with its default; a kind that is not listed takes nothing."""

_MAX_SECONDS: Final = 3_600.0
_MAX_SAID_SECONDS: Final = 1e9
_SAYS_SECONDS: Final = frozenset({Kind.ERROR_503_RETRY_AFTER, Kind.RATE_LIMIT_MINUTE, Kind.RATE_LIMIT_DAY})
"""Kinds whose `seconds` are not waited but said, however absurd."""
_MAX_BYTES: Final = 256 * 1024 * 1024
_STREAM_ONLY: Final = frozenset({Kind.NO_DONE, Kind.ODD_LAST_CHUNK})


class FaultError(ValueError):
    """A fault that cannot be played; the message says which field and what it may be."""


def _number(name: str, value: object, low: float, high: float) -> None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or not low <= value <= high:  # type: ignore[operator]  # `fine` says it is a number
        raise FaultError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}")


def _counting(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise FaultError(f"{name} must be an integer of at least 1, got {value!r}")


@dataclass(frozen=True, slots=True)
class Fault:
    """One scripted fault; raises FaultError when a field is out of range.

    Attributes:
        kind: what goes wrong.
        via: only requests by this path, `litellm` or `direct`.
        model: only requests for this model id.
        user: only requests with this `user`.
        stream: only streams (True) or only plain requests (False).
        every: of the matching requests, each n-th.
        probability: of those, this share, drawn from the script's seed.
        first: only the first n matching requests.
        seconds: see the kind.
        chunk_seconds: see the kind.
        size_bytes: see the kind.
        cost: in US dollars.
    """

    kind: Kind
    via: str | None = None
    model: str | None = None
    user: str | None = None
    stream: bool | None = None
    every: int = 1
    probability: float = 1.0
    first: int | None = None
    seconds: float | None = None
    chunk_seconds: float | None = None
    size_bytes: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in list(Kind):
            raise FaultError(f"kind must be one of {', '.join(Kind)}, got {self.kind!r}")
        if self.via not in (None, LITELLM, DIRECT):
            raise FaultError(f"via must be 'litellm' or 'direct', got {self.via!r}")
        for name in ("model", "user"):
            if not isinstance(getattr(self, name), str | None):
                raise FaultError(f"{name} must be a text, got {getattr(self, name)!r}")
        if not isinstance(self.stream, bool | None):
            raise FaultError(f"stream must be true or false, got {self.stream!r}")
        _counting("every", self.every)
        _number("probability", self.probability, 0, 1)
        if self.first is not None:
            _counting("first", self.first)
        takes = PARAMETERS.get(self.kind, {})
        most = _MAX_SAID_SECONDS if self.kind in _SAYS_SECONDS else _MAX_SECONDS
        for name, high in (("seconds", most), ("chunk_seconds", _MAX_SECONDS), ("cost", 1_000.0)):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), 0, high)
        if self.size_bytes is not None:
            _counting("size_bytes", self.size_bytes)
            _number("size_bytes", self.size_bytes, 1, _MAX_BYTES)
        for name in ("seconds", "chunk_seconds", "size_bytes", "cost"):
            if getattr(self, name) is not None and name not in takes:
                raise FaultError(f"{self.kind.value} takes no {name}; it takes: {', '.join(takes) or 'nothing'}")

    def parameter(self, name: str) -> float:
        """Return what the fault was told, or the kind's default."""
        given: float | None = getattr(self, name)
        return PARAMETERS[self.kind][name] if given is None else given

    def document(self) -> dict[str, Any]:
        """Write the fault as `parse_faults` reads it, without what was left out."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name in ("kind", "every", "probability") or getattr(self, each.name) is not None
        }


_NAMES: Final = tuple(each.name for each in fields(Fault))


def parse_faults(document: object) -> tuple[Fault, ...]:
    """Read a list of fault documents, or an object with that list under `faults`.

    Raises:
        FaultError: naming every document that cannot be played, and why.
    """
    if isinstance(document, dict) and set(document) == {"faults"}:
        document = document["faults"]
    if not isinstance(document, list):
        raise FaultError('faults must be a list of documents such as [{"kind": "error_500", "first": 2}]')
    found: list[Fault] = []
    problems: list[str] = []
    for position, each in enumerate(document):
        try:
            found.append(_parse_one(each))
        except FaultError as error:
            problems.append(f"faults[{position}]: {error}")
    if problems:
        raise FaultError("; ".join(problems))
    return tuple(found)


def _parse_one(document: object) -> Fault:
    if not isinstance(document, dict):
        raise FaultError(f"must be an object, got {document!r}")
    unknown = [repr(name) for name in document if name not in _NAMES]
    if unknown:
        raise FaultError(f"unknown {', '.join(unknown)}; known are {', '.join(_NAMES)}")
    if "kind" not in document:
        raise FaultError(f"kind is missing; it must be one of {', '.join(Kind)}")
    try:
        kind = Kind(document["kind"])
    except ValueError:
        raise FaultError(f"kind must be one of {', '.join(Kind)}, got {document['kind']!r}") from None
    return Fault(**{**document, "kind": kind})


@dataclass(slots=True)
class _Played:
    """A fault with its tallies."""

    fault: Fault
    chance: random.Random
    matched: int = 0
    applied: int = field(default=0)

    def turn(self, via: str, model: str, user: str | None, *, stream: bool) -> bool:
        fault = self.fault
        if (
            (fault.via is not None and fault.via != via)
            or (fault.model is not None and fault.model != model)
            or (fault.user is not None and fault.user != user)
            or (fault.stream is not None and fault.stream is not stream)
            or (fault.kind in _STREAM_ONLY and not stream)
        ):
            return False
        self.matched += 1
        if (fault.first is not None and self.matched > fault.first) or self.matched % fault.every:
            return False
        if fault.probability < 1.0 and self.chance.random() >= fault.probability:
            return False
        self.applied += 1
        return True


class Script:
    """The faults being played, with the state of their turns."""

    def __init__(self, seed: int, faults: Iterable[Fault] = ()) -> None:
        self._seed = seed
        self._played: list[_Played] = []
        self.play(faults)

    def play(self, faults: Iterable[Fault]) -> None:
        """Replace the script; every tally starts again."""
        self._played = [
            _Played(fault, random.Random(f"{self._seed}:{position}:{fault.kind.value}"))  # noqa: S311 - a script, no secret
            for position, fault in enumerate(faults)
        ]

    def next(self, via: str, model: str, user: str | None, *, stream: bool) -> Fault | None:
        """Return the fault whose turn it is for this request, if any."""
        for played in self._played:
            if played.turn(via, model, user, stream=stream):
                return played.fault
        return None

    def document(self) -> list[dict[str, Any]]:
        """Write the script with how often each fault matched and was applied."""
        return [
            {**played.fault.document(), "matched": played.matched, "applied": played.applied} for played in self._played
        ]
