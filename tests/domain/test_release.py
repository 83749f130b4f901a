import pytest

from rollout.domain.release import STREAMS_SAY_COST, Release, parse_release, streams_say_cost


@pytest.mark.parametrize(
    ("text", "release"),
    [("1.106.2", (1, 106, 2)), ("1.84.0.post1", (1, 84, 0)), ("1.94.0rc1", (1, 94, 0)), ("main", None), ("1.9", None)],
)
def test_a_release_is_read_from_the_numbers_it_begins_with(text: str, release: tuple[int, int, int] | None) -> None:
    assert parse_release(text) == release


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1.84.0", False),
        ("1.93.2", False),
        ("1.94.0", True),
        ("1.106.2", True),
        ("2.0.0", True),
    ],
)
def test_streams_of_old_releases_say_no_cost_and_those_of_newer_ones_do(text: str, says: bool) -> None:
    assert [streams_say_cost(text, unknown=unknown) for unknown in (False, True)] == [says, says]


@pytest.mark.parametrize("text", ["dev", "main-stable", "", None])
def test_what_is_known_beside_the_release_decides_if_a_gateway_does_not_say_which_it_is(text: str | None) -> None:
    assert [streams_say_cost(text, unknown=unknown) for unknown in (False, True)] == [False, True]


def test_a_release_is_written_as_it_is_read() -> None:
    assert parse_release(str(STREAMS_SAY_COST)) == STREAMS_SAY_COST
    assert str(Release(1, 106, 2)) == "1.106.2"
