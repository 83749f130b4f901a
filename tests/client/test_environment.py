"""The process's own overrides: read or failed safe, and every failure said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.client.environment import ENABLED, FORCE_USERS, KILL, PERCENTAGE, read_overrides
from rollout.domain.local import SILENT, LocalOverrides

anything = st.text(st.characters(), max_size=30) | st.sampled_from(
    ["yes", "0", "10", "NaN", "1e3", " ", "50%", "\ud800"]
)


@given(st.dictionaries(st.sampled_from([KILL, ENABLED, PERCENTAGE, FORCE_USERS]), anything))
def test_no_environment_makes_reading_raise(environ: dict[str, str]) -> None:
    read = read_overrides(environ)
    assert read.share is None or 0 <= read.share <= 100_000
    assert "" not in read.force_users
    assert len(read.problems) <= 3


def test_an_empty_environment_is_silent() -> None:
    assert read_overrides({}) == SILENT
    assert read_overrides({KILL: " ", ENABLED: "", PERCENTAGE: "", FORCE_USERS: " , ,"}) == SILENT


@pytest.mark.parametrize(
    ("environ", "read"),
    [
        ({KILL: "TRUE"}, LocalOverrides(killed=True)),
        ({KILL: "off"}, LocalOverrides()),
        ({ENABLED: "no"}, LocalOverrides(enabled=False)),
        ({ENABLED: "On"}, LocalOverrides(enabled=True)),
        ({PERCENTAGE: "12.5"}, LocalOverrides(share=12_500)),
        ({PERCENTAGE: " 100 "}, LocalOverrides(share=100_000)),
        ({PERCENTAGE: "0"}, LocalOverrides(share=0)),
        ({FORCE_USERS: " ada, ,bob ,ada"}, LocalOverrides(force_users=frozenset({"ada", "bob"}))),
    ],
)
def test_what_can_be_read_is_taken_as_it_is(environ: dict[str, str], read: LocalOverrides) -> None:
    assert read_overrides(environ) == read


@pytest.mark.parametrize("text", ["ja", "2", "tru", "yes!", "kill", "x" * 500])
def test_an_unreadable_kill_switch_kills_and_says_so(text: str) -> None:
    read = read_overrides({KILL: text})
    assert read.killed
    (problem,) = read.problems
    assert KILL in problem
    assert text[:40] in problem
    assert "killed" in problem
    assert len(problem) < 250


@pytest.mark.parametrize("text", ["101", "-1", "NaN", "inf", "half", "0.0005", "1_0", "x" * 500])
def test_an_unreadable_percentage_means_a_share_of_0_and_says_so(text: str) -> None:
    read = read_overrides({PERCENTAGE: text})
    assert (read.share, read.killed) == (0, False)
    (problem,) = read.problems
    assert PERCENTAGE in problem
    assert "share of this process is 0" in problem


def test_an_unreadable_enabled_means_a_share_of_0_even_beside_a_good_percentage() -> None:
    read = read_overrides({ENABLED: "maybe", PERCENTAGE: "50"})
    assert (read.enabled, read.share) == (None, 0)
    assert ENABLED in read.problems[0]
