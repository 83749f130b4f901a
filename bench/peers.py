"""The peers of the evaluator, set up as their own documentation says, without a server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from bench.report import CannotMeasure

Decide = Callable[[str], bool]

UNLEASH: Final = "UnleashClient"
GROWTHBOOK: Final = "GrowthBook"


def _load(module: str) -> Any:
    # loaded by name, as the peers are installed for benchmarks only and type checkers do not know them
    try:
        return import_module(module)
    except ImportError as error:
        raise CannotMeasure(f"{module} is not installed ({error}); run `make bench`") from error


def unleash(flags: Sequence[str], main: str, forced: Sequence[str], folder: Path) -> Decide:
    """Return UnleashClient, started without fetching, deciding the main flag."""
    package, cache_module = _load("UnleashClient"), _load("UnleashClient.cache")
    logging.getLogger("UnleashClient").setLevel(logging.ERROR)
    half = {"rollout": "50", "stickiness": "userId"}
    features = []
    for key in flags:
        strategies: list[dict[str, Any]] = [{"name": "flexibleRollout", "parameters": {**half, "groupId": key}}]
        if key == main:
            strategies.insert(0, {"name": "userWithId", "parameters": {"userIds": ",".join(forced)}})
        features.append({"name": key, "type": "release", "enabled": True, "strategies": strategies})
    cache = cache_module.FileCache("bench", directory=str(folder))
    cache.bootstrap_from_dict({"version": 2, "features": features})
    client = package.UnleashClient(
        "http://127.0.0.1:9/api",
        "bench",
        cache=cache,
        disable_metrics=True,
        disable_registration=True,
        multiple_instance_mode=_load("UnleashClient.utils").InstanceAllowType.SILENTLY_ALLOW,
    )
    client.initialize_client(fetch_toggles=False)
    is_enabled = client.is_enabled

    def decide(user: str) -> bool:
        answer: bool = is_enabled(main, {"userId": user})
        return answer

    return decide


def growthbook(flags: Sequence[str], main: str, forced: Sequence[str]) -> Decide:
    """Return one instance of GrowthBook, told about each user in turn, deciding the main flag."""
    features: dict[str, Any] = {}
    for key in flags:
        rules: list[dict[str, Any]] = [{"force": True, "coverage": 0.5, "hashAttribute": "id"}]
        if key == main:
            rules.insert(0, {"condition": {"id": {"$in": list(forced)}}, "force": True})
        features[key] = {"defaultValue": False, "rules": rules}
    instance = _load("growthbook").GrowthBook(features=features)
    set_attributes, is_on = instance.set_attributes, instance.is_on

    def decide(user: str) -> bool:
        set_attributes({"id": user})
        answer: bool = is_on(main)
        return answer

    return decide
