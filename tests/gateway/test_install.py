"""An environment counts only when it is whole."""

import hashlib
import os
import subprocess
import sys
import threading
import zipfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from rollout.gateway.install import InstallCancelled, InstallError, install, is_installed, main, python_of
from rollout.gateway.pin import BAD_RELEASES, PYTHON_CEILING, pinned_release, why_python_refused, why_refused
from rollout.gateway.progress import InstallPhase, InstallProgress, PipCounter
from rollout.resources import resource

pytestmark = pytest.mark.processes


def a_wheel(folder: Path, name: str = "tiny", *, content: str = "answer = 42\n") -> Path:
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": content,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


def a_lock(folder: Path, wheel: Path, *, digest: str | None = None) -> Path:
    lock = folder / "lock.txt"
    digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text(f"tiny @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    return lock


def installed(folder: Path, lock: Path, **more: Any) -> Path:
    environ = {**os.environ, "LITELLM_MASTER_KEY": "sk-hush", "PYTHONPATH": "/nowhere"}
    return install(folder / "env", lock=lock, log=folder / "install.log", environ=environ, **more)


def test_what_the_lock_names_is_there_and_progress_was_told(tmp_path: Path) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path))
    told: list[InstallProgress] = []
    environment = installed(tmp_path, lock, report=told.append)
    assert is_installed(environment, lock)
    phases = [progress.phase for progress in told]
    assert list(dict.fromkeys(phases)) == ["creating", "downloading", "installing", "done"]
    assert max(progress.total for progress in told) == 1
    program = "import tiny; print(tiny.answer)"
    assert subprocess.check_output([python_of(environment), "-c", program]).strip() == b"42"
    assert "tiny" in (tmp_path / "install.log").read_text()

    before = (environment / "pyvenv.cfg").stat().st_mtime_ns
    told.clear()
    installed(tmp_path, lock, report=told.append)
    assert [progress.phase for progress in told] == [InstallPhase.DONE]
    assert (environment / "pyvenv.cfg").stat().st_mtime_ns == before

    # An interrupted install leaves no stamp; another lock leaves a wrong one. Both begin from scratch.
    for spoil in (
        lambda: (environment / "rollout-installed").unlink(),
        lambda: lock.write_text(lock.read_text() + "\n"),
    ):
        (environment / "left-over").mkdir()
        spoil()
        assert not is_installed(environment, lock)
        installed(tmp_path, lock)
        assert is_installed(environment, lock)
        assert not (environment / "left-over").exists()


def test_a_package_with_another_digest_is_not_installed_and_does_not_count(tmp_path: Path) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path), digest="0" * 64)
    told: list[InstallProgress] = []
    with pytest.raises(InstallError, match="pip could not install LiteLLM") as caught:
        installed(tmp_path, lock, report=told.append)
    assert str(tmp_path / "install.log") in str(caught.value)
    assert told[-1].phase is InstallPhase.FAILED
    assert not is_installed(tmp_path / "env", lock)


def test_a_stopped_install_ends_pip_and_does_not_count(tmp_path: Path) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path))
    cancelled = threading.Event()

    def stop(progress: InstallProgress) -> None:
        if progress.phase is InstallPhase.DOWNLOADING:
            cancelled.set()

    with pytest.raises(InstallCancelled):
        installed(tmp_path, lock, report=stop, cancelled=cancelled)
    assert not is_installed(tmp_path / "env", lock)
    installed(tmp_path, lock)
    assert is_installed(tmp_path / "env", lock)


def test_an_installer_killed_with_9_leaves_nothing_running_and_the_next_one_repairs(tmp_path: Path) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path))
    command = [sys.executable, "-m", "rollout.gateway.install", "--into", str(tmp_path / "env"), "--lock", str(lock)]
    root = resource("locks").parent
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "creating" in process.stdout.readline()
        process.kill()
    assert not is_installed(tmp_path / "env", lock)
    installed(tmp_path, lock)
    assert is_installed(tmp_path / "env", lock)


def test_of_two_installers_the_second_waits_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path))
    first_began = threading.Event()
    told: list[InstallProgress] = []

    def first(progress: InstallProgress) -> None:
        if progress.phase is InstallPhase.CREATING:
            first_began.set()

    thread = threading.Thread(target=installed, args=(tmp_path, lock), kwargs={"report": first})
    thread.start()
    assert first_began.wait(20)
    installed(tmp_path, lock, report=told.append)
    thread.join()
    assert [progress.phase for progress in told] == [InstallPhase.WAITING, InstallPhase.DONE]


