"""The floors: a part imports only what stands below it. The table is the one in the design, as data.

Every import counts: inside functions, under TYPE_CHECKING, and by name through `import_module`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import rollout

PACKAGE: Final = Path(rollout.__file__).parent
LONGEST_MODULE: Final = 400


@dataclass(frozen=True)
class Part:
    """What a part may import: parts of ours on lower floors, and packages of others."""

    parts: frozenset[str]
    packages: frozenset[str]


def may(parts: str = "", packages: str = "") -> Part:
    return Part(frozenset(parts.split()), frozenset(packages.split()))


BELOW_HTTP: Final = (
    "domain stats network settings resources files resilience wire store control client dispatch transports gateway"
    " middleware telemetry simulator"
)
FLOORS: Final = {
    # ground
    "domain": may(packages="mmh3"),
    "stats": may(),
    "network": may(packages="httpx certifi"),  # loaded when something connects
    "settings": may("network"),
    "resources": may(),
    "files": may(),
    # 1
    "resilience": may("domain"),
    "wire": may("domain"),
    "store": may("domain resources", "sqlalchemy alembic psycopg"),  # resources: where the migrations lie
    # 2
    "control": may("domain stats store"),
    "client": may("domain wire resilience settings network files", "httpx openfeature"),
    # 3
    "dispatch": may(
        "domain wire resilience client settings network", "httpx httpcore aiohttp yarl"
    ),  # settings: Upstreams
    "transports": may("dispatch client", "httpx httpx2"),
    "middleware": may("domain client"),
    "gateway": may("domain wire settings network resources files", "httpx yaml"),  # resources: where its lock lies
    # beside them
    "telemetry": may("domain stats wire"),
    "simulator": may("wire files", "starlette uvicorn"),
    # 4
    "http": may(BELOW_HTTP, "fastapi pydantic starlette jinja2 markupsafe"),
    # 5
    "logs": may(BELOW_HTTP + " http"),
    "cli": may(BELOW_HTTP + " http logs", "click starlette uvicorn uvloop httpx"),
    # the public surface: loaded lazily, and the way in
    "__init__": may("client dispatch domain"),
    "__main__": may("cli"),
}
# gateway/install.py where it is run as a program of its own
READERS_OF_THE_ENVIRONMENT: Final = ("client/client.py", "cli/", "gateway/install.py")

MODULES: Final = sorted(PACKAGE.rglob("*.py"))


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def where(file: Path, line: int) -> str:
    return f"rollout/{file.relative_to(PACKAGE).as_posix()}:{line}"


def imports(file: Path, source: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield every module a file imports, absolute, with its line."""
    source = file.read_text(encoding="utf-8") if source is None else source
    package = ["rollout", *file.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                above = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                if base == "rollout":  # the parts are what is named
                    yield from ((node.lineno, f"rollout.{alias.name}") for alias in node.names)
                else:
                    yield node.lineno, base
            case ast.Call(
                func=ast.Name("import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(str(name)), *_],
            ):
                yield node.lineno, name


def breaches(file: Path, source: str | None = None) -> Iterator[str]:
    part = part_of(file)
    if part not in FLOORS:
        yield f"{where(file, 1)}: {part!r} stands on no floor; give it a line in FLOORS and in the design"
        return
    floor = FLOORS[part]
    for line, name in imports(file, source):
        top, _, rest = name.partition(".")
        if top == "rollout":
            other = rest.partition(".")[0] or "__init__"
            if other != part and other not in floor.parts:
                yield f"{where(file, line)}: {part} may not import rollout.{other}"
        elif top not in sys.stdlib_module_names and top not in floor.packages:
            yield f"{where(file, line)}: {part} may not import {top}"


def readings_of_the_environment(file: Path) -> Iterator[str]:
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(value=ast.Name("os"), attr=name) if name in names:
                yield where(file, node.lineno)
            case ast.ImportFrom(module="os") if names & {alias.name for alias in node.names}:
                yield where(file, node.lineno)


def test_a_part_imports_only_what_stands_below_it() -> None:
    assert [breach for file in MODULES for breach in breaches(file)] == []


def test_the_table_itself_never_points_upward_or_in_a_circle() -> None:
    standing: list[str] = []
    left = dict(FLOORS)
    while left:
        free = [part for part, floor in left.items() if floor.parts <= set(standing)]
        assert free, f"these import each other: {sorted(left)}"
        standing += free
        for part in free:
            del left[part]


def test_nobody_imports_the_gateway_it_supervises() -> None:
    assert [
        where(file, line) for file in MODULES for line, name in imports(file) if name.split(".")[0] == "litellm"
    ] == []


def test_the_environment_is_read_where_programs_start_and_by_the_client_alone() -> None:
    readers = [
        reading
        for file in MODULES
        for reading in readings_of_the_environment(file)
        if not reading.removeprefix("rollout/").startswith(READERS_OF_THE_ENVIRONMENT)
    ]
    assert readers == []


def test_the_client_reads_the_environment_in_its_constructor_alone() -> None:
    file = PACKAGE / "client" / "client.py"
    constructors = [
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    for reading in readings_of_the_environment(file):
        assert any(int(reading.rpartition(":")[2]) in lines for lines in constructors), reading


def test_no_module_is_too_long_to_read() -> None:
    lengths = {where(file, 1): len(file.read_text(encoding="utf-8").splitlines()) for file in MODULES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import rollout.http", "domain may not import rollout.http"),
        ("from rollout import store", "domain may not import rollout.store"),
        ("from ..store import door", "domain may not import rollout.store"),
        ("from .. import store", "domain may not import rollout.store"),
        ("def f():\n    import sqlalchemy.orm", "domain may not import sqlalchemy"),
        ("if TYPE_CHECKING:\n    from fastapi import FastAPI", "domain may not import fastapi"),
        ("importlib.import_module('litellm.proxy')", "domain may not import litellm"),
        ("import json, mmh3\nfrom rollout.domain import flag\nfrom . import flag", None),
    ],
)
def test_a_breach_is_seen_however_it_is_written(source: str, expected: str | None) -> None:
    file = PACKAGE / "domain" / "none.py"
    found = [breach.partition(": ")[2] for breach in breaches(file, source)]
    assert found == ([expected] if expected else [])


@pytest.mark.parametrize("module", ["rollout", "rollout.domain.evaluate", "rollout.domain.ledger"])
def test_importing_the_ground_floor_loads_no_other(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert {name.split(".")[1] for name in loaded if name.startswith("rollout.")} <= {"domain"}
    assert not loaded & {"sqlalchemy", "fastapi", "starlette", "pydantic", "httpx", "alembic", "click"}


def test_what_an_application_imports_needs_httpx_and_mmh3_alone() -> None:
    loaded = modules_after("from rollout import invoke_llm, ainvoke_llm, wrap, user, feature_flags, RolloutClient")
    ours = {name.split(".")[1] for name in loaded if name.startswith("rollout.")}
    assert not ours & {"store", "control", "http", "cli", "gateway", "simulator"}
    assert not loaded & {"sqlalchemy", "fastapi", "starlette", "pydantic", "alembic", "click", "jinja2", "yaml"}


def modules_after(statement: str) -> set[str]:
    program = f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())
