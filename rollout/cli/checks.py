"""What `rollout doctor` looks at. Each check returns findings; none changes anything or spends quota."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from rollout.cli.gateway import on_disk
from rollout.cli.server import address_of, ask
from rollout.client.environment import read_overrides
from rollout.client.killfile import KillFile
from rollout.domain.cascade import Cascade
from rollout.domain.errors import RolloutError
from rollout.domain.share import percentage_text
from rollout.gateway.pin import PYTHON_FLOOR, why_python_refused, why_unsupported
from rollout.gateway.place import port_is_free
from rollout.gateway.watch import RELEASE_PATH, key_header, release_in
from rollout.network import Network
from rollout.settings import Settings

_LATEST_CLOCK_SLIP: Final = timedelta(seconds=60)
_BUILT: Final = datetime(2025, 1, 1, tzinfo=UTC)


class Level(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: which check, how it is, what was found and what to do."""

    check: str
    level: Level
    said: str


def check_python(version: tuple[int, int]) -> Finding:
    """Look at the Python that runs."""
    if version < PYTHON_FLOOR:
        return Finding("python", Level.FAIL, f"Python {version[0]}.{version[1]} is too old; 3.11 is the floor")
    refused = why_python_refused(version)
    return Finding("python", Level.WARN, refused) if refused else Finding("python", Level.OK, "{}.{}".format(*version))


def check_environment(settings: Settings, environ: Mapping[str, str], now: float) -> list[Finding]:
    """Look at variables: what cannot be read, and what overrides the stored flag here."""
    found = [Finding("settings", Level.FAIL, f"{problem}; its default stands") for problem in settings.problems]
    found += [Finding("settings", Level.WARN, str(remark)) for remark in settings.notes]
    local = read_overrides(environ)
    found += [Finding("overrides", Level.FAIL, problem) for problem in local.problems]
    if local.killed:
        found.append(Finding("overrides", Level.WARN, "the environment kills: processes here go direct"))
    if local.enabled is not None:
        said = f"LITELLM_ENABLED says {'yes' if local.enabled else 'no'} here, whatever is stored"
        found.append(Finding("overrides", Level.WARN, said))
    if local.share is not None:
        said = f"LITELLM_ROLLOUT_PERCENTAGE sets {percentage_text(local.share)} here, whatever is stored"
        found.append(Finding("overrides", Level.WARN, said))
    if local.force_users:
        said = f"LITELLM_FORCE_USERS forces {len(local.force_users)} users onto the gateway here"
        found.append(Finding("overrides", Level.WARN, said))
    kill_file = KillFile(settings.kill_file, named=settings.kill_file_given)
    if kill_file.look(now):
        level = Level.FAIL if kill_file.problem else Level.WARN
        said = kill_file.problem or f"{settings.kill_file} is there: processes here go direct; remove it to go on"
        found.append(Finding("kill file", level, said))
    elif kill_file.problem is not None:
        found.append(Finding("kill file", Level.WARN, kill_file.problem))
    else:
        found.append(Finding("kill file", Level.OK, f"{settings.kill_file} is not there"))
    if not settings.problems:
        found.insert(0, Finding("settings", Level.OK, "every variable can be read"))
    if local.silent and not local.problems:
        found.append(Finding("overrides", Level.OK, "none: the stored flag decides"))
    return found


def check_control_plane(settings: Settings, environ: Mapping[str, str]) -> list[Finding]:
    """Look whether the API at ROLLOUT_URL takes our access token."""
    from rollout.cli.reach import open_backend

    try:
        with open_backend(settings, environ) as backend:
            count = len(backend.flags())
    except RolloutError as error:
        return [Finding("control plane", Level.FAIL, error.message)]
    return [Finding("control plane", Level.OK, f"answers and takes our access token; it holds {count} flags")]


