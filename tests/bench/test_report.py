"""What the reports are computed with."""

from __future__ import annotations

import pytest

from bench.report import BEGIN, END, Part, Series, at_least, at_most, between_marks, number, percentile, table


def a_series(**figures: tuple[float, ...]) -> Series:
    series = Series()
    for contender, taken in figures.items():
        for figure in taken:
            series.add(contender, figure)
    return series


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_moment_hurts_nobody() -> None:
    series = a_series(ours=(1, 10, 1), theirs=(4, 40, 4))
    assert series.ratio("theirs", "ours") == 4


def test_what_is_added_is_taken_within_each_round() -> None:
    series = a_series(direct=(1, 5, 2), hop=(2, 6, 3))
    assert series.added("hop", "direct") == 1


def test_contenders_with_different_numbers_of_rounds_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="longer"):
        a_series(ours=(1,), theirs=(1, 2)).ratio("ours", "theirs")


@pytest.mark.parametrize(("percent", "found"), [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_a_figure_that_was_measured(percent: float, found: float) -> None:
    assert percentile([float(each) for each in range(100, 0, -1)], percent) == found


def test_of_one_figure_every_percentile_is_that_figure() -> None:
    assert percentile([7.0], 99) == 7


def test_no_figures_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no figures"):
        percentile([], 50)


def test_an_aim_is_met_at_its_limit() -> None:
    assert at_most("memory", 70, 70).met
    assert at_least("speed", 40, 40).met
    assert not at_most("memory", 70.1, 70).met
    assert not at_least("speed", 39.9, 40).met


@pytest.mark.parametrize(
    ("figure", "text"),
    [(0, "0"), (1234567.8, "1,234,568"), (123.4, "123"), (12.34, "12.3"), (1, "1"), (0.5, "0.5"), (-0.0123, "-0.0123")],
)
def test_a_figure_shows_the_digits_that_count(figure: float, text: str) -> None:
    assert number(figure) == text


def test_the_columns_of_a_table_are_in_line() -> None:
    lines = table(("what", "us"), [("a", "1"), ("longer", "1,000")]).splitlines()
    assert lines == ["| what   |    us |", "|--------|------:|", "| a      |     1 |", "| longer | 1,000 |"]


def test_a_part_says_which_aims_were_missed() -> None:
    part = Part("Speed", ("who", "ns"), [("ours", "9")], [at_most("ours", 9, 5, " ns")], notes=("A note.",))
    assert "## Speed" in part.markdown()
    assert "A note." in part.markdown()
    assert "| ours | at most 5 ns |  9 ns | NOT MET |" in part.markdown()


def test_what_was_measured_replaces_what_stood_between_the_marks_and_nothing_else() -> None:
    page = between_marks(f"# Page\n\n{BEGIN}\nold\n{END}\n\nMore.\n", "new\n")
    assert page == f"# Page\n\n{BEGIN}\n\nnew\n\n{END}\n\nMore.\n"
    assert between_marks(page, "new") == page


@pytest.mark.parametrize("page", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"])
def test_a_page_without_its_marks_is_left_alone(page: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        between_marks(page, "new")


def test_a_contender_that_was_not_measured_is_not_in_a_series() -> None:
    series = a_series(ours=(1,))
    assert "ours" in series
    assert "theirs" not in series
