"""Everything that connects takes the same way and trusts the same certificates, and says the same where it cannot.

Behind a real proxy: the names of the hosts lead nowhere but through it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rollout import RolloutClient
from rollout.client.status import State
from rollout.dispatch.paths import Call
from rollout.dispatch.senders.async_aiohttp import AiohttpSender
from rollout.dispatch.senders.async_httpx import AsyncHttpxSender
from rollout.dispatch.senders.seam import AsyncSender, SendFault
from rollout.dispatch.senders.sync_httpx import HttpxSender
from rollout.domain.failure import FailureKind
from rollout.gateway.plan import GatewayPlan, Pace, litellm_environment
from rollout.gateway.state import GatewayState
from rollout.gateway.upstream import UpstreamPhase, UpstreamWatch
from rollout.gateway.watch import ExternalGateway
from rollout.network import Network, read_network
from tests.network.corporate import Authority, Forwarder, Host, standing

NAME = "upstream.corporate.example"
URL = f"https://{NAME}/api/v1"
ANOTHER = "another.corporate.example"
"""Leads to the same host, whose certificate does not hold this name."""
PLAIN = "plain.corporate.example"
SECRET = "s3cret"
BODY = b'{"model": "a/b:free"}'


@dataclass
class Company:
    """The proxy, the host behind it, and the environment of those who know both."""

    proxy: Forwarder
    host: Host
    plain: Host
    authority: Authority

    @property
    def environ(self) -> dict[str, str]:
        proxy = f"http://anna:{SECRET}@127.0.0.1:{self.proxy.port}"
        return {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy, "SSL_CERT_FILE": str(self.authority.file)}

    def without(self, *names: str) -> dict[str, str]:
        return {name: value for name, value in self.environ.items() if name not in names}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.made(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def company(authority: Authority) -> Iterator[Company]:
    proxy, host, plain = Forwarder(credentials=f"anna:{SECRET}"), Host(), Host()
    with standing((proxy, None), (host, authority.context_for(NAME)), (plain, None)):
        proxy.known = {
            f"{NAME}:443": host.port,
            f"{ANOTHER}:443": host.port,
            PLAIN: plain.port,
            "localhost:443": host.port,
        }
        yield Company(proxy, host, plain, authority)


def a_call(url: str) -> Call:
    return Call(url, {"Content-Type": "application/json", "Accept-Encoding": "identity"}, BODY)


def by_httpx(network: Network, url: str) -> tuple[int, bytes]:
    sender = HttpxSender(network=network)
    try:
        opened = sender.open(a_call(url), time.monotonic() + 20)
        return opened.status, opened.read(time.monotonic() + 20)
    finally:
        sender.close()


def asynchronously(make: Callable[[Network], AsyncSender]) -> Callable[[Network, str], tuple[int, bytes]]:
    async def send(network: Network, url: str) -> tuple[int, bytes]:
        sender = make(network)
        try:
            async with asyncio.timeout(20):
                opened = await sender.open(a_call(url))
                body = await opened.read()
            await opened.close()
            return opened.status, body
        finally:
            await sender.aclose()

    return lambda network, url: asyncio.run(send(network, url))


SENDERS = {
    "sync": by_httpx,
    "async_httpx": asynchronously(AsyncHttpxSender),
    "aiohttp": asynchronously(AiohttpSender),
}
every_sender = pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)


def fault(send: Callable[[Network, str], object], environ: dict[str, str], url: str = URL) -> SendFault:
    with pytest.raises(SendFault) as caught:
        send(read_network(environ), url)
    assert SECRET not in caught.value.detail
    assert caught.value.kind is FailureKind.UNREACHABLE
    assert not caught.value.sent
    return caught.value


@every_sender
def test_a_request_passes_the_proxy_and_trusts_the_company_s_certificate(
    company: Company, send: Callable[[Network, str], tuple[int, bytes]]
) -> None:
    assert send(read_network(company.environ), f"{URL}/models") == (200, company.host.body)
    assert company.proxy.seen == [f"CONNECT {NAME}:443 HTTP/1.1"]
    assert company.host.seen == ["POST /api/v1/models HTTP/1.1"]


@every_sender
def test_a_plain_request_passes_the_proxy_in_its_absolute_form(
    company: Company, send: Callable[[Network, str], tuple[int, bytes]]
) -> None:
    assert send(read_network(company.environ), f"http://{PLAIN}/v1")[0] == 200
    assert company.proxy.seen == [f"POST http://{PLAIN}/v1 HTTP/1.1"]


@every_sender
def test_loopback_and_what_no_proxy_lists_go_past_the_proxy(
    company: Company, send: Callable[[Network, str], tuple[int, bytes]]
) -> None:
    assert send(read_network(company.environ), f"https://localhost:{company.host.port}/v1")[0] == 200
    assert "its name was not found" in fault(send, company.environ | {"NO_PROXY": ".corporate.example"}).detail
    assert company.proxy.seen == []


@every_sender
def test_a_certificate_that_is_not_trusted_is_said_to_be_one(
    company: Company, send: Callable[[Network, str], object]
) -> None:
    said = fault(send, company.without("SSL_CERT_FILE")).detail
    assert "its certificate is not trusted" in said
    assert "SSL_CERT_FILE" in said


@every_sender
def test_a_certificate_for_another_name_is_said_without_useless_advice(
    company: Company, send: Callable[[Network, str], object]
) -> None:
    said = fault(send, company.environ, f"https://{ANOTHER}/api/v1").detail
    assert "its certificate is not trusted" in said
    assert "mismatch" in said
    assert "SSL_CERT_FILE" not in said


@every_sender
def test_certificates_in_a_folder_are_trusted_too(
    company: Company, send: Callable[[Network, str], tuple[int, bytes]], tmp_path: Path
) -> None:
    (tmp_path / "our-ca.crt").write_bytes(company.authority.file.read_bytes())
    environ = company.without("SSL_CERT_FILE") | {"SSL_CERT_DIR": str(tmp_path)}
    assert send(read_network(environ), f"{URL}/models")[0] == 200


@every_sender
def test_a_proxy_that_refuses_is_said_to(company: Company, send: Callable[[Network, str], object]) -> None:
    place = f"http://127.0.0.1:{company.proxy.port} (HTTPS_PROXY)"
    wrong = {"HTTPS_PROXY": f"http://127.0.0.1:{company.proxy.port}"}
    said = f"through the proxy {place}: the proxy refused (407 Proxy Authentication Required)"
    assert said in fault(send, wrong).detail
    company.proxy.status = 403
    assert "the proxy refused (403 Forbidden)" in fault(send, company.environ).detail


@every_sender
def test_a_proxy_that_is_not_there_and_one_without_a_name_are_told_apart(
    send: Callable[[Network, str], object],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        away = {"HTTPS_PROXY": f"http://anna:{SECRET}@127.0.0.1:{taken.getsockname()[1]}"}
        said = fault(send, away).detail
    assert "through the proxy" in said
    assert "connection refused" in said
    assert "its name was not found" in fault(send, {"HTTPS_PROXY": "http://no-proxy.invalid:3128"}).detail


@every_sender
def test_a_proxy_that_cannot_be_used_is_not_gone_past(send: Callable[[Network, str], object]) -> None:
    said = fault(send, {"ALL_PROXY": f"socks5://anna:{SECRET}@127.0.0.1:1080"}).detail
    assert "ALL_PROXY names a proxy that speaks 'socks5'; only http and https proxies work" in said


@every_sender
def test_without_a_proxy_the_reason_is_said_alike(company: Company, send: Callable[[Network, str], object]) -> None:
    assert "its name was not found" in fault(send, {}, "https://nobody.invalid/v1").detail
    untrusted = fault(send, {}, f"https://127.0.0.1:{company.host.port}/v1").detail
    assert "its certificate is not trusted" in untrusted
    assert "TLS failed" in fault(send, {}, f"https://127.0.0.1:{company.plain.port}/v1").detail
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert "connection refused" in fault(send, {}, f"http://127.0.0.1:{taken.getsockname()[1]}/v1").detail


async def asked(environ: dict[str, str]) -> tuple[UpstreamPhase, str]:
    watch = UpstreamWatch(URL, None, simulated=False, network=read_network(environ))
    async with watch.client() as http:
        state = await watch.check(http)
    return state.phase, state.detail


async def test_the_upstream_is_asked_the_way_the_direct_path_goes(company: Company) -> None:
    assert (await asked(company.environ))[0] is UpstreamPhase.KEY_MISSING  # it answered
    for environ, why in [
        ({}, "its name was not found"),
        (company.without("SSL_CERT_FILE"), "its certificate is not trusted"),
        (company.environ | {"HTTPS_PROXY": f"http://127.0.0.1:{company.proxy.port}"}, "the proxy refused (407"),
        ({"HTTPS_PROXY": "socks5://127.0.0.1:1"}, "HTTPS_PROXY names a proxy that speaks 'socks5'"),
    ]:
        phase, said = await asked(environ)
        assert phase is UpstreamPhase.UNREACHABLE
        assert why in said
        assert SECRET not in said


async def heard(environ: dict[str, str], url: str) -> GatewayState:
    """Return the first that a gateway of somebody else's says, or does not say."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[GatewayState] = loop.create_future()

    def on_change(state: GatewayState) -> None:
        if (state.answering or state.last_error) and not first.done():
            first.set_result(state)

    gateway = ExternalGateway(
        url,
        clock=time.time,
        sleep=asyncio.sleep,
        on_change=on_change,
        pace=Pace(look=0.01),
        network=read_network(environ),
    )
    running = asyncio.create_task(gateway.run())
    try:
        return await asyncio.wait_for(first, 20)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_gateway_elsewhere_is_asked_the_same_way_and_its_silence_has_a_reason(company: Company) -> None:
    assert (await heard(company.environ, f"https://{NAME}")).answering
    silent = await heard(company.without("SSL_CERT_FILE"), f"https://{NAME}")
    assert "its certificate is not trusted" in silent.detail
    assert SECRET not in silent.detail


