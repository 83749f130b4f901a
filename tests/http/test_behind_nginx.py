"""The real server behind a real nginx with TLS, as people set it up: well, and not so well."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.network.corporate import Authority

pytestmark = [pytest.mark.nginx, pytest.mark.processes]
NAME = "flags.example"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

CONFIGURATION = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    ssl_certificate {ca}/{name}.pem; ssl_certificate_key {ca}/{name}.key;
    upstream rollout {{ server 127.0.0.1:{behind}; keepalive 4; }}
    proxy_http_version 1.1; proxy_set_header Connection "";
    # as the documentation says
    server {{ listen 127.0.0.1:{good} ssl; location / {{
        proxy_pass http://rollout; proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-For $remote_addr; }} }}
    # without the port
    server {{ listen 127.0.0.1:{portless} ssl; location / {{
        proxy_pass http://rollout; proxy_set_header Host $host; proxy_set_header X-Forwarded-Proto $scheme; }} }}
    # the Host header is replaced, and said beside
    server {{ listen 127.0.0.1:{replaced} ssl; location / {{
        proxy_pass http://rollout; proxy_set_header Host 127.0.0.1:{behind};
        proxy_set_header Forwarded 'for="[2001:db8::1]:4711";proto=$scheme;host="$http_host"'; }} }}
    # a proxy that signs people in, with a token of its own
    server {{ listen 127.0.0.1:{single} ssl; location / {{
        proxy_pass http://rollout; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header Authorization $http_x_sso; }} }}
    # below a path, with and without saying so
    server {{ listen 127.0.0.1:{below} ssl;
        location /rollout/ {{ proxy_pass http://rollout/; proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Prefix /rollout; }}
        location /plain/ {{ proxy_pass http://rollout; proxy_set_header Host $http_host; }} }}
}}
"""


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Site:
    """A server, nginx before it, and a sign-in code; `ports` names nginx's servers."""

    behind: int
    ports: dict[str, int]
    trusts: ssl.SSLContext
    environ: dict[str, str]

    def origin(self, server: str) -> str:
        return f"https://{NAME}:{self.ports[server]}"

    def browser(self, server: str) -> httpx.Client:
        """Return a client that finds the name on this machine, as a browser would by DNS."""
        return httpx.Client(transport=_Here(self.trusts), base_url=self.origin(server), trust_env=False)

    def code(self) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "rollout", "sign-in", "--json"],
            env=self.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return str(re.findall(r"#code=([\w-]+)", done.stdout)[0])


class _Here(httpx.HTTPTransport):
    def __init__(self, trusts: ssl.SSLContext) -> None:
        super().__init__(verify=trusts)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return super().handle_request(
            httpx.Request(
                request.method,
                request.url.copy_with(host="127.0.0.1"),
                headers=request.headers,  # with the Host header it has
                stream=request.stream,
                extensions=request.extensions | {"sni_hostname": NAME},
            )
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    authority = Authority.made(folder / "ca")
    authority.context_for(NAME)
    behind, ports = a_free_port(), {name: a_free_port() for name in ("good", "portless", "replaced", "single", "below")}
    environ = {
        "PATH": os.environ["PATH"],
        "ROLLOUT_DATA_DIR": str(folder / "data"),
        "ROLLOUT_PORT": str(behind),
        "ROLLOUT_ALLOWED_HOSTS": NAME,
        "ROLLOUT_TRUSTED_PROXIES": "127.0.0.1, 192.0.2.0/24",
        "OPENROUTER_BASE_URL": "http://127.0.0.1:9/api/v1",
        "LITELLM_BASE_URL": "http://127.0.0.1:9",
    }
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=folder, ca=folder / "ca", name=NAME, behind=behind, **ports))
    server = subprocess.Popen([sys.executable, "-m", "rollout", "serve", "--json"], env=environ, stdout=subprocess.PIPE)
    nginx = subprocess.Popen([NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(file)])
    try:
        assert server.stdout is not None
        json.loads(server.stdout.readline())  # it listens
        found = Site(behind, ports, ssl.create_default_context(cafile=authority.file), environ)
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", ports["good"]), 1).close()
                break
            except OSError:
                assert time.monotonic() < until, (folder / "error.log").read_text()
                time.sleep(0.05)
        yield found
    finally:
        nginx.send_signal(signal.SIGQUIT)
        server.terminate()
        nginx.wait(20)
        server.communicate(timeout=30)


def signed_in(site: Site, browser: httpx.Client, server: str, **headers: str) -> httpx.Response:
    origin = {"Origin": site.origin(server), **headers}
    answer = browser.post("/sign-in", data={"code": site.code()}, headers=origin)
    assert answer.status_code == 303, answer.text
    return answer


