"""Conditional requests: revisions as entity tags (RFC 9110, section 13)."""

from __future__ import annotations

from rollout.http.problems import Problem


def etag_of(revision: int) -> str:
    """Return a revision as an entity tag."""
    return f'"{revision}"'


def required_revision(if_match: str | None, what: str) -> int | None:
    """Read an If-Match that has to be there; None where it is `*`.

    Raises:
        Problem: 428 where it is missing, 400 where it is no revision of ours.
    """
    if if_match is None:
        raise Problem(
            428,
            "Say which revision you looked at",
            f'send If-Match with the ETag of the {what} you looked at, such as If-Match: "17"; nothing was changed',
        )
    if if_match.strip() == "*":
        return None
    digits = if_match.strip().removeprefix("W/").strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 12):
        raise Problem(400, "That is no revision", f'If-Match is {if_match[:40]!r}; it looks like "17"')
    return int(digits)


def matches(if_none_match: str | None, etag: str) -> bool:
    """Tell whether an If-None-Match names an entity tag."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
