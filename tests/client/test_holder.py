"""The state in memory: the order of decision, row by row, and what may replace what."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path as File

import pytest

from rollout.client.environment import read_overrides
from rollout.client.holder import Holder
from rollout.client.killfile import KillFile
from rollout.domain.context import Context
from rollout.domain.flag import MAIN_FLAG, PUBLISHED_SALT, BrokenFlag, Flag, Override, Variant
from rollout.domain.local import LocalOverrides
from rollout.domain.snapshot import Snapshot

ON, OFF = Override(Variant.ON), Override(Variant.OFF)


def a_flag(key: str = MAIN_FLAG, **fields: object) -> Flag:
    return Flag(**{"key": key, "salt": PUBLISHED_SALT, "share": 50_000, "revision": 4, **fields})  # type: ignore[arg-type]  # a builder


def a_snapshot(*flags: Flag | BrokenFlag, installation: str = "one", revision: int = 9) -> Snapshot:
    return Snapshot(installation, revision, "d" * 64, {flag.key: flag for flag in flags}, ("a/b:free",))


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Row:
    """One row of the order of decision: what is there, and what must come out for `ada`."""

    name: str
    path: str
    reason: str
    cause: str
    flag: Flag | BrokenFlag | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    kill_file: bool = False
    who: object = "ada"


# ada's bucket under the published salt, fixed in tests/domain/test_bucketing.py
ROWS = [
    Row("the variable kills", "openrouter", "DISABLED", "kill_switch", a_flag(share=100_000),
        {"FORCE_DIRECT_OPENROUTER": "1", "LITELLM_FORCE_USERS": "ada"}),
    Row("the file kills", "openrouter", "DISABLED", "kill_switch", a_flag(overrides={"ada": ON}), kill_file=True),
    Row("the file kills without a snapshot", "openrouter", "DISABLED", "kill_switch", None,
        {"LITELLM_ROLLOUT_PERCENTAGE": "100"}, kill_file=True),
    Row("the stored switch kills testers too", "openrouter", "DISABLED", "kill_switch",
        a_flag(killed=True, overrides={"ada": ON}), {"LITELLM_FORCE_USERS": "ada"}),
    Row("the variable kills a broken flag", "openrouter", "DISABLED", "kill_switch", BrokenFlag(MAIN_FLAG, "x"),
        {"FORCE_DIRECT_OPENROUTER": "1"}),
    Row("an unreadable kill switch kills", "openrouter", "DISABLED", "kill_switch", a_flag(share=100_000),
        {"FORCE_DIRECT_OPENROUTER": "si"}),
    Row("the environment's users beat a stored off", "litellm", "TARGETING_MATCH", "override",
        a_flag(overrides={"ada": OFF}), {"LITELLM_FORCE_USERS": "ada"}),
    Row("a stored on", "litellm", "TARGETING_MATCH", "override", a_flag(share=0, overrides={"ada": ON})),
    Row("a stored off", "openrouter", "TARGETING_MATCH", "override", a_flag(share=100_000, overrides={"ada": OFF})),
    Row("overrides hold while disabled", "litellm", "TARGETING_MATCH", "override",
        a_flag(enabled=False, overrides={"ada": ON})),
    Row("overrides hold beside the environment's percentage", "litellm", "TARGETING_MATCH", "override",
        a_flag(overrides={"ada": ON}), {"LITELLM_ROLLOUT_PERCENTAGE": "0"}),
    Row("stored as disabled", "openrouter", "DISABLED", "flag_disabled", a_flag(enabled=False, share=100_000)),
    Row("disabled by the environment", "openrouter", "DISABLED", "flag_disabled", a_flag(share=100_000),
        {"LITELLM_ENABLED": "false"}),
    Row("enabled by the environment", "litellm", "STATIC", "percentage", a_flag(enabled=False, share=100_000),
        {"LITELLM_ENABLED": "true"}),
    Row("share 0", "openrouter", "STATIC", "percentage", a_flag(share=0)),
    Row("share 100 % without a user", "litellm", "STATIC", "percentage", a_flag(share=100_000), who=None),
    Row("the environment's 0", "openrouter", "STATIC", "percentage", a_flag(share=100_000),
        {"LITELLM_ROLLOUT_PERCENTAGE": "0"}),
    Row("the environment's 100", "litellm", "STATIC", "percentage", a_flag(share=0),
        {"LITELLM_ROLLOUT_PERCENTAGE": "100"}),
    Row("an unreadable percentage", "openrouter", "STATIC", "percentage", a_flag(share=100_000),
        {"LITELLM_ROLLOUT_PERCENTAGE": "lots"}),
    Row("no targeting key", "openrouter", "DEFAULT", "no_targeting_key", a_flag(), who=None),
    Row("an empty targeting key", "openrouter", "DEFAULT", "no_targeting_key", a_flag(), who=""),
    Row("a context without a key", "openrouter", "DEFAULT", "no_targeting_key", a_flag(), who=Context()),
    Row("a bucket below the share", "litellm", "SPLIT", "percentage", a_flag(share=99_999)),
    Row("a bucket above the share", "openrouter", "SPLIT", "percentage", a_flag(share=1)),
    Row("nothing known", "openrouter", "DEFAULT", "no_snapshot"),
    Row("a percentage without a snapshot", "litellm", "SPLIT", "percentage", None,
        {"LITELLM_ROLLOUT_PERCENTAGE": "99.999"}),
    Row("forced without a snapshot", "litellm", "TARGETING_MATCH", "override", None, {"LITELLM_FORCE_USERS": "ada"}),
    Row("a broken flag", "openrouter", "ERROR", "broken_flag", BrokenFlag(MAIN_FLAG, "x")),
    Row("a flag hashed another way", "openrouter", "ERROR", "broken_flag", a_flag(hash_version=2)),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_first_rule_that_applies_decides(row: Row, tmp_path: File) -> None:
    file = tmp_path / "kill"
    if row.kill_file:
        file.touch()
    holder = Holder(read_overrides(row.environ), KillFile(file), clock=Clock())
    if row.flag is not None:
        holder.replace(a_snapshot(row.flag), confirmed_at=999.0)
    made = holder.evaluate(MAIN_FLAG, row.who)
    assert (made.path, made.reason, made.cause) == (row.path, row.reason, row.cause)
    assert made.value is (row.path == "litellm") is holder.is_on(MAIN_FLAG, row.who)
    assert made.variant == ("on" if made.value else "off")


def test_a_context_and_its_key_are_the_same_user() -> None:
    holder = Holder()
    holder.replace(a_snapshot(a_flag()), confirmed_at=0.0)
    for user in map(str, range(50)):
        assert holder.evaluate(MAIN_FLAG, Context(user))[:8] == holder.evaluate(MAIN_FLAG, user)[:8]


def test_an_evaluation_tells_how_old_its_snapshot_is() -> None:
    clock = Clock()
    holder = Holder(clock=clock)
    assert holder.evaluate(MAIN_FLAG, "ada").snapshot_age is None
    holder.replace(a_snapshot(a_flag()), confirmed_at=990.0)
    assert holder.evaluate(MAIN_FLAG, "ada").snapshot_age == 10.0
    holder.confirm(1_000.0)
    assert holder.evaluate(MAIN_FLAG, "ada").snapshot_age == 0.0
    clock.now = 500.0  # set back
    assert holder.evaluate(MAIN_FLAG, "ada").snapshot_age == 0.0
    assert holder.age == 0.0


def test_the_kill_file_acts_within_half_a_second_and_so_does_its_removal(tmp_path: File) -> None:
    clock, file = Clock(), tmp_path / "kill"
    holder = Holder(kill_file=KillFile(file), clock=clock)
    holder.replace(a_snapshot(a_flag(share=100_000), a_flag("other", share=100_000)), confirmed_at=0.0)
    assert holder.is_on(MAIN_FLAG, "ada")
    file.touch()
    clock.now += 0.5
    assert not holder.is_on(MAIN_FLAG, "ada")
    assert holder.evaluate(MAIN_FLAG, "ada").share == 100_000
    assert holder.is_on("other", "ada")
    assert holder.overridden
    file.unlink()
    clock.now += 0.5
    assert holder.is_on(MAIN_FLAG, "ada")
    assert not holder.overridden


def test_the_environment_overrides_the_main_flag_alone() -> None:
    holder = Holder(LocalOverrides(killed=True, share=0))
    holder.replace(a_snapshot(a_flag("other", share=100_000)), confirmed_at=0.0)
    assert holder.is_on("other", "ada")


def test_a_flag_nobody_made_goes_direct() -> None:
    holder = Holder()
    assert holder.evaluate("other", "ada").cause == "no_snapshot"
    holder.replace(a_snapshot(), confirmed_at=0.0)
    for flag in ("other", MAIN_FLAG):
        assert holder.evaluate(flag, "ada").cause == "unknown_flag"
        assert not holder.is_on(flag, "ada")


def test_the_environment_decides_where_the_snapshot_lacks_the_flag() -> None:
    holder = Holder(LocalOverrides(share=100_000))
    holder.replace(a_snapshot(), confirmed_at=0.0)
    assert holder.is_on(MAIN_FLAG, "ada")


def test_nothing_an_application_hands_in_makes_evaluation_raise() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError

    holder = Holder()
    holder.replace(a_snapshot(a_flag()), confirmed_at=0.0)
    for who in (Hostile(), object(), b"x", 7, [], {}, "\ud800", "x" * 1_000_000, Context(Hostile())):  # type: ignore[arg-type]  # on purpose
        holder.evaluate(MAIN_FLAG, who)
        holder.is_on(MAIN_FLAG, who)
        assert holder.evaluate(who, "ada").value is False  # type: ignore[arg-type]  # on purpose
        assert holder.is_on(who, "ada") is False  # type: ignore[arg-type]  # on purpose


def test_another_installation_is_refused_and_said_until_it_is_allowed() -> None:
    holder = Holder()
    assert holder.replace(a_snapshot(a_flag(share=0)), confirmed_at=0.0)
    stranger = a_snapshot(a_flag(share=100_000), installation="two")
    assert not holder.replace(stranger, confirmed_at=0.0)
    assert not holder.is_on(MAIN_FLAG, "ada")
    (problem,) = holder.problems
    assert "'two'" in problem
    assert holder.replace(stranger, confirmed_at=0.0, allow_new_installation=True)
    assert holder.is_on(MAIN_FLAG, "ada")
    assert holder.problems == ()


def test_a_server_restored_from_a_backup_takes_its_clients_back_with_it() -> None:
    holder = Holder()
    holder.replace(a_snapshot(a_flag(share=100_000), revision=9), confirmed_at=0.0)
    assert holder.replace(a_snapshot(a_flag(share=0), revision=5), confirmed_at=0.0)
    assert not holder.is_on(MAIN_FLAG, "ada")


def test_an_override_ends_by_itself() -> None:
    clock = Clock(1_000.0)
    forced = Override(Variant.ON, expires_at=datetime.fromtimestamp(1_010, UTC))
    holder = Holder(clock=clock)
    holder.replace(a_snapshot(a_flag(share=0, overrides={"ada": forced})), confirmed_at=0.0)
    assert holder.is_on(MAIN_FLAG, "ada")
    clock.now = 1_010.0
    assert not holder.is_on(MAIN_FLAG, "ada")
    assert holder.evaluate(MAIN_FLAG, "ada").reason == "STATIC"


def test_a_reload_keeps_the_snapshot_and_changes_the_rest() -> None:
    holder = Holder(LocalOverrides(share=0))
    holder.replace(a_snapshot(a_flag(share=100_000)), confirmed_at=0.0)
    assert not holder.is_on(MAIN_FLAG, "ada")
    holder.reload(LocalOverrides(), None, salt=PUBLISHED_SALT)
    assert holder.is_on(MAIN_FLAG, "ada")
    assert holder.cascade == ("a/b:free",)


def test_a_salt_of_the_installation_moves_users_where_no_snapshot_was_seen() -> None:
    half = LocalOverrides(share=50_000)
    published, own = Holder(half), Holder(half, salt="ours")
    buckets = [(published.evaluate(MAIN_FLAG, u).bucket, own.evaluate(MAIN_FLAG, u).bucket) for u in "abcdef"]
    assert all(one != other for one, other in buckets)


def test_readers_beside_a_writer_see_one_snapshot_or_the_other_and_nothing_between() -> None:
    holder = Holder()
    low = a_snapshot(a_flag(share=0, revision=1), revision=1)
    high = a_snapshot(a_flag(share=100_000, revision=2), revision=2)
    holder.replace(low, confirmed_at=0.0)
    seen: set[tuple[int, int, bool]] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            made = holder.evaluate(MAIN_FLAG, "ada")
            seen.add((made.revision, made.share, made.value))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(300):
        holder.replace(high, confirmed_at=0.0)
        holder.replace(low, confirmed_at=0.0)
    stop.set()
    for reader in readers:
        reader.join()
    assert seen <= {(1, 0, False), (2, 100_000, True)}


def test_a_hundred_thousand_overrides_are_swapped_and_found() -> None:
    overrides = {f"user-{number}": ON for number in range(100_000)}
    holder = Holder()
    holder.replace(a_snapshot(a_flag(share=0, overrides=overrides)), confirmed_at=0.0)
    assert holder.is_on(MAIN_FLAG, "user-99999")
    assert not holder.is_on(MAIN_FLAG, "user-100000")


def test_a_listener_hears_each_snapshot_and_cannot_stop_it(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def listen(snapshot: Snapshot) -> None:
        heard.append(snapshot.revision)
        raise RuntimeError("the application's own fault")

    holder = Holder(on_change=listen)
    assert holder.replace(a_snapshot(a_flag(share=100_000)), confirmed_at=0.0)
    assert holder.is_on(MAIN_FLAG, "ada")
    assert heard == [9]
    assert "on_change raised" in caplog.text
