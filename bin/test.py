"""Get the real parts the tests need, run every test, print the coverage.

    .venv/bin/python bin/test.py [arguments for pytest]

The real parts are LiteLLM, PostgreSQL, PgBouncer, nginx, a browser and Node.js. What cannot be had is reported as not
run, and fails if CI is set. With arguments for pytest the coverage is printed and not judged. Tests marked `soak` run
only if an argument asks for them, as `make soak` does.

Tests find what was found here through ROLLOUT_TEST_POSTGRES_BIN (the folder of initdb; unset: not to be had) and
ROLLOUT_TEST_CHROMIUM (a browser's path; empty: Playwright's own).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = ("nginx", "pgbouncer")  # each the name of a mark, of the program it needs and of the package
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
GROUND_FLOOR = "rollout/domain/*,rollout/settings.py,rollout/resources.py"


def ran(command: Sequence[str], *, quiet: bool = False) -> bool:
    """Run a command in the checkout; tell whether it could be started and succeeded."""
    output = subprocess.DEVNULL if quiet else None
    try:
        return subprocess.run(command, cwd=ROOT, check=False, stdout=output, stderr=output).returncode == 0  # noqa: S603 - the commands below
    except OSError:
        return False


def python(*arguments: str) -> tuple[str, ...]:
    """Return a command for our own interpreter."""
    return (sys.executable, *arguments)


def from_the_system(package: str) -> bool:
    """Install a package of Debian's or Ubuntu's; only root can."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    print(f"installing {package} ...", flush=True)
    os.environ |= {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # the second: no service is started
    ran(("apt-get", "update", "-qq"), quiet=True)
    return ran(("apt-get", "install", "-y", "-qq", "--no-install-recommends", package), quiet=True)


def litellm() -> bool:
    """Install LiteLLM into the environment all tests share."""
    return ran(python("-m", "rollout.gateway.install", "--into", ".cache/litellm"))


def installed_browser() -> str | None:
    """Return the path of a browser that is there."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def a_browser() -> str | None:
    """Return the path of a browser, "" for Playwright's own, None where there is none."""
    if found := installed_browser():
        return found
    if ran(python("-m", "playwright", "install", "chromium"), quiet=True):
        return ""
    return installed_browser() if from_the_system("chromium") else None


def initdb() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest first."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(versions, key=lambda path: int(path.parts[-3]) if path.parts[-3].isdecimal() else 0)
    if found:
        return found[-1].parent
    path = shutil.which("initdb")
    return Path(path).resolve().parent if path else None


def postgres() -> Path | None:
    """Return the folder of PostgreSQL's programs, installing them where that is possible."""
    return initdb() or (initdb() if from_the_system("postgresql") else None)


def get_parts() -> dict[str, str]:
    """Get the real parts; return what could not be had, by the mark of its tests, with what to do."""
    missing: dict[str, str] = {}
    if not litellm():
        missing["litellm"] = "LiteLLM could not be installed; see .cache/litellm-install.log"
    folder = postgres()
    if folder is None:
        missing["postgres"] = "no PostgreSQL; install its server package (initdb, postgres)"
    else:
        os.environ["ROLLOUT_TEST_POSTGRES_BIN"] = str(folder)
    browser = a_browser()
    if browser is None:
        missing["browser"] = "no browser; install chromium"
    else:
        os.environ["ROLLOUT_TEST_CHROMIUM"] = browser
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))  # not on everybody's PATH
    for name in PROGRAMS:
        if shutil.which(name, path=path) is None and not from_the_system(name):
            missing[name] = f"{name} is not installed; install its package"
    if not (shutil.which("node") and shutil.which("npm")):
        missing["node"] = "no Node.js; install node and npm"
    return missing


def main(arguments: Sequence[str]) -> int:
    """Run as a program; return the exit code."""
    missing = get_parts()
    marks = ("-m", " and ".join(f"not {mark}" for mark in ("soak", *missing)))  # an `-m` among the arguments beats it
    ran(python("-m", "coverage", "erase"))
    passed = ran(python("-m", "coverage", "run", "-m", "pytest", *marks, *arguments))
    ran(python("-m", "coverage", "combine", "--quiet"))
    judged = not arguments
    overall = ran(python("-m", "coverage", "report", *(("--fail-under=85",) if judged else ())))
    print("\nThe ground floor:", flush=True)
    floor = ran(
        python("-m", "coverage", "report", f"--include={GROUND_FLOOR}", *(("--fail-under=90",) if judged else ()))
    )
    for mark, why in missing.items():
        print(f"NOT RUN: the tests marked {mark!r}: {why}")
    if missing and os.environ.get("CI"):
        print("error: CI is set, and there everything has to run", file=sys.stderr)
        return 1
    return 0 if passed and (not judged or (overall and floor)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
