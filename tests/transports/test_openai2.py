"""The OpenAI SDK 2.x, in an environment of its own that is made from its lock unless it is there."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transports.conftest import MODEL, Simulated

pytestmark = [pytest.mark.slow, pytest.mark.processes]

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".cache" / "openai2"
OURS = ("ROLLOUT_", "LITELLM_", "OPENROUTER_", "FORCE_DIRECT", "OPENAI_", "COVERAGE_")


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter beside the SDK 2.x; making its environment takes some seconds, once."""
    subprocess.run([sys.executable, ROOT / "bin" / "setup.py", ENVIRONMENT, ROOT / "locks" / "openai2.txt"], check=True)
    return ENVIRONMENT / "bin" / "python"


async def test_an_application_on_the_sdk_2_runs_through_the_transport_for_httpx(
    python: Path, simulated: Simulated, tmp_path: Path
) -> None:
    upstreams = simulated.client.upstreams
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environ |= {"OPENROUTER_BASE_URL": upstreams.openrouter_url, "OPENROUTER_API_KEY": "sk-or-simulated"}
    program = await asyncio.create_subprocess_exec(
        *(str(python), "-W", "error", str(Path(__file__).with_name("openai2_program.py")), MODEL),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
        cwd=tmp_path,
    )
    printed, complained = await asyncio.wait_for(program.communicate(), 60)
    assert program.returncode == 0, complained.decode()
    seen = json.loads(printed)
    assert seen["version"].startswith("2.")
    assert seen["extras"] == []
    assert seen["sync"] == seen["async"]
    answers = seen["sync"]
    assert answers["plain"].endswith("You said: Hej")
    assert answers["stream"] == answers["plain"]
    assert (answers["tool"], answers["parsed"]) == ("weather", True)
    assert answers["raw"] == ["openrouter", "1"]
    assert answers["error"][2] == "false"
    assert simulated.arrivals == 12  # six requests each way; the SDK, told to retry five times, sent none again
