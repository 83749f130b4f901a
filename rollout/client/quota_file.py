"""The quota's record on disk, so that a restart does not forget what was already spent today.

One process owns it. It is written before each request is sent, moved into place whole and not forced to the disk:
a process that was killed has lost nothing, a machine that lost power a few requests at the most.
"""

from __future__ import annotations

import json
import logging
from math import isfinite
from pathlib import Path
from typing import Any, Final

from rollout.files import write_whole
from rollout.resilience.quota import QuotaRecord
from rollout.wire.chat import parse_json

_log: Final = logging.getLogger("rollout.client")


class QuotaFile:
    """A quota's record in a file; what cannot be read or written is said once and never raised."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said = False

    def load(self) -> QuotaRecord | None:
        """Return the record as it was last kept, None where there is none that can be read."""
        try:
            return _record(parse_json(self._path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, OverflowError, TypeError, KeyError) as error:
            self._say(f"the quota's record {str(self._path)!r} cannot be read ({type(error).__name__}); counting anew")
            return None

    def save(self, record: QuotaRecord) -> None:
        """Keep a record."""
        document = {
            "day": record.day,
            "used": record.used,
            "moments": record.moments,
            "blocked_until": record.blocked_until,
        }
        try:
            write_whole(self._path, json.dumps(document).encode("ascii"))
        except OSError as error:
            self._say(
                f"the quota's record {str(self._path)!r} cannot be written ({error.strerror}); a restart forgets it"
            )

    def _say(self, problem: str) -> None:
        if not self._said:
            _log.warning("%s", problem)
        self._said = True


def _record(read: Any) -> QuotaRecord:
    record = QuotaRecord(
        day=int(read["day"]),
        used=int(read["used"]),
        moments=tuple(float(moment) for moment in read["moments"]),
        blocked_until=float(read["blocked_until"]),
    )
    if record.day < 0 or record.used < 0:  # else it would be granted more than a day has
        raise ValueError("less than nothing")
    if not all(map(isfinite, (*record.moments, record.blocked_until))):
        raise ValueError("a moment that is none")
    return record
