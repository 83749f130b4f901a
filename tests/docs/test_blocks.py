"""What stands in the documentation as code runs, and prints what stands under it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from rollout.control.flags import set_override, unset_override
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.domain.ledger import ERASED
from rollout.store.ledger import AuditFilter, list_entries, verify_ledger
from tests.docs.installation import Installation
from tests.docs.markdown import DOCS, OURS, ROOT, Block, blocks

LANGUAGES = {"python", "console", "ts", "json", "yaml", "ini", "nginx", "text", "mermaid", "sh"}
RUN = {"rollout", "curl", "touch", "rm", "cp", "mkdir", "cat", "ls"}
SECONDS = 60


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def with_(*languages: str) -> list[Path]:
    return [page for page in OURS if any(not block.not_run for block in blocks(page, *languages))]


@pytest.mark.parametrize("page", OURS, ids=name)
def test_every_block_says_what_language_it_is_in(page: Path) -> None:
    assert {str(block): block.language for block in blocks(page) if block.language not in LANGUAGES} == {}


@pytest.mark.processes
@pytest.mark.parametrize("page", with_("python"), ids=name)
def test_the_python_of_a_page_runs_in_order_in_one_process(
    page: Path, installation: Installation, tmp_path: Path
) -> None:
    pieces: list[str] = []
    for block in blocks(page, "python"):
        if not block.not_run:
            pieces.append("\n" * max(0, block.line - 1 - sum(piece.count("\n") for piece in pieces)))
            pieces.append(installation.real(block.text))
    script = tmp_path / f"{page.stem}.py"
    script.write_text("".join(pieces), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, script],
        env=installation.application() | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a console block with the lines that it is said to print."""
    command = ""
    printed: list[str] = []
    lines = iter(block.text.splitlines())
    for line in lines:
        if line.startswith("$ "):
            if command:
                yield command, printed
            command, printed = line[2:], []
            while command.endswith("\\"):
                command = command[:-1] + next(lines).strip()
        elif line.strip():
            printed.append(line)
    if command:
        yield command, printed


def word(command: str) -> str:
    """Return what a command line starts, past the variables set for it."""
    return next(
        part for part in shlex.split(command, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", part, re.DOTALL)
    )


def pattern(line: str) -> str:
    return r"\s+".join(".*?".join(re.escape(piece) for piece in part.split("…")) for part in line.split())


def in_order(printed: list[str], said: str) -> str | None:
    """Return the first of the lines that was not printed after the ones before it; `…` stands for anything."""
    at = 0
    for line in printed:
        found = re.compile(pattern(line)).search(said, at)
        if found is None:
            return line
        at = found.end()
    return None


@pytest.mark.processes
@pytest.mark.parametrize("page", with_("console"), ids=name)
def test_the_commands_of_a_page_run_in_order_and_print_what_stands_under_them(
    page: Path, installation: Installation
) -> None:
    readme = page.name == "README.md" and page.parent == ROOT
    for block in blocks(page, "console"):
        for command, printed in () if block.not_run else commands(block):
            if readme and word(command) != "rollout":
                continue  # its set-up is what the whole suite stands on
            assert word(command) in RUN, f"{block}: {command!r} cannot be run here; mark the block as not run"
            ended = subprocess.run(
                ["bash", "-c", installation.real(command)],
                env=installation.environment(),
                cwd=installation.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            said = installation.documented(ended.stdout + ended.stderr)
            assert "Traceback" not in said, f"{block}: {command}\n{said}"
            assert bool(ended.returncode) is any(line.startswith(("rollout: ", "Error: ")) for line in printed), (
                f"{block}: {command} ended with {ended.returncode}\n{said}"
            )
            missing = in_order(printed, said)
            assert missing is None, f"{block}: {command} did not print {missing!r} but\n{said}"


@pytest.mark.processes
@pytest.mark.parametrize("page", with_("ts"), ids=name)
def test_the_typescript_of_a_page_runs(page: Path, installation: Installation, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        why = "no node is installed, so the TypeScript of the documentation was not run"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    for number, block in enumerate(blocks(page, "ts")):
        if block.not_run:
            continue
        script = tmp_path / f"block{number}.mjs"
        script.write_text(installation.real(block.text), encoding="utf-8")
        ended = subprocess.run(
            [node, script],
            env=installation.application(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"{block}\n{ended.stdout}{ended.stderr}"


@pytest.mark.processes
def test_a_person_forgotten_as_the_page_says_is_gone_from_a_ledger_that_still_holds(
    installation: Installation,
) -> None:
    door = installation.plane.door
    set_override(door, MAIN_FLAG, "user-42", Variant.ON, actor="test", reason="user-42 asked for it")
    unset_override(door, MAIN_FLAG, "user-42", actor="test")
    (block,) = blocks(DOCS / "security.md", "python")
    subprocess.run([sys.executable, "-c", block.text], cwd=installation.folder, check=True, timeout=SECONDS)
    with door.reading() as connection:
        assert verify_ledger(connection).ok
        about = list_entries(connection, AuditFilter(), limit=500)
    said = "".join(f"{entry.before} {entry.after} {entry.reason}" for entry in about)
    assert ERASED in said
    assert "user-42" not in said


def test_a_line_that_was_not_printed_is_found() -> None:
    said = "first line\nsecond   line of 3\n"
    assert in_order(["first line", "second line of …"], said) is None
    assert in_order(["second line of …", "first line"], said) == "first line"


def test_a_command_goes_on_after_a_backslash_and_knows_its_output() -> None:
    text = textwrap.dedent("""\
        $ rollout flags \\
            list
        FLAG  STATE
        $ A=1 rollout doctor
        """)
    block = Block(ROOT / "README.md", 1, "console", text, None)
    assert list(commands(block)) == [("rollout flags list", ["FLAG  STATE"]), ("A=1 rollout doctor", [])]
    assert word("A=1 rollout doctor") == "rollout"
