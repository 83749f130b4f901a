"""The real LiteLLM, and what stands around it."""

import os
import socket
from pathlib import Path

import pytest

from rollout.gateway.install import install
from rollout.resources import resource

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def litellm_environment() -> Path:
    """LiteLLM's own environment, installed unless it is there; shared by all runs in this checkout."""
    return install(
        REPOSITORY / ".cache" / "litellm",
        lock=resource("locks") / "litellm.txt",
        log=REPOSITORY / ".cache" / "litellm-install.log",
        environ=os.environ,
    )


@pytest.fixture
def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
