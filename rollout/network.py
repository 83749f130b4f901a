"""How this process reaches other hosts: through which proxy, trusting which certificates, and why it could not.

Everything that connects reads the environment here, so that a path that was proved is the path that is taken:

    HTTPS_PROXY, HTTP_PROXY, ALL_PROXY   in any case; lower case beats upper case, a scheme's own beats ALL_PROXY
    NO_PROXY                             names and their subdomains, addresses, networks, each with or without a
                                         port; `*` for every host
    SSL_CERT_FILE, SSL_CERT_DIR          certificates that are trusted beside the system's own

Loopback is always reached directly. A proxy's credentials never appear in a message.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from ssl import SSLContext  # imported when something connects, so that importing the client stays quick

log = logging.getLogger(__name__)

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's X509_V_ERR_* of a certificate whose issuer is not known; other faults no certificate of ours puts right."""


class ProxyUnusable(Exception):
    """The proxy that the environment names cannot be used; the message names the variable."""


class Proxy(NamedTuple):
    """A proxy as a variable names it: `url` may hold credentials, `variable` is the variable's name."""

    url: str
    variable: str

    @property
    def place(self) -> str:
        """Say which proxy it is, without credentials."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} ({self.variable})"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """The user and password for the proxy, None if it needs none."""
        parts = urlsplit(self.url)
        return None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))

    @property
    def address(self) -> str:
        """The proxy's URL without credentials."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def problem(self) -> str | None:
        """Why the proxy cannot be used, None if it can."""
        try:
            parts = urlsplit(self.url)
            readable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            readable = False
        if not readable:
            return f"{self.variable} is no address of a proxy; write http://host:port"
        if parts.scheme not in _DEFAULT_PORTS:
            return f"{self.variable} names a proxy that speaks {parts.scheme[:20]!r}; only http and https proxies work"
        return None


@dataclass(frozen=True, slots=True)
class Network:
    """What the environment says about connecting. Holds proxies' credentials, so its `repr` hides them.

    Attributes:
        http: The proxy for `http` URLs.
        https: The proxy for `https` URLs.
        direct: What NO_PROXY lists, in lower case.
        cert_file: A file of certificates that are trusted beside the system's.
        cert_dir: Directories of such files, separated as in PATH.
    """

    http: Proxy | None = field(default=None, repr=False)
    https: Proxy | None = field(default=None, repr=False)
    direct: tuple[str, ...] = ()
    cert_file: str | None = None
    cert_dir: str | None = None

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy that a URL is reached through, None if it is reached directly."""
        if self.http is None and self.https is None:
            return None
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), _port_of(parts)
        except ValueError:
            return None  # whatever sends it says what is wrong with the URL
        proxy = self.https if parts.scheme == "https" else self.http
        return None if proxy is None or is_loopback(host) or self._is_direct(host, port) else proxy

    def tls(self) -> SSLContext:
        """Return what TLS connections trust; made once per process."""
        return _context(self.cert_file, self.cert_dir)

    def certificates(self) -> str:
        """Return every certificate that is trusted, as PEM, for a program that reads one file."""
        return "\n".join(_trusted(self.cert_file, self.cert_dir)) + "\n"

    def httpx_options(self, url: str) -> dict[str, Any]:
        """Return the arguments that make an `httpx` client reach `url` the way everything else does.

        A proxy that cannot be used fails each request and says why; nothing goes past it.
        """
        import httpx

        proxy = self.proxy_for(url)
        # nothing of TLS is loaded for a plain connection
        verify = self.tls() if "https" in (urlsplit(url).scheme, proxy and urlsplit(proxy.url).scheme) else False
        if proxy is None:
            return {"trust_env": False, "verify": verify}
        if proxy.problem is not None:
            return {"trust_env": False, "verify": verify, "transport": _refusing(proxy.problem)}
        context = self.tls() if proxy.url.startswith("https:") else None
        through = httpx.Proxy(proxy.address, auth=proxy.credentials, ssl_context=context)
        return {"trust_env": False, "verify": verify, "proxy": through}

    def _is_direct(self, host: str, port: int | None) -> bool:
        return any(_matches(entry, host, port) for entry in self.direct)


DIRECT: Final = Network()
"""No proxy, and the system's certificates alone."""


def read_network(environ: Mapping[str, str]) -> Network:
    """Read how to connect; pure, and what cannot be used is said when something connects through it."""
    named: dict[str, tuple[str, str]] = {}
    for name in sorted(environ):  # upper case sorts before lower case, which therefore stands
        if name.lower() in {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}:
            named[name.lower()] = (name, environ[name].strip())
    if "REQUEST_METHOD" in environ and named.get("http_proxy", ("", ""))[0] != "http_proxy":
        named.pop("http_proxy", None)  # under CGI a caller's `Proxy` header arrives as HTTP_PROXY

    def proxy(scheme: str) -> Proxy | None:
        for key in (f"{scheme}_proxy", "all_proxy"):
            name, value = named.get(key, ("", ""))
            if name and not value and key != "all_proxy":
                return None  # set and empty: no proxy for this scheme
            if value:
                return Proxy(value if "://" in value else f"http://{value}", name)
        return None

    listed = named.get("no_proxy", ("", ""))[1].lower().replace(",", " ").split()
    return Network(
        http=proxy("http"),
        https=proxy("https"),
        direct=tuple(listed),
        cert_file=environ.get("SSL_CERT_FILE", "").strip() or None,
        cert_dir=environ.get("SSL_CERT_DIR", "").strip() or None,
    )