def test_an_application_follows_a_control_plane_behind_the_proxy(company: Company, tmp_path: Path) -> None:
    body = {
        "schema": 1,
        "installation": "0123456789abcdef",
        "revision": 1,
        "digest": "0" * 64,
        "at": "2026-11-25T00:00:00Z",
        "cascade": [],
        "flags": {},
    }
    company.host.body = json.dumps(body).encode()
    environ = company.environ | {"ROLLOUT_DATA_DIR": str(tmp_path)}
    with RolloutClient(f"https://{NAME}", "t", environ=environ) as client:
        client.start()
        until = time.monotonic() + 20
        while not company.host.seen and time.monotonic() < until:
            time.sleep(0.01)
        assert company.host.seen[0] == "GET /api/v1/snapshot HTTP/1.1"
    environ = company.without("SSL_CERT_FILE") | {"ROLLOUT_DATA_DIR": str(tmp_path)}
    with RolloutClient(f"https://{NAME}", "t", environ=environ) as client:
        client.start()
        while not client.status().problems and time.monotonic() < until:
            time.sleep(0.01)
        (problem,) = client.status().problems
        assert client.status().state is not State.LOCAL
    assert "cannot be reached (through the proxy" in problem
    assert "its certificate is not trusted" in problem
    assert SECRET not in problem


