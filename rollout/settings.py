"""Read a mapping, usually the process's environment, into frozen settings: pure, every problem at once.

Empty means unset. A switch reads 1/true/yes/on and 0/false/no/off in any case. What cannot be read is
reported, never guessed: a `Problem` names the variable and what stands instead. Secrets are kept out of
`repr` and out of every problem.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from rollout.network import DIRECT, Network, read_network

DEFAULT_OPENROUTER: Final = "https://openrouter.ai/api/v1"
DEFAULT_LITELLM_PORT: Final = 4000

DATA_DIR: Final = "ROLLOUT_DATA_DIR"
KILL_FILE: Final = "ROLLOUT_KILL_FILE"

_SECRETS_AND_NAMES: Final = (
    "OPENROUTER_API_KEY",
    "LITELLM_MASTER_KEY",
    "ROLLOUT_TOKEN",
    "ROLLOUT_SALT",
    "ROLLOUT_DATABASE_URL",
    "ROLLOUT_HOST",
    "ROLLOUT_ALLOWED_HOSTS",
)
"""What is taken as it is written; of most of them nothing may be shown."""

_T = TypeVar("_T")
_YES: Final = frozenset({"1", "true", "yes", "on"})
_HOST: Final = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NO: Final = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Problem:
    """A variable that could not be read, and what that leads to."""

    variable: str
    message: str

    def __str__(self) -> str:
        return f"{self.variable} {self.message}"


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Where the two paths lead, and within which limits. Base URLs carry no trailing slash; timeouts are in seconds.

    `litellm_url` ends before `/v1`; `openrouter_url` includes its `/api/v1`. The free requests are the account's;
    0 is no limit of ours, None is asked from the upstream. `network` says through which proxy they are reached.
    """

    openrouter_url: str = DEFAULT_OPENROUTER
    openrouter_key: str | None = field(default=None, repr=False)
    litellm_url: str = f"http://127.0.0.1:{DEFAULT_LITELLM_PORT}"
    litellm_key: str | None = field(default=None, repr=False)
    total_timeout: float = 120.0
    attempt_timeout: float = 60.0
    first_token_timeout: float = 20.0
    stall_timeout: float = 15.0
    allow_paid: bool = False
    free_requests_per_minute: int = 20
    free_requests_per_day: int | None = None
    network: Network = DIRECT


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the environment says, but the overrides of the flag (see `rollout.client.environment`).

    `litellm_url` and `openrouter_url` in `upstreams` are defaults where the variables are unset;
    `litellm_is_ours` and `openrouter_given` say which, and `port_given` and `kill_file_given` the same of `port` and
    `kill_file`. `problems` lists what could not be read, `notes` what somebody else than a person set and is left
    aside.
    """

    upstreams: Upstreams = field(default_factory=Upstreams)
    openrouter_given: bool = False
    litellm_is_ours: bool = True
    litellm_port: int = DEFAULT_LITELLM_PORT
    url: str | None = None
    token: str | None = field(default=None, repr=False)
    salt: str | None = None
    database_url: str | None = field(default=None, repr=False)
    data_dir: Path = Path("data")
    host: str = "127.0.0.1"
    port: int = 8080
    port_given: bool = False
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    cors_origins: tuple[str, ...] = ()
    kill_file: Path = Path("data/kill")
    kill_file_given: bool = False
    problems: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()


def read_switch(text: str) -> bool | None:
    """Read a switch; None where the text is neither yes nor no."""
    word = text.strip().lower()
    return True if word in _YES else False if word in _NO else None


def given(environ: Mapping[str, str], name: str) -> str | None:
    """Return a variable's value trimmed; None where it is unset or empty."""
    return environ.get(name, "").strip() or None


_QUOTES: Final = "\"'`\u201c\u201d\u201e\u201a\u2018\u2019\u00ab\u00bb"
_VARIABLE: Final = re.compile(r"\$|%\w+%|\{|\}|@\w+@")
_PATTERN: Final = re.compile(r"[*?<>|\[\]]")
_ASSIGNMENT: Final = re.compile(r"(?:export|set)\s|[A-Z]+_\w*\s*=")
_NO_PLACES: Final = frozenset({"-", "none", "null", "nil", "undefined", "false", "true"})
_NOTHING_AFTER: Final = (";", ",", ":")


