"""LiteLLM's own virtual environment, made from its hash lock.

Law: an environment counts as made only when its stamp holds the digest of the lock and the Python it was made
by. Without the right stamp it is removed and made from scratch, so an interrupted install repairs itself. Two
processes never install into one place at once: the second waits. What we start ends with us (see `leash`).

    python -m rollout.gateway.install --into FOLDER
"""

import argparse
import codecs
import contextlib
import fcntl
import hashlib
import os
import re
import selectors
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from rollout.files import write_whole
from rollout.gateway import leash
from rollout.gateway.pin import pinned_release, why_python_refused, why_refused
from rollout.gateway.progress import InstallPhase, InstallProgress, PipCounter, Report
from rollout.resources import resource

STAMP: Final = "rollout-installed"
_MARK: Final = "rollout-environment"  # ours to remove, even when half made
_GLANCE_SECONDS: Final = 0.2
_TAIL_LINES: Final = 5

# The installer's own settings, proxies and certificates reach pip; what is none of its business does not.
_NOT_FOR_PIP: Final = re.compile(
    r"(?i)^(rollout_|litellm_|openrouter_|python(path|home|startup|warnings)$|virtual_env$|database_url$"
    r"|coverage_|pip_(target|prefix|user|root|require_virtualenv|dry_run)$)|(api|master|secret|access)_?key|password"
)
_REQUIREMENT: Final = re.compile(r"^[A-Za-z0-9][\w.-]*(\[[^\]]*\])?\s*(==|@)", re.MULTILINE)


class InstallError(Exception):
    """The environment could not be made; the message says why and what to do."""


class InstallCancelled(InstallError):
    """Somebody asked to stop; nothing counts as installed."""


def python_of(environment: Path) -> Path:
    """Return where an environment's interpreter lies."""
    return environment / "bin" / "python"


def is_installed(environment: Path, lock: Path) -> bool:
    """Tell whether an environment was made completely, from this lock and by this Python."""
    try:
        stamp = (environment / STAMP).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return stamp == _stamp_of(lock) and python_of(environment).exists()


def install(
    environment: Path,
    *,
    lock: Path,
    log: Path,
    environ: Mapping[str, str],
    report: Report = lambda _: None,
    cancelled: threading.Event | None = None,
    python_version: tuple[int, int] = (sys.version_info[0], sys.version_info[1]),
) -> Path:
    """Make the environment unless it is there already; blocks for about a minute, so call it in a thread.

    Args:
        environment: The folder to hold it. What is there is removed if it is an environment without the right
            stamp; anything else is refused.
        lock: A requirements file with hashes.
        log: Where pip's output goes; the file of the last attempt is replaced.
        environ: Variables for pip (its settings, proxies, certificates). Secrets are left out.
        report: Called with each change, in the calling thread.
        cancelled: Set it to stop: pip is ended and `InstallCancelled` raised.
        python_version: The running Python.

    Returns:
        `environment`.

    Raises:
        InstallError: It failed; the message says what to do.
        InstallCancelled: `cancelled` was set.
    """
    cancelled = cancelled or threading.Event()
    try:
        _install(environment, lock, log, environ, report, cancelled, python_version)
    except OSError as error:
        where = error.filename or environment
        problem = f"LiteLLM cannot be installed: {error.strerror or error} ({where}); free the place and try again"
        report(InstallProgress(InstallPhase.FAILED, line=problem))
        raise InstallError(problem) from error
    except InstallError as error:
        report(InstallProgress(InstallPhase.FAILED, line=str(error)))
        raise
    report(InstallProgress(InstallPhase.DONE, line="LiteLLM is installed"))
    return environment


def _install(
    environment: Path,
    lock: Path,
    log: Path,
    environ: Mapping[str, str],
    report: Report,
    cancelled: threading.Event,
    python_version: tuple[int, int],
) -> None:
    text = lock.read_text(encoding="utf-8")
    _check(text, lock, python_version)
    if is_installed(environment, lock):
        return
    environment.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with _alone(environment, report, cancelled):
        if is_installed(environment, lock):  # the process we waited for did it
            return
        report(InstallProgress(InstallPhase.CREATING, line="making LiteLLM's own environment"))
        _clear(environment)
        variables = {name: value for name, value in environ.items() if not _NOT_FOR_PIP.search(name)}
        with log.open("wb") as output:
            steps = _Steps(output, log, variables, cancelled)
            steps.make_environment(environment)
            steps.fill(environment, lock, _REQUIREMENT.findall(text), report)
        _write_stamp(environment, lock)


def _check(text: str, lock: Path, python_version: tuple[int, int]) -> None:
    try:
        release = pinned_release(text)
    except ValueError as error:
        raise InstallError(f"{lock.name}: {error}") from error
    if release is not None and (reason := why_refused(release)):
        raise InstallError(f"{lock.name} pins litellm {release}, which is refused: {reason}. Pin another release")
    if reason := why_python_refused(python_version):
        raise InstallError(reason)


