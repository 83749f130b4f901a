"""An application that evaluates while it is loaded, as a preloaded one does before its workers are forked."""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping

from rollout import RolloutClient

client = RolloutClient(poll_interval=0.05)
client.evaluate(who="ada")

Start = Callable[[str, list[tuple[str, str]]], object]


def application(environ: Mapping[str, object], start: Start) -> Iterable[bytes]:
    """Answer which process this is, how it decides, and what it says of itself."""
    time.sleep(0.05)  # so that the next request finds another worker
    made, status = client.evaluate(who="ada"), client.status()
    said = {"pid": os.getpid(), "cause": made.cause, "state": status.state, "problems": status.problems}
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(said).encode()]
