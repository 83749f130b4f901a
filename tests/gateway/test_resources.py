"""Where the files shipped with the product are found."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from rollout.resources import RESOURCES, resource

PROJECT = '[project]\nname = "llm-rollout"\n'


def a_package(
    folder: Path, *, project: str | bytes | None = PROJECT, beside: Sequence[str] = (), packed: Sequence[str] = ()
) -> Path:
    package = folder / "rollout"
    package.mkdir()
    if project is not None:
        (folder / "pyproject.toml").write_bytes(project.encode() if isinstance(project, str) else project)
    for name in beside:
        (folder / name).mkdir()
    for name in packed:
        (package / "_resources" / name).mkdir(parents=True)
    return package


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_this_checkout_has_every_resource(name: str) -> None:
    assert resource(name).is_dir()


def test_a_checkout_beats_a_stale_copy_in_the_package(tmp_path: Path) -> None:
    package = a_package(tmp_path, beside=["locks"], packed=["locks"])
    assert resource("locks", package=package) == tmp_path / "locks"


@pytest.mark.parametrize("project", [None, "[project]\nname = 'other'\n", b"\xff"])
def test_a_folder_that_is_not_our_checkout_is_not_used(tmp_path: Path, project: str | bytes | None) -> None:
    package = a_package(tmp_path, project=project, beside=["locks"], packed=["locks"])
    assert resource("locks", package=package) == package / "_resources" / "locks"


def test_an_incomplete_installation_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="install it again"):
        resource("locks", package=a_package(tmp_path))


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no resource is called 'secrets'"):
        resource("secrets")
