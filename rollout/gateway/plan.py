"""What the supervisor is to run: places, keys, pace; and the command and environment that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rollout.network import Network, read_network

# Of our own environment LiteLLM gets these and no others: a DATABASE_URL, an AWS key or another provider's key
# would change what it does.
_HANDED_ON: Final = ("HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_LOOPBACK: Final = "127.0.0.1,localhost,::1"

_FIXED: Final[Mapping[str, str]] = {
    "PYTHONUNBUFFERED": "1",
    # Anything but DEV: in DEV it reads every .env file on the way up from where it is installed.
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "WARNING",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_DONT_SHOW_FEEDBACK_BOX": "True",
    # What it would fetch from the internet at start, it also carries with it.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
    "NO_REDOC": "True",
    "NO_OPENAPI": "True",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlan:
    """What to run, and where.

    Attributes:
        environment: LiteLLM's own virtual environment.
        lock: The requirements it is made from.
        folder: Where its configuration and its log are kept.
        host: The address to listen on.
        port: The port to listen on, [1, 65535].
        upstream_base_url: An OpenRouter-compatible API.
        upstream_key: The upstream's key; never shown.
        master_key: The key its clients need; never shown.
        request_timeout: Seconds for each read from the upstream.
        allow_paid: Whether models that are not free may pass.
        site_url: What the upstream is told about who calls (`HTTP-Referer`).
        app_name: The same (`X-Title`).
    """

    environment: Path
    lock: Path
    folder: Path
    host: str = "127.0.0.1"
    port: int = 4000
    upstream_base_url: str
    upstream_key: str = field(repr=False)
    master_key: str = field(repr=False)
    request_timeout: float = 120.0
    allow_paid: bool = False
    site_url: str = "http://127.0.0.1"
    app_name: str = "rollout"

    @property
    def config(self) -> Path:
        """Return where LiteLLM's configuration is written."""
        return self.folder / "litellm.yaml"

    @property
    def certificates(self) -> Path | None:
        """Return where the certificates are written that LiteLLM trusts, None if its upstream needs none."""
        return self.folder / "litellm-ca.pem" if urlsplit(self.upstream_base_url).scheme == "https" else None

    @property
    def log(self) -> Path:
        """Return where LiteLLM's output is kept."""
        return self.folder / "litellm.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often the supervisor looks, and how long it waits; all in seconds.

    Attributes:
        look_while_starting: Between two questions for its health until the first answer.
        look: The same afterwards.
        answer_within: For one answer; a frozen LiteLLM is shown after one, left alone after two.
        start_within: From start to first answer; a cold disk and two cores have taken 30.
        first_pause: Before the first restart; doubles with each further failure.
        longest_pause: What the doubling stops at.
        stable_after: Healthy for that long, a failure counts as the first again.
    """

    look_while_starting: float = 0.5
    look: float = 1.0
    answer_within: float = 2.0
    start_within: float = 180.0
    first_pause: float = 1.0
    longest_pause: float = 60.0
    stable_after: float = 60.0


USUAL_PACE: Final = Pace()


def litellm_command(plan: GatewayPlan) -> Sequence[str]:
    """Return the command that starts LiteLLM as the plan says."""
    return [
        str(plan.environment / "bin" / "litellm"),
        "--config",
        str(plan.config.absolute()),
        "--host",
        plan.host,
        "--port",
        str(plan.port),
        "--num_workers",
        "1",
    ]


def litellm_environment(plan: GatewayPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment LiteLLM is started with; it holds the two keys."""
    return {
        **{name: environ[name] for name in _HANDED_ON if name in environ},
        **_connecting(plan, read_network(environ)),
        **_FIXED,
        "PATH": f"{plan.environment / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "OPENROUTER_API_KEY": plan.upstream_key,
        "LITELLM_MASTER_KEY": plan.master_key,
        "OR_SITE_URL": plan.site_url,
        "OR_APP_NAME": plan.app_name,
    }


def _connecting(plan: GatewayPlan, network: Network) -> dict[str, str]:
    """Return the variables that make LiteLLM reach the upstream as our own requests on the direct path do.

    The variables are not handed on as they are: LiteLLM knows no networks and no ports in NO_PROXY, and trusts
    another list of certificates than the system's.
    """
    proxy, parts = network.proxy_for(plan.upstream_base_url), urlsplit(plan.upstream_base_url)
    direct = [*network.direct, _LOOPBACK]
    variables: dict[str, str] = {}
    if proxy is not None:
        variables = {f"{parts.scheme.upper()}_PROXY": proxy.url}
    elif network.http is not None or network.https is not None:
        direct.append(parts.hostname or "")
    variables["NO_PROXY"] = ",".join(direct)
    variables |= {name.lower(): value for name, value in variables.items()}
    if plan.certificates is not None:
        variables |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(plan.certificates.absolute()))
    return variables
