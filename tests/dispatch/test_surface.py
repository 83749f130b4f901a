"""What an application imports, seen from processes of its own."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

import rollout
from tests.dispatch import conftest as world

HEJ = [{"role": "user", "content": "Hej"}]
BLOCK = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def run(code: str, **environ: Any) -> Any:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LITELLM", "ROLLOUT", "OPENROUTER"))
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env={**kept, **environ}
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def environment(upstream: world.Upstream, tmp_path: pathlib.Path, **more: Any) -> Any:
    return {
        "OPENROUTER_BASE_URL": f"{upstream.url}/api/v1",
        "OPENROUTER_API_KEY": world.OPENROUTER_KEY,
        "LITELLM_BASE_URL": upstream.url,
        "ROLLOUT_DATA_DIR": str(tmp_path),
        **more,
    }


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = run("import json, sys, rollout; print(json.dumps([n for n in sys.modules if n.startswith('rollout.')]))")
    assert loaded == []


def test_importing_the_ground_floor_loads_nothing_above_it() -> None:
    code = """
import json, sys, rollout.domain.evaluate
print(json.dumps(sorted({".".join(n.split(".")[:2]) for n in sys.modules if n.startswith("rollout.")})))
"""
    assert run(code) == ["rollout.domain"]


def test_an_application_that_sends_loads_no_server() -> None:
    server = ["fastapi", "starlette", "pydantic", "sqlalchemy", "uvicorn", "jinja2", "click", "alembic"]
    code = f"""
import json, sys, rollout
rollout.invoke_llm, rollout.ainvoke_llm, rollout.wrap, rollout.user, rollout.RolloutClient
print(json.dumps([n for n in {server} if n in sys.modules]))
"""
    assert run(code) == []


@pytest.mark.parametrize("name", rollout.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(rollout, name) is not None
    assert name in dir(rollout)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rollout.nonsense


@pytest.mark.parametrize("blocked", [(), ("aiohttp", "yarl", "fastapi", "sqlalchemy", "starlette", "uvicorn")])
def test_a_base_install_sends_both_ways(upstream: world.Upstream, tmp_path: pathlib.Path, blocked: Any) -> None:
    code = (
        BLOCK.format(blocked=blocked)
        + f"""
import asyncio, json, rollout
from rollout.client import RolloutClient, set_default_client
import os
set_default_client(RolloutClient(environ=os.environ, cascade={world.CASCADE!r}))
messages = {HEJ!r}
async def several():
    one = await rollout.ainvoke_llm(messages=messages, user="u")
    many = [each async for each in await rollout.ainvoke_llm(messages=messages, stream=True)]
    return one.decision.path, len(many)
with rollout.user("tester"):
    plain = rollout.invoke_llm(messages=messages)
chunks = list(rollout.invoke_llm(messages=messages, stream=True))
flags = rollout.feature_flags("tester")
print(json.dumps([plain.decision.path, len(chunks), *asyncio.run(several()), flags.enableLiteLLM,
    "aiohttp" in sys.modules]))
"""
    )
    said = run(code, **environment(upstream, tmp_path, LITELLM_FORCE_USERS="tester"))
    assert said == ["litellm", 6, "openrouter", 6, True, not blocked]


def test_a_forked_child_opens_its_own_connections(upstream: world.Upstream) -> None:
    code = f"""
import json, os, sys
sys.path.insert(0, {str(pathlib.Path.cwd())!r})
from rollout.dispatch.dispatcher import Dispatcher
from tests.dispatch.conftest import FixedClient, upstreams_at
dispatcher = Dispatcher(FixedClient(upstreams_at({upstream.url!r})))
ask = lambda: dispatcher.invoke(messages={HEJ!r})["id"]
ask()
child = os.fork()
if child == 0:
    ask()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(json.dumps(ask()))
"""
    assert run(code) == "gen-1"
    assert upstream.connections == 2
    assert len(upstream.directly) == 3