class _Steps:
    """The two programs that are run, their output, and the way to stop them."""

    def __init__(self, output: IO[bytes], log: Path, environ: Mapping[str, str], cancelled: threading.Event) -> None:
        self._output = output
        self._log = log
        self._environ = environ
        self._cancelled = cancelled

    def make_environment(self, environment: Path) -> None:
        code, tail = self._run([sys.executable, "-m", "venv", str(environment)])
        if code:
            raise InstallError(
                "Python's venv module could not make an environment for LiteLLM; on Debian and Ubuntu install "
                f"python3-venv. {self._last(tail)}"
            )

    def fill(self, environment: Path, lock: Path, requirements: Sequence[object], report: Report) -> None:
        counter = PipCounter(len(requirements), environment, report)
        command = [str(python_of(environment)), "-m", "pip", "install", "--require-hashes", "--no-deps"]
        # Wheels only: nothing of a package runs while it is being installed.
        command += ["--only-binary=:all:", "--no-input", "--progress-bar=off", "--disable-pip-version-check"]
        code, tail = self._run([*command, "--requirement", str(lock)], counter.line, counter.glance)
        if code:
            raise InstallError(
                "pip could not install LiteLLM; check the network and the package index, it is tried again. "
                f"{self._last(tail)}"
            )

    def _last(self, tail: Sequence[str]) -> str:
        errors = [line for line in tail if line.startswith("ERROR")] or list(tail)
        return f"Last said: {errors[-1] if errors else 'nothing'!r}; all of it is in {self._log}"

    def _run(
        self,
        command: Sequence[str],
        on_line: Callable[[str], None] = lambda _: None,
        on_glance: Callable[[], None] = lambda: None,
    ) -> tuple[int, Sequence[str]]:
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        leashed = [sys.executable, "-I", leash.__file__, "--", *command]
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and pip
            leashed,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(self._environ),
            start_new_session=True,  # Ctrl-C reaches us, and we end it
        )
        with process:
            if process.stdin is None or process.stdout is None:
                raise AssertionError("Popen gives pipes where pipes were asked for")
            try:
                for line in self._lines(process.stdout):
                    if self._cancelled.is_set():
                        raise InstallCancelled("the installation of LiteLLM was stopped; it starts anew next time")
                    if line:
                        tail.append(line)
                        on_line(line)
                    else:
                        on_glance()
            finally:
                process.stdin.close()  # the leash lets go, and all it held ends
        return process.returncode, tail

    def _lines(self, stream: IO[bytes]) -> Iterator[str]:
        """Yield each line of the output, and an empty one whenever nothing came for a moment."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            while True:
                if not selector.select(_GLANCE_SECONDS):
                    yield ""
                    continue
                chunk = os.read(stream.fileno(), 65536)
                if not chunk:
                    break
                self._output.write(chunk)
                self._output.flush()
                *lines, rest = (rest + decoder.decode(chunk)).split("\n")
                yield from (line.strip() for line in lines if line.strip())
                yield ""
        if rest.strip():
            yield rest.strip()


@contextlib.contextmanager
def _alone(environment: Path, report: Report, cancelled: threading.Event) -> Iterator[None]:
    """Hold the right to install into a place, waiting for whoever has it."""
    with (environment.parent / f".{environment.name}.lock").open("a", encoding="utf-8") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    told = True
                    report(InstallProgress(InstallPhase.WAITING, line="another process is installing LiteLLM"))
                if cancelled.wait(_GLANCE_SECONDS):
                    raise InstallCancelled("stopped while waiting for another installation of LiteLLM") from None
            else:
                break
        yield  # closing the file gives it back, as does our death


def _clear(environment: Path) -> None:
    """Leave an empty folder that is marked as ours.

    Raises:
        InstallError: Something lies there that is not an environment.
    """
    mark = environment / _MARK
    ours = mark.exists() or (environment / "pyvenv.cfg").exists() or not environment.exists()
    if not ours and (not environment.is_dir() or any(environment.iterdir())):
        raise InstallError(f"{environment} is not a virtual environment, so it is not removed; move it away")
    environment.mkdir(exist_ok=True)
    mark.touch()
    (environment / STAMP).unlink(missing_ok=True)  # from here on it does not count, whatever happens
    for entry in environment.iterdir():
        if entry == mark:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _stamp_of(lock: Path) -> str:
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    return f"{digest} python {sys.version_info[0]}.{sys.version_info[1]}\n"


def _write_stamp(environment: Path, lock: Path) -> None:
    write_whole(environment / STAMP, _stamp_of(lock).encode())


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Install from a terminal; return the exit code: 0 done, 1 failed."""
    parser = argparse.ArgumentParser(prog="python -m rollout.gateway.install", description=install.__doc__)
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="the environment's folder")
    parser.add_argument("--lock", type=Path, help="another lock than the one shipped with rollout")
    options = parser.parse_args(arguments)
    target: Path = options.into.absolute()
    began = time.monotonic()

    def show(progress: InstallProgress) -> None:
        count = f" {progress.packages}/{progress.total}" if progress.total else ""
        print(f"litellm: {progress.phase}{count} {progress.line}", flush=True)

    try:
        install(
            target,
            lock=options.lock or resource("locks") / "litellm.txt",
            log=target.parent / f"{target.name}-install.log",
            environ=environ,
            report=show,
        )
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"litellm: {target} is ready ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
