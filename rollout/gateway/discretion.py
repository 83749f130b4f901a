"""What of LiteLLM's output is kept: all of it until it serves; from then on nothing that a caller or a model wrote.

LiteLLM quotes prompts and answers when something goes wrong, at every log level, and over as many lines as they have:
an answer it cannot read, an upstream's error, what a validator was given, a stream's repeated chunk. A list of such
places would be one release behind, so it is the other way round: a line passes as far as it is of a known shape. What
is left says which error it was, in which request, and where in LiteLLM's code, and never in which words.
"""

import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

LEFT_OUT: Final = b"[its words are left out]"

_LONGEST_LINE: Final = 16 * 1024
_SERVES: Final = b"Proxy initialized with Config"
_NOTICE: Final = (
    b"-- from here on errors are kept by name and place; their words may quote prompts and answers, "
    b"and are left out --\n"
)
_NAME: Final = rb"(?:[a-z_]\w{0,80}\.){0,8}[A-Z]\w{0,80}(?:Error|Exception|Interrupt|Exit)\b"
_HEAD: Final = re.compile(rb"\d\d:\d\d:\d\d - LiteLLM[\w ]{0,20}:[A-Z]+: [\w.]+:\d+ - (?:litellm[\w.:]{0,200}\(\))?")
_CALL: Final = re.compile(rb"litellm_call_id=[0-9a-f-]{36}")
_ERROR: Final = re.compile(rb"(?<![\w.])" + _NAME)
_LAST_LINE: Final = re.compile(rb"(" + _NAME + rb")(?:: (?:Client|Server) error '(\d{3}) |:|$)")
_FRAME: Final = re.compile(rb'  File "([^"]{1,1000})", line \d+, in [\w<>.]{1,200}')
_BETWEEN: Final = (
    b"Traceback (most recent call last):",
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
)


class Discretion:
    """Passes output on to `keep`, whole lines at a time, without what may be a prompt or an answer.

    Args:
        keep: what the output goes to.
        environment: LiteLLM's own; of the places in a traceback those inside it are kept.
    """

    def __init__(self, keep: Callable[[bytes], None], *, environment: Path) -> None:
        self._keep = keep
        self._inside = f"{environment}/".encode()
        self._serves = False
        self._rest = b""
        self._judged = False  # what is still to come of this line belongs to a beginning that was looked at

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rest:
            self._line(self._rest, b"\n")
            self._rest = b""

    def serving(self) -> None:
        """Note that requests may come in from now on."""
        if not self._serves:
            self._serves = True
            self._keep(_NOTICE)

    def write(self, chunk: bytes) -> None:
        """Take output however it was cut; what is held back is bounded."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._line(line, b"\n")
        if len(self._rest) > _LONGEST_LINE:
            self._line(self._rest, b"\n" if self._serves else b"")
            self._rest, self._judged = b"", self._serves

    def _line(self, line: bytes, end: bytes) -> None:
        if self._judged:
            self._judged = False
        elif not self._serves:
            self._keep(line + end)
            if _SERVES in line:
                self.serving()
        elif (kept := self._without_words(line[:_LONGEST_LINE])) is not None:
            self._keep(kept + end)

    def _without_words(self, line: bytes) -> bytes | None:
        """Return what may be kept of one line, None where that is nothing."""
        if line in _BETWEEN:
            return line
        if (frame := _FRAME.fullmatch(line)) is not None:
            return line if frame[1].startswith(self._inside) else None
        if (head := _HEAD.match(line)) is not None:
            found = (pattern.search(line, head.end()) for pattern in (_CALL, _ERROR))
            return b" ".join([head[0].rstrip(), *(each[0] for each in found if each), LEFT_OUT])
        if (last := _LAST_LINE.match(line)) is not None:
            return last[1] + (b": HTTP " + last[2] if last[2] else b"")
        return None