def is_loopback(host: str) -> bool:
    """Tell whether a host, as it stands in a URL without brackets, is this machine itself."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def explain(error: BaseException, proxy: Proxy | None = None) -> str:
    """Say why a connection failed, in words that hold nothing of what was sent and no credentials.

    Args:
        error: what the HTTP library raised.
        proxy: what the connection went through.
    """
    usable = proxy is not None and proxy.problem is None
    return f"through the proxy {proxy.place}: {_why(error)}" if proxy is not None and usable else _why(error)


def is_refused_by_proxy(error: BaseException) -> bool:
    """Tell whether a proxy turned a request away before the other side saw any of it."""
    return type(error).__name__ in {"ProxyError", "ClientHttpProxyError"}


def _why(error: BaseException) -> str:
    import socket
    import ssl

    # what our own transport says stands behind an error of httpx that looks like a proxy's refusal
    causes = sorted(_causes(error), key=lambda cause: not isinstance(cause, ProxyUnusable))
    for cause in causes:
        if isinstance(cause, ProxyUnusable):
            return str(cause)
        # aiohttp's own errors are of these classes too, and say nothing themselves
        if isinstance(cause, ssl.SSLCertVerificationError) and (said := getattr(cause, "verify_message", None)):
            if cause.verify_code not in _UNKNOWN_ISSUER:
                return f"its certificate is not trusted ({said})"
            return f"its certificate is not trusted ({said}); put a CA of your own into SSL_CERT_FILE"
        if isinstance(cause, ssl.SSLError) and (said := getattr(cause, "reason", None)):
            return f"TLS failed ({said.replace('_', ' ').lower()})"
        if isinstance(cause, socket.gaierror):
            return "its name was not found"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        if is_refused_by_proxy(cause):
            return f"the proxy refused ({_status_of(cause)})"
    system = (cause.strerror for cause in reversed(causes) if isinstance(cause, OSError) and cause.errno)
    return next(filter(None, system), type(error).__name__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came from, each once, the members of groups too."""
    waiting, seen = [error], set[int]()
    while waiting:
        found = waiting.pop(0)
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        # the context too where it is suppressed: httpcore raises `from None` what says why in its context alone
        waiting += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions


def _status_of(error: BaseException) -> str:
    # the status alone: the phrase beside it is the proxy's own text
    status = getattr(error, "status", None) or str(error)[:3]
    try:
        known = HTTPStatus(int(status))
    except ValueError:
        return "no answer that can be read"
    return f"{known.value} {known.phrase}"


def _port_of(parts: SplitResult) -> int | None:
    return parts.port or _DEFAULT_PORTS.get(parts.scheme)


def _matches(entry: str, host: str, port: int | None) -> bool:
    import ipaddress

    if entry == "*":
        return True
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isdigit() and (":" not in name or name.endswith("]")):
        if int(digits) != port:
            return False
        entry = name
    entry = entry.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = entry.lstrip("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _refusing(problem: str) -> Any:
    """Return a transport for both kinds of client that fails each request with the problem."""
    import httpx

    class Refusing(httpx.BaseTransport, httpx.AsyncBaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ProxyError(problem, request=request) from ProxyUnusable(problem)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return self.handle_request(request)

    return Refusing()


@lru_cache(maxsize=8)
def _context(cert_file: str | None, cert_dir: str | None) -> SSLContext:
    import ssl

    context = ssl.create_default_context()
    for certificate in _trusted(cert_file, cert_dir):
        try:
            context.load_verify_locations(cadata=certificate)
        except ssl.SSLError:  # one that cannot be read does not take the others with it
            log.debug("a certificate of the store cannot be read and is left aside")
    return context


@lru_cache(maxsize=8)
def _trusted(cert_file: str | None, cert_dir: str | None) -> tuple[str, ...]:
    """Return the system's certificates and those of the environment; httpx's own only if the system has none."""
    import os
    import ssl

    # by what OpenSSL was built with: what `ssl` would read itself, the two variables replace
    paths = ssl.get_default_verify_paths()
    found = [*_in_file(paths.openssl_cafile), *_in_folder(paths.openssl_capath)]
    if not found:
        import certifi

        found += _in_file(certifi.where())
    if cert_file is not None:
        ours = _in_file(cert_file)
        found += ours
        if not ours:
            log.warning("SSL_CERT_FILE names %r, which holds no certificate that can be read", cert_file)
    for folder in (cert_dir or "").split(os.pathsep):
        if folder:
            ours = _in_folder(folder)
            found += ours
            if not ours:
                log.warning("SSL_CERT_DIR names %r, which holds no certificate that can be read", folder)
    return tuple(dict.fromkeys(found))


def _in_file(file: str | Path) -> list[str]:
    try:
        text = Path(file).read_text("ascii", "replace")
    except OSError:
        return []
    parts = text.split(_BEGIN)[1:]
    return [f"{_BEGIN}{part.partition(_END)[0]}{_END}" for part in parts if _END in part]


def _in_folder(folder: str | Path) -> list[str]:
    try:
        files = sorted(each for each in Path(folder).iterdir() if each.is_file())
    except OSError:
        return []
    return [certificate for file in files for certificate in _in_file(file)]
