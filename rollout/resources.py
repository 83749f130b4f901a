"""Where templates, static files, migrations and locks lie.

They stand at the top level of a checkout and are copied to `rollout/_resources/` in a wheel. A checkout is
looked at first, so that an editable install can never serve a stale copy.
"""

from pathlib import Path
from typing import Final

RESOURCES: Final = frozenset({"templates", "static", "migrations", "locks"})

_PACKAGE: Final = Path(__file__).resolve().parent
_OUR_PROJECT: Final = 'name = "llm-rollout"'


def resource(name: str, *, package: Path = _PACKAGE) -> Path:
    """Return the folder that holds one kind of file shipped with the product.

    Args:
        name: One of `RESOURCES`.
        package: The folder of the installed `rollout` package.

    Raises:
        ValueError: No resource has that name.
        FileNotFoundError: The installation is incomplete.
    """
    if name not in RESOURCES:
        raise ValueError(f"no resource is called {name!r}; use one of {sorted(RESOURCES)}")
    beside = package.parent / name
    if _is_checkout(package.parent) and beside.is_dir():
        return beside
    packed = package / "_resources" / name
    if packed.is_dir():
        return packed
    raise FileNotFoundError(
        f"{name!r} is neither at {beside} nor at {packed}: the installation of llm-rollout is incomplete, "
        "install it again"
    )


def _is_checkout(folder: Path) -> bool:
    # A pyproject.toml alone proves nothing: somebody's site-packages may have one too.
    try:
        return _OUR_PROJECT in (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
