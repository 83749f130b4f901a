"""The environment's words about proxies and certificates, read once for everything that connects."""

import dataclasses
import logging
from pathlib import Path

import pytest

from rollout.network import Network, Proxy, explain, read_network

PROXY = "http://proxy.example:3128"


def way(environ: dict[str, str], url: str = "https://openrouter.ai/api/v1") -> str | None:
    proxy = read_network(environ).proxy_for(url)
    return None if proxy is None else proxy.url


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "Https_Proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_is_read_in_any_case(name: str) -> None:
    assert way({name: PROXY}) == PROXY
    assert read_network({name: PROXY}).proxy_for("https://a.example") == Proxy(PROXY, name)


def test_each_scheme_has_a_proxy_of_its_own_and_all_proxy_stands_in() -> None:
    environ = {"HTTP_PROXY": "http://plain:1", "ALL_PROXY": "http://all:2"}
    assert way(environ, "http://a.example") == "http://plain:1"
    assert way(environ, "https://a.example") == "http://all:2"
    assert way({"HTTP_PROXY": "http://plain:1"}) is None


def test_lower_case_beats_upper_case_and_an_empty_one_means_no_proxy() -> None:
    assert way({"HTTPS_PROXY": PROXY, "https_proxy": "http://other:1"}) == "http://other:1"
    assert way({"HTTPS_PROXY": PROXY, "https_proxy": ""}) is None
    assert way({"ALL_PROXY": PROXY, "HTTPS_PROXY": ""}) is None


def test_a_proxy_without_a_scheme_is_an_http_proxy() -> None:
    assert way({"HTTPS_PROXY": "proxy.example:3128"}) == PROXY


def test_a_header_of_a_caller_under_cgi_is_no_proxy() -> None:
    cgi = {"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://evil.example"}
    assert way(cgi, "http://a.example") is None
    assert way({**cgi, "http_proxy": PROXY}, "http://a.example") == PROXY


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:4000",
        "http://127.0.0.1:4000",
        "http://127.8.9.1",
        "http://[::1]:4000/x",
        "https://app.localhost",
    ],
)
def test_loopback_is_never_asked_of_a_proxy(url: str) -> None:
    assert way({"ALL_PROXY": PROXY}, url) is None


@pytest.mark.parametrize(
    ("listed", "url", "direct"),
    [
        ("*", "https://openrouter.ai", True),
        ("openrouter.ai", "https://openrouter.ai/api/v1", True),
        ("OpenRouter.AI", "https://openrouter.ai/api/v1", True),
        ("openrouter.ai", "https://eu.openrouter.ai", True),
        (".openrouter.ai", "https://eu.openrouter.ai", True),
        ("*.openrouter.ai", "https://eu.openrouter.ai", True),
        ("router.ai", "https://openrouter.ai", False),
        ("a.example, openrouter.ai", "https://openrouter.ai", True),
        ("a.example openrouter.ai", "https://openrouter.ai", True),
        ("openrouter.ai:443", "https://openrouter.ai", True),
        ("openrouter.ai:8443", "https://openrouter.ai", False),
        ("openrouter.ai:8443", "https://openrouter.ai:8443", True),
        ("10.0.0.0/8", "http://10.1.2.3:4000", True),
        ("10.0.0.0/8", "http://11.1.2.3:4000", False),
        ("10.1.2.3", "http://10.1.2.3:4000", True),
        ("10.1.2.3:5000", "http://10.1.2.3:4000", False),
        ("fd00::/8", "http://[fd00::1]:4000", True),
        ("[fd00::1]:4000", "http://[fd00::1]:4000", True),
        ("[fd00::1]:4001", "http://[fd00::1]:4000", False),
        ("", "https://openrouter.ai", False),
        (",,", "https://openrouter.ai", False),
        (".", "https://openrouter.ai", False),
    ],
)
def test_no_proxy_lists_names_addresses_networks_and_ports(listed: str, url: str, direct: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        assert (way({"ALL_PROXY": PROXY, name: listed}, url) is None) is direct


@pytest.mark.parametrize("url", ["http://[", "https://a.example:port", "", "no url at all"])
def test_a_url_that_cannot_be_read_raises_nothing_here(url: str) -> None:
    assert way({"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY}, url) in {None, PROXY}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("socks5://proxy:1080", "HTTPS_PROXY names a proxy that speaks 'socks5'; only http and https proxies work"),
        ("http://", "HTTPS_PROXY is no address of a proxy; write http://host:port"),
        ("http://user:s3cret@proxy:port", "HTTPS_PROXY is no address of a proxy; write http://host:port"),
        ("http://[", "HTTPS_PROXY is no address of a proxy; write http://host:port"),
    ],
)
def test_a_proxy_that_cannot_be_used_says_which_variable_names_it(value: str, said: str) -> None:
    proxy = read_network({"HTTPS_PROXY": value}).proxy_for("https://a.example")
    assert proxy is not None
    assert proxy.problem == said


def test_credentials_of_a_proxy_are_decoded_and_never_shown() -> None:
    network = read_network({"HTTPS_PROXY": "http://anna:s3cret%40@proxy.example:3128"})
    proxy = network.proxy_for("https://a.example")
    assert proxy is not None
    assert proxy.credentials == ("anna", "s3cret@")
    assert (proxy.address, proxy.place) == (PROXY, f"{PROXY} (HTTPS_PROXY)")
    for shown in (repr(network), explain(OSError(111, "x"), proxy), repr(dataclasses.replace(network, direct=("a",)))):
        assert "s3cret" not in shown


def test_a_file_without_certificates_is_said_and_takes_no_trust_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = tmp_path / "none.pem"
    nothing.write_text("no certificate\n")
    with caplog.at_level(logging.WARNING):
        kept = Network(cert_file=str(nothing), cert_dir=str(tmp_path / "away")).certificates()
    assert kept == Network().certificates()
    assert "BEGIN CERTIFICATE" in kept
    assert str(nothing) in caplog.text
    assert str(tmp_path / "away") in caplog.text
