"""Logs: one line per record, as JSON for machines or as a sentence for a terminal; no secret passes."""

from __future__ import annotations

import json as jsonlib
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

STARS: Final = "***"
_SHORTEST_SECRET: Final = 6  # shorter values would blank out ordinary words
_dump: Final = jsonlib.JSONEncoder(default=str).encode  # json.dumps would build one for each line
_OWN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_up_logging(
    *, json: bool, stream: TextIO, secrets: Iterable[str | None] = (), level: int | str = logging.INFO
) -> None:
    """Send every record of this process to one stream; calling it again replaces what was set up before.

    Args:
        json: one JSON object a line (`ts`, `level`, `logger`, `message`, and whatever came in `extra`), else text.
        stream: where to.
        secrets: values that are never written; None and the shortest are left aside.
        level: the least level that is written.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Redacting(_Json() if json else _Text("%(levelname)s %(name)s: %(message)s"), secrets))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # each request of a health check would be a line
    logging.getLogger("httpx").setLevel(logging.WARNING)


class _Redacting(logging.Formatter):
    """Blanks out secrets in the finished line, so that neither arguments nor tracebacks slip one through."""

    def __init__(self, inner: logging.Formatter, secrets: Iterable[str | None]) -> None:
        super().__init__()
        self._inner = inner
        known = {value for value in secrets if value and len(value) >= _SHORTEST_SECRET}
        escaped = {jsonlib.dumps(value)[1:-1] for value in known}
        # the longest first: one secret may hold another
        self._secrets = sorted(known | escaped, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        line = self._inner.format(record)
        for secret in self._secrets:
            line = line.replace(secret, STARS)
        return line


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        return f"{moment} {super().format(record)}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        document: dict[str, Any] = {
            "ts": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _OWN_FIELDS:
                document.setdefault(name, value)
        return _dump(document)
