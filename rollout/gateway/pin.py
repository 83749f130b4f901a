"""Which LiteLLM may be installed, and by which Python.

The pin rule: an exact release with hashes, none of the releases below. Two of them were malicious, and merely
installing those runs their code; so a lock is refused before anything is fetched.
"""

import re
from typing import Final, NamedTuple

from rollout.domain.release import STREAMS_SAY_COST, Release, parse_release

# What litellm's own metadata says of the locked release (Requires-Python) and, at the lower end, what the lock
# holds wheels for. Tested against the installed metadata.
PYTHON_FLOOR: Final = (3, 11)
PYTHON_CEILING: Final = (3, 15)  # not itself

_PIN: Final = re.compile(r"^litellm(?:\[[^\]]*\])?\s*==\s*([0-9][^\s;\\]*)", re.MULTILINE | re.IGNORECASE)
_LOOSE: Final = re.compile(r"^litellm(?:\[[^\]]*\])?\s*(?!==)(?:[<>~!=@;\\\s]|$)", re.MULTILINE | re.IGNORECASE)


class BadRange(NamedTuple):
    """Releases `first` to `last`, both included, that must not be installed, and why."""

    first: Release
    last: Release
    why: str


BAD_RELEASES: Final = (
    BadRange(Release(1, 82, 7), Release(1, 82, 8), "malicious: steals credentials when installed (PYSEC-2026-2)"),
    BadRange(
        Release(0, 0, 0),
        Release(1, 83, 9999),
        "authentication bypass and SQL injection (CVE-2026-49468, CVE-2026-42208)",
    ),
    BadRange(Release(1, 97, 0), Release(1, 98, 9999), "streaming timeouts never fire"),
    BadRange(Release(1, 100, 0), Release(1, 100, 0), "takes all memory while a provider fails"),
)


def pinned_release(lock: str) -> str | None:
    """Return the release of LiteLLM that the text of a lock pins, or None where it has none.

    Raises:
        ValueError: LiteLLM is named without an exact release.
    """
    found = _PIN.search(lock)
    if found:
        return found.group(1)
    if _LOOSE.search(lock):
        raise ValueError("the lock names litellm without an exact release (litellm==X.Y.Z); make it with uv")
    return None


def why_refused(release: str) -> str | None:
    """Return why a release of LiteLLM must not be installed, or None where it may be."""
    version = parse_release(release)
    if version is None:
        return f"{release!r} is not a release number"
    return next((bad.why for bad in BAD_RELEASES if bad.first <= version <= bad.last), None)


def why_unsupported(release: str | None) -> str | None:
    """Return what is wrong with a gateway that somebody else runs, as a sentence that says what to do, or None.

    Args:
        release: What the gateway says that it is, None if it does not say.
    """
    version = parse_release(release) if release else None
    if version is None:
        return None
    advice = f"run LiteLLM {STREAMS_SAY_COST} or later there"
    if (bad := why_refused(str(version))) is not None:
        return f"the gateway runs LiteLLM {version}, which must not be used ({bad}); {advice}"
    if version < STREAMS_SAY_COST:
        return (
            f"the gateway runs LiteLLM {version}, whose streams do not say what they cost: a stream that costs money, "
            f"or breaks off behind the gateway, is not noticed; {advice}"
        )
    return None


def why_python_refused(version: tuple[int, int]) -> str | None:
    """Return why the lock does not hold for a Python, as a sentence that says what to do, or None."""
    if PYTHON_FLOOR <= version < PYTHON_CEILING:
        return None
    newest = f"{PYTHON_CEILING[0]}.{PYTHON_CEILING[1] - 1}"
    return (
        f"LiteLLM's lock holds for Python {PYTHON_FLOOR[0]}.{PYTHON_FLOOR[1]} to {newest}, and this is "
        f"Python {version[0]}.{version[1]}: run rollout with one of those, or run LiteLLM yourself and set "
        "LITELLM_BASE_URL"
    )