def why_quoted(text: str) -> str | None:
    """Say what is wrong with a value that an env file left in its quotation marks; None where nothing is."""
    if text and (text[0] in _QUOTES or text[-1] in _QUOTES):
        return "begins or ends with a quotation mark, which some env files keep; write it without"
    return None


def why_commented(text: str) -> str | None:
    """Say what is wrong with a value that an env file left its comment in; None if nothing is."""
    if re.search(r"\s#", text):
        return "holds a comment, which some env files keep; write it without"
    return None


def why_assigned(text: str) -> str | None:
    """Say what is wrong with a value that repeats a variable's name; None if nothing is."""
    if _ASSIGNMENT.match(text):
        return "begins with the name of a variable; write the value alone"
    return None


def why_no_path(text: str) -> str | None:
    """Say why a path cannot be meant as it stands; None where it can.

    Nobody expands `~` and `$HOME` in an env file, so they would name a place that is never looked at. The same holds
    for what a template, a shell or a list leaves in it.
    """
    for check in (why_quoted, why_commented, why_assigned):
        if (why := check(text)) is not None:
            return why
    if text.startswith("~"):
        return "begins with ~, which only a shell expands; write the whole path"
    if _VARIABLE.search(text):
        return "holds a variable, which only a shell or a template expands; write the whole path"
    if "://" in text or text.lower().startswith("file:"):
        return "is a URL; write a path"
    if _PATTERN.search(text):
        return "holds a pattern or a placeholder; write the whole path"
    if text.lower() in _NO_PLACES or read_switch(text) is not None:
        return "is a word and no path; write the whole path, or unset it"
    if text.endswith(_NOTHING_AFTER):
        return f"ends with {text[-1]!r}, which lists have between their values; write one path"
    if "\\" in text and os.sep != "\\":
        return "holds a backslash, and nobody reads it as anything else here; write the path as it is"
    if not text.isprintable():
        return "holds a character that cannot be printed; write it again"
    return None


