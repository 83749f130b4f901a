"""The documentation agrees with the program: its variables, routes, commands, messages and links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import httpx
import pytest

from rollout.cli.root import rollout
from rollout.client.environment import ENABLED, FORCE_USERS, KILL, PERCENTAGE, read_overrides
from rollout.dispatch.endpoint import COMPLETIONS, MODELS
from rollout.domain.evaluate import Cause, Reason
from rollout.domain.roles import Role
from rollout.http.app import create_app
from rollout.settings import Settings, parse_settings
from tests.docs.installation import Installation
from tests.docs.markdown import DOCS, EVERY, ROOT, anchors, code, links, prose, rows, sections

OVERRIDES = {KILL, ENABLED, PERCENTAGE, FORCE_USERS}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# links and words


@pytest.mark.parametrize("page", EVERY, ids=name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        place, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link) or place.startswith("docs/images/"):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_reached_from_the_index() -> None:
    listed = {link.partition("#")[0] for link in links(DOCS / "README.md")}
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} <= listed


@pytest.mark.parametrize("page", EVERY, ids=name)
def test_a_page_holds_nothing_unfinished_and_nothing_of_one_machine(page: Path) -> None:
    found = re.findall(
        r"\bTODO\b|\bFIXME\b|\bTBD\b|lorem ipsum|(?<![\w.])/(?:work|root|home|Users|tmp)/\S*"
        r"|(?:pypi|pythonhosted|npmjs|goproxy)\.\S+|#\d{3,6}\b",
        page.read_text(encoding="utf-8"),
    )
    assert found == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=name)
def test_a_page_calls_access_tokens_by_their_name(page: Path) -> None:
    # a plain "token" is what models count
    words = re.sub(r"access[ -]tokens?|first[ -]token|CSRF token|`[^`]*`|“[^”]*”", "", prose(page), flags=re.IGNORECASE)
    assert re.findall(r"[^.\n]*\btokens?\b(?! of (?:a|the) (?:answer|stream))[^.\n]*", words, re.IGNORECASE) == []


# configuration


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, given: dict[str, str] | None = None) -> None:
        super().__init__(given or {})
        self.names: set[str] = set()

    def get(self, key: str, default: str = "") -> str:  # type: ignore[override]  # a mapping's get, for text alone
        self.names.add(key)
        return super().get(key, default)


def variables() -> set[str]:
    environ = Asked()
    parse_settings(environ)
    read_overrides(environ)
    return environ.names


def documented_variables() -> dict[str, list[str]]:
    found = {}
    for row in rows((DOCS / "configuration.md").read_text(encoding="utf-8")):
        if len(row) == 4 and (names := code(row[0])):
            found[names[0]] = row
    return found


def default_of(variable: str, settings: Settings) -> str:
    upstreams = settings.upstreams
    found = {
        "OPENROUTER_BASE_URL": upstreams.openrouter_url,
        "LITELLM_BASE_URL": upstreams.litellm_url,
        "LITELLM_PORT": settings.litellm_port,
        "ROLLOUT_TOTAL_TIMEOUT": upstreams.total_timeout,
        "ROLLOUT_ATTEMPT_TIMEOUT": upstreams.attempt_timeout,
        "ROLLOUT_FIRST_TOKEN_TIMEOUT": upstreams.first_token_timeout,
        "ROLLOUT_STALL_TIMEOUT": upstreams.stall_timeout,
        "ROLLOUT_ALLOW_PAID": "off" if not upstreams.allow_paid else "on",
        "ROLLOUT_DATA_DIR": settings.data_dir,
        "ROLLOUT_HOST": settings.host,
        "ROLLOUT_PORT": settings.port,
        "ROLLOUT_KILL_FILE": settings.kill_file,
        "ROLLOUT_FREE_REQUESTS_PER_MINUTE": settings.upstreams.free_requests_per_minute,
    }.get(variable)
    return f"{found:g}" if isinstance(found, float) else "" if found is None else str(found)


def test_the_page_of_variables_names_every_one_that_is_read_and_no_other() -> None:
    assert set(documented_variables()) == variables()


def test_the_page_of_variables_says_each_default() -> None:
    settings = parse_settings({})
    wrong = {
        variable: (row[2], said)
        for variable, row in documented_variables().items()
        if (said := default_of(variable, settings)) and f"`{said}`" not in row[2]
    }
    assert wrong == {}


def test_the_page_of_variables_says_what_a_value_that_cannot_be_read_leads_to() -> None:
    wrong = {}
    for variable, row in documented_variables().items():
        environ = {variable: "what is this"}
        overrides, settings = read_overrides(environ), parse_settings(environ)
        if overrides.problems:
            happens = "killed" if overrides.killed else "share 0" if overrides.share == 0 else "unknown"
        else:
            happens = "default" if settings.problems else "any text"
        if happens not in row[3]:
            wrong[variable] = (row[3], happens)
    assert wrong == {}


# the order of decision


def test_the_page_of_the_order_names_every_reason_and_every_cause() -> None:
    said = set(code((DOCS / "order-of-decision.md").read_text(encoding="utf-8")))
    assert {str(each) for each in (*Reason, *Cause)} - said == set()


# routes


def routes(plane: object) -> set[str]:
    paths = create_app(plane).openapi()["paths"]  # type: ignore[arg-type]  # none is asked here
    found = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    return found | {"GET /api/v1/openapi.json", f"POST {COMPLETIONS}", f"GET {MODELS}"}


def documented_routes() -> dict[str, str]:
    found = sections(DOCS / "api.md", 3)
    return {code(title)[0]: text for title, text in found.items() if code(title)}


def test_the_page_of_the_api_names_every_route_and_no_other(installation: Installation) -> None:
    assert set(documented_routes()) == routes(installation.plane)


def role_in(text: str) -> Role | None:
    said = re.search(r"^Role: `?(\w+)`?", text, re.MULTILINE)
    assert said is not None, "each route says its role"
    return None if said[1] == "none" else Role(said[1])


def test_the_page_of_the_api_says_each_routes_role(installation: Installation) -> None:
    wrong = []
    for route, text in documented_routes().items():
        needed, (method, path) = role_in(text), route.split(" ")
        address = installation.url + re.sub(r"\{\w+\}", "1", path)
        for role in (None, *Role):
            key = {"Authorization": f"Bearer {installation.tokens[role]}"} if role else {}
            status = httpx.request(method, address, headers=key).status_code
            refused = 401 if role is None else 403
            lets_in = needed is None or (role is not None and role.reaches(needed))
            if (status == refused) is lets_in:
                wrong.append((route, role, status))
    assert wrong == []


# commands


def leaves(command: click.Command, path: str = "rollout") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from leaves(found, f"{path} {each}")
    else:
        yield path, command


def documented_commands() -> dict[str, str]:
    found = {}
    for title, text in sections(DOCS / "cli.md", 3).items():
        words = code(title)[0].split()
        found[" ".join(word for word in words if word.islower() and "[" not in word)] = f"{title}\n{text}"
    return found


def options_of(command: click.Command) -> set[str]:
    return {
        each
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for each in parameter.opts
        if each.startswith("--")
    } - {"--json", "--help"}


def test_the_page_of_the_commands_names_every_command_and_no_other() -> None:
    assert set(documented_commands()) == {path for path, _ in leaves(rollout)}


def test_the_page_of_the_commands_names_every_option_and_no_other() -> None:
    documented, wrong = documented_commands(), {}
    for path, command in leaves(rollout):
        said = {
            option
            for row in rows(documented.get(path, ""))
            for text in code(row[0])
            for option in re.findall(r"--[a-z-]+", text)
        }
        if said != options_of(command):
            wrong[path] = (said, options_of(command))
    assert wrong == {}


def test_the_page_of_the_commands_names_every_argument() -> None:
    documented, wrong = documented_commands(), {}
    for path, command in leaves(rollout):
        title = documented.get(path, "").partition("\n")[0].lower()
        missing = [
            parameter.name
            for parameter in command.params
            if isinstance(parameter, click.Argument)
            and (parameter.name or "") not in title
            and not any(choice in title for choice in getattr(parameter.type, "choices", ()))
        ]
        if missing:
            wrong[path] = missing
    assert wrong == {}


# messages


@cache
def messages() -> tuple[str, ...]:
    """Return every text in the program, what is filled in standing as `…`, and the pages as they are written."""
    pages = [*(ROOT / "templates").glob("*.html"), ROOT / "static" / "app.js"]
    found = [file.read_text(encoding="utf-8") for file in pages]
    for file in (ROOT / "rollout").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(each.value) if isinstance(each, ast.Constant) else "…" for each in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def is_said(message: str) -> bool:
    pieces = [piece.strip() for piece in message.split("…") if piece.strip()]
    return any(_holds(text, pieces) for text in messages())


def _holds(text: str, pieces: list[str]) -> bool:
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


def test_every_message_that_the_page_on_trouble_quotes_is_one_the_program_says() -> None:
    quoted = re.findall(r"“([^”]+)”", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"))
    assert len(quoted) > 20
    assert [message for message in quoted if not is_said(message)] == []


def test_a_message_that_nobody_says_is_found() -> None:
    assert is_said("port … is taken")
    assert not is_said("the moon is made of …")