def check_database(settings: Settings, now: datetime) -> tuple[list[Finding], Sequence[str] | None]:
    """Look at the database: reachable, its schema, its ledger, its last entry's time.

    Returns:
        The findings, and the cascade where it could be read.
    """
    from rollout.cli.backend_database import existing_engine, shown_url, url_of
    from rollout.store.door import Door
    from rollout.store.flags import read_cascade
    from rollout.store.ledger import AuditFilter, list_entries, verify_ledger
    from rollout.store.migrate import schema_status

    try:
        url = url_of(settings)
        if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
            return [Finding("database", Level.WARN, f"{url.database} is not there yet; `rollout up` makes it")], None
        with existing_engine(settings) as engine:
            where, status = shown_url(engine.url), schema_status(engine)
            if not status.up_to_date:
                said = f"{where} is at schema {status.current or '-'} of {status.newest}; run `rollout db upgrade`"
                return [Finding("database", Level.WARN, said)], None
            found = [Finding("database", Level.OK, f"{where} answers, schema {status.newest}")]
            with Door(engine).reading() as connection:
                held = verify_ledger(connection)
                cascade = read_cascade(connection)
                if held.first_break is not None:
                    first = held.first_break
                    said = f"broken at revision {first.revision}: {first.why}; restore a backup from before"
                    return [*found, Finding("ledger", Level.FAIL, said)], cascade.live
                if held.entries == 0:
                    said = "no installation yet; `rollout up` or `rollout db upgrade` makes it"
                    return [*found, Finding("ledger", Level.WARN, said)], None
                found.append(Finding("ledger", Level.OK, f"{held.entries} entries hold, head {held.head[:16]}…"))
                last = list_entries(connection, AuditFilter(), limit=1)
    except RolloutError as error:
        return [Finding("database", Level.FAIL, error.message)], None
    if last and last[0].at > now + _LATEST_CLOCK_SLIP:
        when = last[0].at.isoformat(timespec="seconds")
        said = f"the last ledger entry is from {when}, this machine says {now:%Y-%m-%dT%H:%M:%S}Z; set the clock"
        found.append(Finding("clock", Level.WARN, said))
    return [*found, *_models_out(cascade)], cascade.live


def _models_out(cascade: Cascade) -> list[Finding]:
    return [
        Finding(
            "cascade",
            Level.FAIL if model in cascade.quarantined else Level.WARN,
            f"{model} is out: {out.detail}; put another in its place, or `rollout cascade lift`",
        )
        for model, out in cascade.out.items()
        if model in cascade.models or model in cascade.quarantined
    ]


def check_ports(settings: Settings, server: Mapping[str, Any] | None) -> list[Finding]:
    """Look whether our ports are free, or ours."""
    found = []
    if server is not None:
        found.append(Finding("port", Level.OK, f"a server answers at {address_of(settings)}"))
    elif settings.port == 0:
        found.append(Finding("port", Level.OK, "ROLLOUT_PORT is 0: a free one is picked"))
    else:
        found.append(_port("port", settings.host, settings.port, "ROLLOUT_PORT"))
    address = settings.upstreams.litellm_url
    if _litellm_answers(address, settings.upstreams.network):
        found.append(Finding("gateway port", Level.OK, f"LiteLLM answers at {_shown(address)}"))
    elif not settings.litellm_is_ours:
        said = f"the gateway at {_shown(address)} does not answer; check LITELLM_BASE_URL and that it runs"
        found.append(Finding("gateway port", Level.FAIL, said))
    elif settings.litellm_port == 0:
        found.append(Finding("gateway port", Level.FAIL, "LITELLM_PORT is 0; set it to a port from 1 to 65535"))
    else:
        found.append(_port("gateway port", "127.0.0.1", settings.litellm_port, "LITELLM_PORT"))
    return found


def check_installed(settings: Settings) -> Finding:
    """Look whether LiteLLM's own environment is complete, or which release a gateway is that is not ours."""
    if not settings.litellm_is_ours:
        return _check_release(_release(settings))
    disk = on_disk(settings)
    if disk["installed"]:
        return Finding("litellm", Level.OK, f"installed in {disk['environment']}")
    return Finding("litellm", Level.WARN, f"not installed in {disk['environment']} yet; `rollout up` does that")


def _check_release(release: str | None) -> Finding:
    """Look at the release of a gateway that is not ours; None is one that did not say."""
    if release is None:
        said = "the gateway at LITELLM_BASE_URL does not say which LiteLLM it is; check LITELLM_MASTER_KEY"
        return Finding("litellm", Level.WARN, said)
    unsupported = why_unsupported(release)
    if unsupported is not None:
        return Finding("litellm", Level.WARN, unsupported)
    return Finding("litellm", Level.OK, f"the gateway at LITELLM_BASE_URL is LiteLLM {release}")