def parse_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings; never raises, what cannot be read stands in `problems` and keeps its default."""
    problems: list[Problem] = []

    def read(name: str, parse: Callable[[str], _T], default: _T, needs: str) -> _T:
        text = given(environ, name)
        if text is None or (parse in _PORTS and "://" in text):
            return default
        try:
            return parse(text)
        except ValueError:
            # of what should have been a URL nothing is shown: it may hold a password, or be a key pasted here
            shown = "is no URL that can be used" if parse in _URLS else f"is {text[:80]!r}"
            problems.append(Problem(name, f"{shown}; it needs {needs}"))
            return default

    seconds, address = "a number of seconds above 0", "an http(s) URL without credentials"
    port = read("LITELLM_PORT", _fixed_port, DEFAULT_LITELLM_PORT, "a port from 1 to 65535")
    defaults = Upstreams()
    upstreams = Upstreams(
        openrouter_url=read("OPENROUTER_BASE_URL", _url, DEFAULT_OPENROUTER, address),
        openrouter_key=given(environ, "OPENROUTER_API_KEY"),
        litellm_url=read("LITELLM_BASE_URL", _gateway_url, f"http://127.0.0.1:{port}", address),
        litellm_key=given(environ, "LITELLM_MASTER_KEY"),
        total_timeout=read("ROLLOUT_TOTAL_TIMEOUT", _seconds, defaults.total_timeout, seconds),
        attempt_timeout=read("ROLLOUT_ATTEMPT_TIMEOUT", _seconds, defaults.attempt_timeout, seconds),
        first_token_timeout=read("ROLLOUT_FIRST_TOKEN_TIMEOUT", _seconds, defaults.first_token_timeout, seconds),
        stall_timeout=read("ROLLOUT_STALL_TIMEOUT", _seconds, defaults.stall_timeout, seconds),
        allow_paid=read("ROLLOUT_ALLOW_PAID", _switch, defaults.allow_paid, "yes or no"),
        free_requests_per_minute=read("ROLLOUT_FREE_REQUESTS_PER_MINUTE", _count, 20, "a whole number, 0 for none"),
        free_requests_per_day=read("ROLLOUT_FREE_REQUESTS_PER_DAY", _count, None, "a whole number, 0 for none"),
        network=read_network(environ),
    )
    checks = [(name, why_quoted) for name in _SECRETS_AND_NAMES] + [(DATA_DIR, why_no_path)]
    doubts = ((name, check(given(environ, name) or "")) for name, check in checks)
    problems += [Problem(name, why) for name, why in doubts if why is not None]
    data_dir = Path(given(environ, DATA_DIR) or "data")
    return Settings(
        upstreams=upstreams,
        openrouter_given=given(environ, "OPENROUTER_BASE_URL") is not None,
        litellm_is_ours=given(environ, "LITELLM_BASE_URL") is None,
        litellm_port=port,
        url=read("ROLLOUT_URL", _url, None, address),
        token=given(environ, "ROLLOUT_TOKEN"),
        salt=given(environ, "ROLLOUT_SALT"),
        database_url=given(environ, "ROLLOUT_DATABASE_URL"),
        data_dir=data_dir,
        host=given(environ, "ROLLOUT_HOST") or "127.0.0.1",
        port=read("ROLLOUT_PORT", _port, 8080, "a port from 0 to 65535 (0 picks a free one)"),
        port_given="://" not in (given(environ, "ROLLOUT_PORT") or "://"),
        allowed_hosts=_names(given(environ, "ROLLOUT_ALLOWED_HOSTS") or ""),
        cors_origins=read("ROLLOUT_CORS_ORIGINS", _origins, (), "origins such as https://app.example, and commas"),
        kill_file=Path(given(environ, KILL_FILE) or data_dir / "kill"),
        kill_file_given=given(environ, KILL_FILE) is not None,
        trusted_proxies=read(
            "ROLLOUT_TRUSTED_PROXIES", _networks, (), "comma-separated addresses or networks such as 10.0.0.0/8"
        ),
        problems=(*problems, *_below_a_path(environ)),
        notes=tuple(_injected(environ)),
    )


def _injected(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the ports that Kubernetes sets in every pod beside a Service of our name, such as `tcp://10.0.0.1:80`."""
    for variable, service in (("ROLLOUT_PORT", "rollout"), ("LITELLM_PORT", "litellm")):
        text = given(environ, variable)
        if text is not None and "://" in text:
            yield Problem(
                variable,
                f"is {text[:80]!r}, which Kubernetes sets for a Service named {service!r}; the default stands. "
                "Set enableServiceLinks: false in the pod, or give the variable a port",
            )


def _below_a_path(environ: Mapping[str, str]) -> Iterator[Problem]:
    text = given(environ, "ROLLOUT_ROOT_PATH")
    if text is not None and text.strip("/"):
        yield Problem(
            "ROLLOUT_ROOT_PATH",
            f"is {text[:80]!r}; the pages do not work below a path, they need a host name of their own. Unset it",
        )


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip().lower()))


def _origins(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_origin(part.strip()) for part in text.split(",") if part.strip()))


def _origin(text: str) -> str:
    """Read an origin, and write it as browsers do: lower case, without the scheme's own port."""
    url = _url(text)
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.path or not url.isascii() or not _HOST.fullmatch(host):
        raise ValueError(text)
    port = None if parts.port == _DEFAULT_PORTS[parts.scheme] else parts.port
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + ("" if port is None else f":{port}")


def _switch(text: str) -> bool:
    read = read_switch(text)
    if read is None:
        raise ValueError(text)
    return read


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _port(text: str) -> int:
    number = _count(text)
    if number > 65_535:
        raise ValueError(text)
    return number


def _fixed_port(text: str) -> int:
    number = _port(text)
    if number == 0:
        raise ValueError(text)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 86_400:  # also refuses NaN
        raise ValueError(text)
    return number


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(text)
    _ = parts.port  # raises ValueError where it is no port
    return text.rstrip("/")


def _gateway_url(text: str) -> str:
    # people paste the gateway's OpenAI base URL as often as its root
    return _url(text).removesuffix("/v1")


_URLS: Final = (_url, _gateway_url)
_PORTS: Final = (_port, _fixed_port)
