"""How far an installation is, read from pip's output."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path


class InstallPhase(StrEnum):
    """Where an installation is."""

    WAITING = "waiting"  # another process installs into the same place
    CREATING = "creating"
    DOWNLOADING = "downloading"
    INSTALLING = "installing"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class InstallProgress:
    """How far an installation is.

    Attributes:
        phase: Where it is.
        packages: Packages seen in this phase so far.
        total: Packages in all; 0 while unknown.
        line: What happens now, for people; no paths, no addresses.
    """

    phase: InstallPhase
    packages: int = 0
    total: int = 0
    line: str = ""


Report = Callable[[InstallProgress], None]


class PipCounter:
    """Turns pip's output into progress."""

    def __init__(self, total: int, environment: Path, report: Report) -> None:
        self._environment = environment
        self._report = report
        self._before = self._present()  # pip itself
        self._now = InstallProgress(InstallPhase.DOWNLOADING, total=total, line="asking for packages")
        report(self._now)

    def line(self, line: str) -> None:
        """Take one line of pip's output."""
        match line.split():
            case ["Ignoring", _, *_]:  # for another system or Python
                self._now = replace(self._now, total=max(0, self._now.total - 1))
            case ["Collecting" | "Processing", what, *_]:
                name = what.rsplit("/", 1)[-1]
                self._say(packages=self._now.packages + 1, line=f"downloading {name}")
            case ["Installing", "collected", "packages:", *names]:
                self._now = InstallProgress(InstallPhase.INSTALLING, 0, len(names), "unpacking packages")
                self._report(self._now)
            case _:
                pass

    def glance(self) -> None:
        """Look how many packages are there: pip says nothing while it unpacks."""
        if self._now.phase is InstallPhase.INSTALLING:
            self._say(packages=min(self._present() - self._before, self._now.total))

    def _present(self) -> int:
        return sum(1 for _ in self._environment.glob("lib/python*/site-packages/*.dist-info"))

    def _say(self, **changes: object) -> None:
        new = replace(self._now, **changes)  # type: ignore[arg-type]  # two fields of it, by name
        if new != self._now:
            self._now = new
            self._report(new)