def test_who_waits_can_be_stopped_too(tmp_path: Path) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path))
    cancelled = threading.Event()
    holder = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-c", holder, str(tmp_path / ".env.lock")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        with pytest.raises(InstallCancelled, match="waiting"):
            installed(tmp_path, lock, report=lambda _: cancelled.set(), cancelled=cancelled)
        process.kill()


def test_a_folder_that_is_not_an_environment_is_never_removed(tmp_path: Path) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path))
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "thesis.tex").write_text("years of work")
    with pytest.raises(InstallError, match="move it away"):
        installed(tmp_path, lock)
    assert (tmp_path / "env" / "thesis.tex").read_text() == "years of work"


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallError, match="cannot be installed"):
        installed(tmp_path / "file", lock)


def test_a_lock_with_a_bad_release_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    for text in ("litellm[proxy]==1.82.7 --hash=sha256:00\n", "litellm==1.82.8 \\\n  --hash=sha256:00\n"):
        lock.write_text(text)
        with pytest.raises(InstallError, match="malicious"):
            installed(tmp_path, lock)
    lock.write_text("litellm[proxy]>=1.84\n")
    with pytest.raises(InstallError, match="exact release"):
        installed(tmp_path, lock)
    assert not (tmp_path / "env").exists()


def test_a_python_the_lock_does_not_hold_for_is_told_which_do(tmp_path: Path) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path))
    for version in ((3, 10), PYTHON_CEILING):
        with pytest.raises(InstallError, match=r"Python 3\.11 to 3\.14"):
            installed(tmp_path, lock, python_version=version)
    assert [why_python_refused((3, minor)) for minor in range(11, 15)] == [None] * 4


@pytest.mark.parametrize(
    "release", ["1.82.7", "1.82.8", "1.83.14", "0.1.0", "1.97.0", "1.98.3", "1.100.0", "1.100.0.post1", "latest"]
)
def test_bad_releases_are_refused(release: str) -> None:
    assert why_refused(release)


@pytest.mark.parametrize("release", ["1.84.0", "1.96.9", "1.99.0", "1.100.1", "1.106.2", "2.0.0"])
def test_other_releases_are_not(release: str) -> None:
    assert why_refused(release) is None


def test_our_own_lock_is_pinned_hashed_and_none_of_the_bad_ones() -> None:
    text = (resource("locks") / "litellm.txt").read_text()
    release = pinned_release(text)
    assert release is not None
    assert why_refused(release) is None
    assert len(BAD_RELEASES) == 4
    requirements = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert all("==" in line and line.endswith("\\") for line in requirements)
    assert "://" not in text


@pytest.mark.litellm
def test_the_range_of_pythons_is_what_the_installed_litellm_says_of_itself(litellm_environment: Path) -> None:
    (site,) = litellm_environment.glob("lib/python*/site-packages")
    (found,) = [found for found in distributions(path=[str(site)]) if found.name == "litellm"]
    assert found.version == pinned_release((resource("locks") / "litellm.txt").read_text())
    assert f"<{PYTHON_CEILING[0]}.{PYTHON_CEILING[1]}" in found.metadata["Requires-Python"].replace(" ", "")


def test_the_terminal_shows_progress_and_answers_with_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = a_lock(tmp_path, a_wheel(tmp_path))
    arguments = ["--into", str(tmp_path / "env"), "--lock", str(lock)]
    assert main(arguments, os.environ) == 0
    assert "is ready" in capsys.readouterr().out
    lock.write_text("litellm==1.82.7 --hash=sha256:00\n")
    assert main(arguments, os.environ) == 1
    assert "malicious" in capsys.readouterr().err


def test_pips_words_become_counts(tmp_path: Path) -> None:
    told: list[InstallProgress] = []
    counter = PipCounter(3, tmp_path, told.append)
    for line in (
        "Ignoring colorama: markers 'sys_platform == \"win32\"' don't match your environment",
        "Collecting aiohttp==3.14.5 (from -r lock.txt (line 4))",
        "  Downloading aiohttp-3.14.5.whl (1.9 MB)",
        "Processing /a/place/nobody/needs/to/see/anyio-4.0-py3-none-any.whl (from -r lock.txt (line 1))",
        "Installing collected packages: aiohttp, anyio",
    ):
        counter.line(line)
    (tmp_path / "lib/python3.11/site-packages/aiohttp-3.14.5.dist-info").mkdir(parents=True)
    counter.glance()
    counter.glance()
    assert [(progress.phase, progress.packages, progress.total) for progress in told] == [
        ("downloading", 0, 3),
        ("downloading", 1, 2),
        ("downloading", 2, 2),
        ("installing", 0, 2),
        ("installing", 1, 2),
    ]
    assert told[2].line == "downloading anyio-4.0-py3-none-any.whl"
