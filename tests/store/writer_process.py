"""Write through the door until the count is reached or somebody kills us; say each write once it is committed.

Arguments: database URL, a name, how many writes. Each line is `flag REVISION DESCRIPTION` or `override USER`.
"""

from __future__ import annotations

import sys

from sqlalchemy.engine import make_url

from rollout.control.flags import FlagChange, change_flag, set_override
from rollout.domain.flag import MAIN_FLAG, Variant
from rollout.store.door import Door
from rollout.store.engine import open_engine


def main(url: str, name: str, count: int) -> None:
    """Write `count` times."""
    door = Door(open_engine(make_url(url)))
    for number in range(1, count + 1):
        words = f"{name}-{number}"
        if number % 4 == 0:
            set_override(door, MAIN_FLAG, words, Variant.ON, actor=name, reason=f"write {number}")
            said = f"override {words}"
        else:
            change = FlagChange(share=number * 7_919 % 100_001, description=words)
            said = f"flag {change_flag(door, MAIN_FLAG, change, actor=name).revision} {words}"
        sys.stdout.write(said + "\n")
        sys.stdout.flush()
    door.engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
