"""An OpenRouter look-alike with named, seeded faults: the upstream of every test, and of a run without a key."""

from rollout.simulator.app import create_app
from rollout.simulator.faults import Fault, FaultError, Kind, parse_faults
from rollout.simulator.models import CASCADE, Model
from rollout.simulator.population import users
from rollout.simulator.server import running
from rollout.simulator.world import World

__all__ = ["CASCADE", "Fault", "FaultError", "Kind", "Model", "World", "create_app", "parse_faults", "running", "users"]
