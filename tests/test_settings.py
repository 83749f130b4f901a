"""Settings: any mapping at all is read, every problem at once, and no secret is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.settings import DEFAULT_OPENROUTER, Settings, Upstreams, parse_settings, read_switch
from rollout.settings import given as value_of

VARIABLES = (
    "OPENROUTER_API_KEY",
    "OPENROUTER_BASE_URL",
    "LITELLM_BASE_URL",
    "LITELLM_MASTER_KEY",
    "LITELLM_PORT",
    "ROLLOUT_URL",
    "ROLLOUT_TOKEN",
    "ROLLOUT_SALT",
    "ROLLOUT_KILL_FILE",
    "ROLLOUT_DATABASE_URL",
    "ROLLOUT_DATA_DIR",
    "ROLLOUT_HOST",
    "ROLLOUT_PORT",
    "ROLLOUT_ALLOWED_HOSTS",
    "ROLLOUT_FREE_REQUESTS_PER_MINUTE",
    "ROLLOUT_FREE_REQUESTS_PER_DAY",
    "ROLLOUT_TOTAL_TIMEOUT",
    "ROLLOUT_ATTEMPT_TIMEOUT",
    "ROLLOUT_FIRST_TOKEN_TIMEOUT",
    "ROLLOUT_STALL_TIMEOUT",
    "ROLLOUT_ALLOW_PAID",
    "ROLLOUT_CORS_ORIGINS",
)
SECRETS = ("OPENROUTER_API_KEY", "LITELLM_MASTER_KEY", "ROLLOUT_TOKEN", "ROLLOUT_DATABASE_URL")
values = st.text(max_size=40) | st.sampled_from(
    [
        "http://",
        "http://[",
        "https://h:99999",
        "http://\u2100.example",
        "1e999",
        "nan",
        "-1",
        "٣",
        "9" * 5_000,
        "yes",
        "\0",
    ]
)
environments = st.dictionaries(st.sampled_from(VARIABLES) | st.text(max_size=10), values)


@given(environments)
def test_any_mapping_is_read_and_never_an_error(environ: dict[str, str]) -> None:
    settings = parse_settings(environ)
    assert {problem.variable for problem in settings.problems} <= {name for name in environ if environ[name].strip()}
    for seconds in (
        settings.upstreams.total_timeout,
        settings.upstreams.attempt_timeout,
        settings.upstreams.first_token_timeout,
        settings.upstreams.stall_timeout,
    ):
        assert 0 < seconds <= 86_400
    assert 0 <= settings.port <= 65_535
    assert settings.upstreams.free_requests_per_minute >= 0
    assert parse_settings(environ) == settings


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text("\t\n ", max_size=3)))
def test_empty_means_unset(environ: dict[str, str]) -> None:
    assert parse_settings(environ) == parse_settings({}) == Settings()


def test_the_defaults_are_the_published_ones() -> None:
    settings = parse_settings({})
    assert settings.problems == ()
    assert settings.upstreams == Upstreams(DEFAULT_OPENROUTER, None, "http://127.0.0.1:4000", None)
    assert (settings.host, settings.port, settings.url, settings.database_url) == ("127.0.0.1", 8080, None, None)
    assert (settings.data_dir, settings.kill_file) == (Path("data"), Path("data/kill"))
    assert (settings.litellm_is_ours, settings.openrouter_given) == (True, False)
    assert settings.upstreams.free_requests_per_minute == 20
    assert settings.upstreams.free_requests_per_day is None
    assert (settings.upstreams.total_timeout, settings.upstreams.attempt_timeout) == (120, 60)
    assert (settings.upstreams.first_token_timeout, settings.upstreams.stall_timeout) == (20, 15)
    assert not settings.upstreams.allow_paid


def test_every_variable_is_read() -> None:
    settings = parse_settings(
        {
            "OPENROUTER_API_KEY": " sk-or ",
            "OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1/",
            "LITELLM_BASE_URL": "http://gateway:4000/v1/",
            "LITELLM_MASTER_KEY": "sk-master",
            "LITELLM_PORT": "4001",
            "ROLLOUT_URL": "https://rollout.example/",
            "ROLLOUT_TOKEN": "rollout_x",
            "ROLLOUT_SALT": "pepper",
            "ROLLOUT_DATABASE_URL": "postgresql://eva@db/rollout",
            "ROLLOUT_DATA_DIR": "/var/lib/rollout",
            "ROLLOUT_HOST": "0.0.0.0",
            "ROLLOUT_PORT": "0",
            "ROLLOUT_ALLOWED_HOSTS": "A.example, b.example,,",
            "ROLLOUT_FREE_REQUESTS_PER_MINUTE": "0",
            "ROLLOUT_FREE_REQUESTS_PER_DAY": "1000",
            "ROLLOUT_TOTAL_TIMEOUT": "10.5",
            "ROLLOUT_ATTEMPT_TIMEOUT": "5",
            "ROLLOUT_FIRST_TOKEN_TIMEOUT": "4",
            "ROLLOUT_STALL_TIMEOUT": "3",
            "ROLLOUT_ALLOW_PAID": "Yes",
        }
    )
    assert settings.upstreams == Upstreams(
        openrouter_url="http://127.0.0.1:9/api/v1",
        openrouter_key="sk-or",
        litellm_url="http://gateway:4000",
        litellm_key="sk-master",
        total_timeout=10.5,
        attempt_timeout=5,
        first_token_timeout=4,
        stall_timeout=3,
        allow_paid=True,
        free_requests_per_minute=0,
        free_requests_per_day=1000,
    )
    assert settings == Settings(
        upstreams=settings.upstreams,
        openrouter_given=True,
        litellm_is_ours=False,
        litellm_port=4001,
        url="https://rollout.example",
        token="rollout_x",
        salt="pepper",
        database_url="postgresql://eva@db/rollout",
        data_dir=Path("/var/lib/rollout"),
        host="0.0.0.0",
        port=0,
        port_given=True,
        allowed_hosts=("a.example", "b.example"),
        kill_file=Path("/var/lib/rollout/kill"),
    )


def test_the_gateway_s_port_moves_its_address() -> None:
    assert parse_settings({"LITELLM_PORT": "4321"}).upstreams.litellm_url == "http://127.0.0.1:4321"
    assert parse_settings({"ROLLOUT_KILL_FILE": "/run/kill", "ROLLOUT_DATA_DIR": "/d"}).kill_file == Path("/run/kill")


UNREADABLE = {
    "OPENROUTER_BASE_URL": "openrouter.ai",
    "LITELLM_BASE_URL": "http://",
    "LITELLM_PORT": "65536",
    "ROLLOUT_URL": "ftp://rollout.example",
    "ROLLOUT_PORT": "http",
    "ROLLOUT_FREE_REQUESTS_PER_MINUTE": "-1",
    "ROLLOUT_FREE_REQUESTS_PER_DAY": "1.5",
    "ROLLOUT_TOTAL_TIMEOUT": "nan",
    "ROLLOUT_ATTEMPT_TIMEOUT": "0",
    "ROLLOUT_FIRST_TOKEN_TIMEOUT": "soon",
    "ROLLOUT_STALL_TIMEOUT": "inf",
    "ROLLOUT_ALLOW_PAID": "perhaps",
}


def test_every_problem_is_said_at_once_and_the_defaults_stand() -> None:
    settings = parse_settings(UNREADABLE)
    assert {problem.variable for problem in settings.problems} == set(UNREADABLE)
    for problem in settings.problems:
        # what should have been a URL may hold a password, or be a key that was pasted there
        shown = repr(UNREADABLE[problem.variable]) in str(problem)
        assert shown is not problem.variable.endswith("_URL")
        assert "it needs" in str(problem)
    kept = parse_settings({})
    assert settings.upstreams == kept.upstreams
    assert (settings.port, settings.url) == (kept.port, kept.url)


def test_secrets_are_neither_in_the_repr_nor_in_a_problem() -> None:
    environ = dict.fromkeys(SECRETS, "hunter2-hunter2") | {
        "OPENROUTER_BASE_URL": "http://eva:hunter2-hunter2@[broken",
        "LITELLM_BASE_URL": "ftp://eva:hunter2-hunter2@gateway",
        "ROLLOUT_URL": "http://eva:hunter2-hunter2@rollout:99999",
    }
    settings = parse_settings(environ)
    assert len(settings.problems) == 3
    assert "hunter2" not in repr(settings)
    assert not any("hunter2" in str(problem) for problem in settings.problems)


@pytest.mark.parametrize(
    ("text", "said"),
    [(word, True) for word in ("1", "true", "YES", " on ", "On")]
    + [(word, False) for word in ("0", "false", "No", "OFF")]
    + [(word, None) for word in ("", "2", "perhaps", "yes please", "ja", "\u0130")],
)
def test_switches(text: str, said: bool | None) -> None:
    assert read_switch(text) is said


def test_a_value_is_trimmed_and_absent_when_empty() -> None:
    assert value_of({"A": " b "}, "A") == "b"
    assert value_of({"A": "  "}, "A") is value_of({}, "A") is None


@pytest.mark.parametrize("variable", ["ROLLOUT_PORT", "LITELLM_PORT"])
@pytest.mark.parametrize("value", ["tcp://10.0.0.1:8080", "udp://10.0.0.1:53", "tcp://[fd00::1]:8080"])
def test_a_port_that_kubernetes_put_there_is_named_and_left_aside(variable: str, value: str) -> None:
    injected = {f"{variable}_8080_TCP_ADDR": "10.0.0.1", f"{variable}_8080_TCP": value, variable: value}
    settings = parse_settings(injected)
    assert settings.problems == ()
    assert (settings.port, settings.port_given, settings.litellm_port) == (8080, False, 4000)
    (note,) = settings.notes
    assert note.variable == variable
    assert "Kubernetes" in note.message
    assert value in note.message


def test_trusted_proxies_are_addresses_and_networks() -> None:
    settings = parse_settings({"ROLLOUT_TRUSTED_PROXIES": "10.0.0.1, 192.168.0.0/16,fd00::/8"})
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.1/32", "192.168.0.0/16", "fd00::/8"]
    (problem,) = parse_settings({"ROLLOUT_TRUSTED_PROXIES": "proxy.example"}).problems
    assert problem.variable == "ROLLOUT_TRUSTED_PROXIES"


def test_a_path_to_be_served_below_is_refused_and_the_root_is_none() -> None:
    (problem,) = parse_settings({"ROLLOUT_ROOT_PATH": "/rollout"}).problems
    assert "need a host name of their own" in str(problem)
    assert parse_settings({"ROLLOUT_ROOT_PATH": "/"}).problems == ()
