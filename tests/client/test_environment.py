"""The process's own overrides: read or failed safe, and every failure said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.client.environment import ENABLED, FORCE_USERS, KILL, PERCENTAGE, read_overrides
from rollout.domain.local import SILENT, LocalOverrides
from rollout.settings import parse_settings

anything = st.text(st.characters(), max_size=30) | st.sampled_from(
    ["yes", "0", "10", "NaN", "1e3", " ", "50%", "\ud800"]
)


@given(st.dictionaries(st.sampled_from([KILL, ENABLED, PERCENTAGE, FORCE_USERS]), anything))
def test_no_environment_makes_reading_raise(environ: dict[str, str]) -> None:
    read = read_overrides(environ)
    assert read.share is None or 0 <= read.share <= 100_000
    assert "" not in read.force_users
    assert len(read.problems) <= 4


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


@pytest.mark.parametrize(
    "text",
    [
        *('"/run/kill"', "'/run/kill'", '/run/kill"', "\u201c/run/kill\u201d", "/run/\x1bkill"),
        *("~/kill", "~ada/kill", "$HOME/kill", "${HOME}/kill", "%TEMP%/kill"),
        *("file:///run/kill", "file:/run/kill", "https://host/kill"),
        *("\u00ab/run/kill\u00bb", "/run/kill # ours", "/run/kill;", "/run/kill,", "/run/kill:", r"/srv/my\ data/kill"),
        *("/srv/%ENV%/kill", "/srv/{{ name }}/kill", "/srv/@ENV@/kill", "<path>", "[/run/kill]", "/run/kill*"),
        *("export KILL=/run/kill", "ROLLOUT_KILL_FILE=/run/kill", "none", "true", "off", "-"),
    ],
)
@pytest.mark.parametrize("variable", ["ROLLOUT_KILL_FILE", "ROLLOUT_DATA_DIR"])
def test_a_place_where_nobody_would_look_for_a_kill_file_kills_and_is_said(variable: str, text: str) -> None:
    read = read_overrides({variable: text})
    assert read.killed
    (problem,) = read.problems
    assert variable in problem
    assert "all goes direct" in problem
    if variable == "ROLLOUT_DATA_DIR":  # for a server it is more than the place of a kill file
        assert [each.variable for each in parse_settings({variable: text}).problems] == [variable]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "/run/kill",
            "kill",
            "../a b/kill.now",
            "/srv/50%/kill",
            "/run/o'brien/kill",
            "/run/a,b/c#/kill",
            "/run/åsa/kill",
        ),
        *("/run/a=b/kill", "/srv/ada@host/kill", "/srv/10:30/kill", "./kill", "/run/no"),
    ],
)
def test_a_plain_path_is_taken_as_it_is(text: str) -> None:
    assert read_overrides({"ROLLOUT_KILL_FILE": text}) == SILENT
    assert parse_settings({"ROLLOUT_KILL_FILE": text}).problems == ()


@pytest.mark.parametrize("name", ["force_direct_openrouter", "Force_Direct_OpenRouter", " FORCE_DIRECT_OPENROUTER"])
def test_a_kill_switch_under_a_name_that_nobody_reads_kills_and_is_said(name: str) -> None:
    for said in ("true", "1", "maybe"):
        read = read_overrides({name: said})
        assert read.killed
        (problem,) = read.problems
        assert repr(name) in problem
        assert KILL in problem
    assert not read_overrides({name: "off"}).killed
    assert read_overrides({name: ""}) == SILENT


@pytest.mark.parametrize("name", [ENABLED, PERCENTAGE, FORCE_USERS])
def test_another_variable_under_a_name_that_nobody_reads_is_said(name: str) -> None:
    read = read_overrides({name.lower(): "100"})
    assert (read.killed, read.enabled, read.share, read.force_users) == (False, None, None, frozenset())
    (problem,) = read.problems
    assert name in problem


def test_a_named_kill_file_makes_the_data_folder_no_matter_of_kills() -> None:
    assert not read_overrides({"ROLLOUT_KILL_FILE": "/run/kill", "ROLLOUT_DATA_DIR": "~/data"}).killed


@pytest.mark.parametrize("text", ['"true"', "'1'", '"false"', "true # for now", "$KILL", "y", "\u201ctrue\u201d"])
def test_a_switch_in_quotation_marks_fails_safe_and_is_said(text: str) -> None:
    assert read_overrides({KILL: text}).killed
    assert read_overrides({ENABLED: text}).share == 0
    assert read_overrides({KILL: text}).problems
    assert read_overrides({ENABLED: text}).problems


@pytest.mark.parametrize("text", ['"50"', "'0.5'", "50 percent", "$SHARE", "50;60"])
def test_a_percentage_in_quotation_marks_means_nobody_and_is_said(text: str) -> None:
    assert read_overrides({PERCENTAGE: text}).share == 0
    assert read_overrides({PERCENTAGE: text}).problems


@pytest.mark.parametrize(
    "text",
    [
        *('"ada,bob"', "'ada'", 'ada,"bob"', '["ada", "bob"]', "[ada]", "ada;bob", "{ada: on}", "ada\nbob", "ada,\x00"),
        *("ada\uff0cbob", "ada\u3001bob", "ada\u060cbob", "ada, bob # ours", "<ada>", "LITELLM_FORCE_USERS=ada"),
        *("$USERS", "*"),
    ],
)
def test_users_in_another_notation_are_not_forced_and_that_is_said(text: str) -> None:
    read = read_overrides({FORCE_USERS: text})
    assert read.force_users == frozenset()
    (problem,) = read.problems
    assert FORCE_USERS in problem
    assert "nobody is forced" in problem


def test_a_user_with_an_apostrophe_or_a_blank_is_forced() -> None:
    assert read_overrides({FORCE_USERS: "o'brien, åsa berg"}).force_users == {"o'brien", "åsa berg"}


def test_users_as_other_systems_name_them_are_forced() -> None:
    named = {"auth0|5f7c", "CORP\\ada", "uid=ada", "@ada", "ada#1", "ada@corp.example", "urn:ada:1", "a*"}
    assert read_overrides({FORCE_USERS: ",".join(named)}).force_users == named


@pytest.mark.parametrize("variable", ["OPENROUTER_API_KEY", "ROLLOUT_TOKEN", "LITELLM_MASTER_KEY", "ROLLOUT_SALT"])
def test_a_secret_in_quotation_marks_is_said_and_never_shown(variable: str) -> None:
    (problem,) = parse_settings({variable: '"sk-secret"'}).problems
    assert problem.variable == variable
    assert "quotation mark" in str(problem)
    assert "secret" not in str(problem)
