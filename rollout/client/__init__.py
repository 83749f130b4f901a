"""The application's side: learns the flags, decides in memory, and works with the control plane away."""

from rollout.client.client import FeatureFlags, RolloutClient
from rollout.client.default import default_client, set_default_client
from rollout.client.status import ClientStatus, Source, State
from rollout.client.user import current_user, user, user_from_header

__all__ = [
    "ClientStatus",
    "FeatureFlags",
    "RolloutClient",
    "Source",
    "State",
    "current_user",
    "default_client",
    "set_default_client",
    "user",
    "user_from_header",
]