def test_a_command_reaches_its_server_through_the_proxy(company: Company) -> None:
    company.host.body = json.dumps({"flags": []}).encode()
    environ = company.environ | {
        "PATH": "/usr/bin:/bin",
        "ROLLOUT_URL": f"https://{NAME}",
        "ROLLOUT_TOKEN": "rollout_x",
    }
    command = [sys.executable, "-m", "rollout", "flags", "list"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert company.host.seen == ["GET /api/v1/flags HTTP/1.1"]
    environ.pop("SSL_CERT_FILE")
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "its certificate is not trusted" in done.stderr
    assert SECRET not in done.stderr


def a_plan(folder: Path, url: str) -> GatewayPlan:
    return GatewayPlan(
        environment=folder / "environment",
        lock=folder / "lock",
        folder=folder,
        upstream_base_url=url,
        upstream_key="k",
        master_key="m",
    )


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({"ALL_PROXY": "proxy:1"}, "https://o.example", {"HTTPS_PROXY": "http://proxy:1"}),
        ({"Https_Proxy": "http://proxy:1"}, "https://o.example", {"HTTPS_PROXY": "http://proxy:1"}),
        ({"HTTP_PROXY": "http://proxy:1"}, "https://o.example", {}),
        ({"ALL_PROXY": "http://proxy:1", "NO_PROXY": "10.0.0.0/8"}, "https://10.1.1.1/v1", {}),
        ({"ALL_PROXY": "http://proxy:1"}, "http://127.0.0.1:9000", {}),
    ],
)
def test_litellm_takes_the_way_of_the_direct_path(
    environ: dict[str, str], url: str, expected: dict[str, str], tmp_path: Path
) -> None:
    told = litellm_environment(a_plan(tmp_path, url), environ)
    proxies = {name: value for name, value in told.items() if name in {"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"}}
    assert proxies == expected
    assert {told[name.lower()] for name in expected} == set(expected.values())
    listed = told["NO_PROXY"].split(",")
    assert told["no_proxy"] == told["NO_PROXY"]
    assert {"127.0.0.1", "localhost", "::1"} <= set(listed)
    # as LiteLLM itself reads it, by urllib, which knows no networks
    assert expected or "NO_PROXY" not in environ or "10.1.1.1" in listed


def test_litellm_trusts_what_the_direct_path_trusts(company: Company, tmp_path: Path) -> None:
    told = litellm_environment(a_plan(tmp_path, URL), company.environ)
    assert told["SSL_CERT_FILE"] == told["REQUESTS_CA_BUNDLE"] == str(tmp_path / "litellm-ca.pem")
    written = read_network(company.environ).certificates()
    assert company.authority.file.read_text().strip() in written
    assert Network().certificates().strip() in written
    assert "SSL_CERT_FILE" not in litellm_environment(a_plan(tmp_path, "http://127.0.0.1:1/v1"), company.environ)


def test_a_client_of_httpx_fails_a_request_where_its_proxy_cannot_be_used() -> None:
    options = read_network({"ALL_PROXY": "socks4://x:1"}).httpx_options(URL)
    with httpx.Client(**options) as http, pytest.raises(httpx.ProxyError, match="socks4"):
        http.get(URL)
