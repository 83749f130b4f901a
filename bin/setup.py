"""Make a virtual environment from a lock, unless it is there already.

    python bin/setup.py FOLDER LOCK [LOCK...]

Law: the environment counts only when its stamp holds the digest of one of the locks and of pyproject.toml, and
its own Python still finds what was installed. Otherwise it is made from scratch from the first lock, so an
interrupted set-up repairs itself. Further locks name supersets that serve as well.

Standard library only: it runs before anything is installed.
"""

import fcntl
import hashlib
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = "set-up"
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--no-deps")


def stamp_of(lock: Path) -> str:
    """Return what the stamp holds once an environment is complete."""
    digest = hashlib.sha256()
    for part in (lock.read_bytes(), (ROOT / "pyproject.toml").read_bytes()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def is_complete(folder: Path, locks: list[Path]) -> bool:
    """Tell whether the environment was made completely from one of the locks."""
    try:
        stamp = (folder / STAMP).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return False
    if stamp not in map(stamp_of, locks):
        return False
    # The system's Python may have moved on under the environment: then what is compiled is not found.
    try:
        probe = (str(folder / "bin" / "python"), "-I", "-c", "import mmh3")
        return subprocess.run(probe, check=False, stderr=subprocess.DEVNULL).returncode == 0  # noqa: S603 - our own
    except OSError:
        return False


@contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Hold the right to write to the folder; the descriptor goes to pip, which then holds it even without us."""
    place = ROOT / ".cache"
    place.mkdir(exist_ok=True)
    with (place / f"{folder.name}.lock").open("a", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another set-up of {folder.name}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def make(folder: Path, lock: Path, held: int) -> None:
    """Make the environment from scratch; the stamp comes last."""
    began = time.monotonic()
    print(f"setting up {folder.name} from {lock.name} (once, under a minute) ...", flush=True)
    (folder / STAMP).unlink(missing_ok=True)
    venv.create(folder, clear=True, with_pip=True, symlinks=True)
    python = str(folder / "bin" / "python")
    steps = (
        ("--require-hashes", "--only-binary=:all:", "--requirement", str(lock)),
        ("--no-build-isolation", "--editable", str(ROOT)),
    )
    for step in steps:
        subprocess.run((python, *PIP, *step), check=True, pass_fds=(held,))  # noqa: S603 - our own interpreter
    (folder / STAMP).write_text(stamp_of(lock), encoding="ascii")
    print(f"{folder.name} is ready ({time.monotonic() - began:.0f} s)", flush=True)


def main(arguments: list[str]) -> int:
    """Run as a program; return the exit code."""
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder, *locks = (Path(argument).absolute() for argument in arguments)
    if is_complete(folder, locks):
        return 0
    try:
        with alone(folder) as held:
            if not is_complete(folder, locks):
                make(folder, locks[0], held)
    except subprocess.CalledProcessError:
        print(f"error: pip could not fill {folder}; its words are above. Run the same again", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {folder} cannot be set up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the next set-up starts anew", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