async def check_upstream(settings: Settings, cascade: Sequence[str], now: datetime) -> list[Finding]:
    """Ask the upstream for its models and about our key, neither of which costs quota."""
    import httpx

    from rollout.gateway.upstream import UpstreamPhase, UpstreamWatch

    upstreams = settings.upstreams
    if upstreams.openrouter_key is None and not settings.openrouter_given:
        return [
            Finding("upstream", Level.WARN, "OPENROUTER_API_KEY is not set: `rollout up` uses the bundled simulator")
        ]
    dates: list[str] = []

    async def note_date(answer: httpx.Response) -> None:
        dates.append(answer.headers.get("date", ""))

    watch = UpstreamWatch(
        upstreams.openrouter_url, upstreams.openrouter_key, simulated=False, network=upstreams.network
    )
    async with watch.client() as http:
        http.event_hooks = {"response": [note_date]}
        state = await watch.check(http)
    where = _shown(state.base_url)
    level = Level.OK if state.phase is UpstreamPhase.OK else Level.FAIL
    found = [Finding("upstream", level, f"{where}: {state.detail}")]
    listed = {model.id: model.free for model in state.models}
    for model in cascade if listed else ():
        if model not in listed:
            found.append(Finding("cascade", Level.WARN, f"{model} is not listed any more; `rollout cascade set`"))
        elif not listed[model]:
            bad = Level.WARN if upstreams.allow_paid else Level.FAIL
            found.append(Finding("cascade", bad, f"{model} is not free; take it out with `rollout cascade set`"))
    if cascade and listed and all(finding.check != "cascade" for finding in found):
        found.append(Finding("cascade", Level.OK, f"all {len(cascade)} models are listed and free"))
    return [*found, *_clock(dates, now)]


def check_cascade(cascade: Sequence[str] | None) -> list[Finding]:
    """Look at the cascade without an upstream; None is one that could not be read."""
    if cascade is not None and not cascade:
        said = "empty: `rollout up` fills it from what is free, or `rollout cascade set`"
        return [Finding("cascade", Level.WARN, said)]
    return []


def check_clock(now: datetime) -> Finding:
    """Look whether this machine's clock can be right at all."""
    if now < _BUILT:
        return Finding("clock", Level.FAIL, f"this machine says {now:%Y-%m-%d}, before this program was made; set it")
    return Finding("clock", Level.OK, f"{now:%Y-%m-%d %H:%M:%S}Z")


def _clock(dates: Sequence[str], now: datetime) -> list[Finding]:
    from email.utils import parsedate_to_datetime

    for date in dates:
        try:
            slip = abs(parsedate_to_datetime(date) - now)
        except (ValueError, TypeError):  # no date, or none with a time zone
            continue
        if slip > _LATEST_CLOCK_SLIP:
            said = f"this machine and the upstream are {int(slip.total_seconds())} seconds apart; set the clock"
            return [Finding("clock", Level.WARN, said)]
    return []


def _port(check: str, host: str, port: int, variable: str) -> Finding:
    try:
        free = port_is_free(host, port)
    except ValueError as error:
        return Finding(check, Level.FAIL, str(error))
    if free:
        return Finding(check, Level.OK, f"{port} is free")
    return Finding(check, Level.FAIL, f"{port} is taken by another program; end that, or set {variable}")


def _litellm_answers(address: str, network: Network) -> bool:
    import httpx

    try:
        with httpx.Client(timeout=2.0, **network.httpx_options(address)) as http:
            return http.get(f"{address}/health/liveliness").is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _release(settings: Settings) -> str | None:
    import httpx

    upstreams = settings.upstreams
    try:
        address, headers = f"{upstreams.litellm_url}{RELEASE_PATH}", key_header(upstreams.litellm_key)
        with httpx.Client(timeout=2.0, **upstreams.network.httpx_options(address)) as http:
            return release_in(http.get(address, headers=headers))
    except (httpx.HTTPError, httpx.InvalidURL):
        return None


def _shown(url: str) -> str:
    from rollout.cli.backend_api import without_credentials

    return without_credentials(url)


def running_server(settings: Settings) -> dict[str, Any] | None:
    """Return what a server of ours says of its health, None where none answers."""
    health = ask(address_of(settings), "/health")
    return health if health is not None and "installation" in health else None