def csrf_of(page: str) -> str:
    return str(re.findall(r'name="csrf" value="([^"]+)"', page)[0])


@pytest.mark.parametrize("server", ["good", "portless", "replaced"])
def test_signing_in_and_a_change_work_behind_nginx_and_the_cookie_is_secure(site: Site, server: str) -> None:
    with site.browser(server) as browser:
        cookie = signed_in(site, browser, server).headers["set-cookie"]
        assert "secure" in cookie.lower()
        page = browser.get("/flags/enableLiteLLM")
        assert page.status_code == 200, page.text
        form = {"csrf": csrf_of(page.text), "reason": "tried"}
        stopped = browser.post("/flags/enableLiteLLM/kill", data=form, headers={"Origin": site.origin(server)})
        assert stopped.status_code in {200, 303}, stopped.text


def test_links_name_the_host_and_the_scheme_of_the_browser(site: Site) -> None:
    with site.browser("good") as browser:
        signed_in(site, browser, "good")
        assert f"{site.origin('good')}/v1" in browser.get("/connect").text


def test_a_slash_too_many_leads_nowhere_and_never_to_http(site: Site) -> None:
    with site.browser("good") as browser:
        signed_in(site, browser, "good")
        for path in ("/audit/", "/connect/", "/api/v1/flags/"):
            answer = browser.get(path)
            assert answer.status_code == 404
            assert "location" not in answer.headers


def test_a_page_without_a_referrer_is_known_by_what_the_browser_says_of_it(site: Site) -> None:
    with site.browser("good") as browser:
        signed_in(site, browser, "good", Origin="null", **{"Sec-Fetch-Site": "same-origin"})
        for site_said in ("cross-site", "same-site", None):
            said = {"Sec-Fetch-Site": site_said} if site_said else {}
            refused = browser.post("/sign-in", data={"code": "x"}, headers={"Origin": "null", **said})
            assert refused.status_code == 403
            assert "That did not come from these pages" in refused.text
            assert "role" not in refused.text.lower().replace('role="', "")
            assert NAME in refused.text


@pytest.mark.parametrize("sso", ["Basic YW5uYTpwdw==", "Bearer eyJhbGciOiJub25lIn0.e30.", "Negotiate abc"])
def test_a_proxy_s_own_authorization_beside_a_good_cookie_is_left_aside(site: Site, sso: str) -> None:
    with site.browser("single") as browser:
        browser.headers["X-SSO"] = sso
        signed_in(site, browser, "single")
        page = browser.get("/flags/enableLiteLLM")
        assert page.status_code == 200
        form = {"csrf": csrf_of(page.text), "reason": "tried"}
        assert browser.post("/flags/enableLiteLLM/restore", data=form).status_code in {200, 303}
        browser.headers["X-SSO"] = "Bearer rollout_revoked"
        assert browser.get("/api/v1/flags").status_code == 401


def test_below_a_path_the_refusal_says_that_a_host_is_needed(site: Site) -> None:
    with site.browser("below") as browser:
        refused = browser.get("/rollout/flags/enableLiteLLM")
        assert refused.status_code == 421
        assert refused.json()["title"] == "These pages need a host of their own"
        assert "'rollout'" in refused.json()["detail"]
        lost = browser.get("/plain/livez", headers={"Accept": "application/json"})
        assert lost.status_code == 404
        assert "below a path" in lost.text


@pytest.mark.parametrize(("address", "believed"), [("127.0.0.1", True), ("127.0.0.2", False)])
def test_what_is_said_of_a_connection_is_believed_from_named_addresses_alone(
    site: Site, address: str, believed: bool
) -> None:
    transport = httpx.HTTPTransport(local_address=address)
    with httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{site.behind}") as stranger:
        said = {"X-Forwarded-Proto": "https", "Origin": f"http://127.0.0.1:{site.behind}"}
        cookie = stranger.post("/sign-in", data={"code": site.code()}, headers=said).headers["set-cookie"]
        assert ("secure" in cookie.lower()) is believed
        answer = stranger.get("/sign-in", headers={"X-Forwarded-Host": "evil.example"})
        assert answer.status_code == (421 if believed else 200)
        assert answer.status_code == 200 or "'evil.example'" in answer.json()["detail"]
        assert "127.0.0.1" in answer.text or answer.status_code == 200


def test_an_idle_connection_outlives_the_five_seconds_of_before(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.behind), 10) as connection:
        for pause in (6.0, 0.0):
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: 10.1.2.3:8080\r\n\r\n")
            assert b" 200 " in connection.recv(4096)
            time.sleep(pause)
