"""The documentation as the tests read it: pages, their fenced blocks, links, headings and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
OURS: Final = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
"""The pages whose blocks run."""

EVERY: Final = (*OURS, ROOT / "CHANGELOG.md", *sorted((DOCS / "decisions").glob("*.md")))
"""The pages whose words and links are looked at."""

_FENCE: Final = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2[ ]*$", re.MULTILINE | re.DOTALL)
_NOT_RUN: Final = re.compile(r"<!-- not run: (.+?) -->\s*\Z")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^(#+) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: `line` is the number of its first line of content, `not_run` says why it does not run."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return a page's fenced blocks of these languages (all where none is named), in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent, language = len(match[1]), match[3].strip()
        inner = "".join(line[indent:] if line[:indent].isspace() else line for line in match[4].splitlines(True))
        before = _NOT_RUN.search(text[: match.start()])
        line = text.count("\n", 0, match.start(4)) + 1
        found.append(Block(page, line, language, inner, before[1] if before else None))
    return [block for block in found if not languages or block.language in languages]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Return where a page's links lead."""
    return _LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    made = set()
    for _, title in _HEADING.findall(prose(page)):
        plain = re.sub(r"[^\w\- ]", "", title.lower())
        made.add(plain.strip().replace(" ", "-"))
    return made


def sections(page: Path, level: int) -> dict[str, str]:
    """Return a page's sections of one level by their titles, each up to the next heading of that level or above."""
    text = page.read_text(encoding="utf-8")
    found, title, start = {}, None, 0
    for match in _HEADING.finditer(text):
        if len(match[1]) > level:
            continue
        if title is not None:
            found[title] = text[start : match.start()]
        title, start = (match[2], match.end()) if len(match[1]) == level else (None, 0)
    if title is not None:
        found[title] = text[start:]
    return found


def rows(text: str) -> Iterator[list[str]]:
    """Yield the rows of a text's tables, headings included, rules left out; cells are trimmed."""
    for line in text.splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def code(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)
