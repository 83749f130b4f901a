"""The first cascade: the plan's five models as far as they are still free, filled up from what is free today."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rollout.domain.identity import FREE_SUFFIX

CASCADE_LENGTH: Final = 5

PLANNED_MODELS: Final = (
    "z-ai/glm-4.5-air:free",
    "deepseek/deepseek-chat-v3.1:free",
    "minimax/minimax-m2:free",
    "moonshotai/kimi-k2:free",
    "qwen/qwen3-coder:free",
)
"""The plan's cascade: primary, coding, fast, long context, code."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as the upstream lists it; `free` means every price is 0, `context_length` is in tokens."""

    id: str
    free: bool
    tools: bool = False
    context_length: int = 0


@dataclass(frozen=True, slots=True)
class CascadeProposal:
    """What the cascade could be: models in order, and for each planned model left out why."""

    models: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


def propose_cascade(listed: Iterable[ListedModel]) -> CascadeProposal:
    """Choose the first cascade from what the upstream lists today.

    Planned models keep their order; the rest is filled up to five with free models, those that take tools
    first, then those with the longest context, then by name.
    """
    by_id = {model.id: model for model in listed}
    kept, left_out = [], []
    for planned in PLANNED_MODELS:
        model = by_id.get(planned)
        if model is None:
            left_out.append((planned, "no longer listed by the upstream"))
        elif not model.free:
            left_out.append((planned, "listed, but no longer free"))
        else:
            kept.append(planned)
    spare = sorted(
        (model for model in by_id.values() if model.free and model.id.endswith(FREE_SUFFIX) and model.id not in kept),
        key=lambda model: (not model.tools, -model.context_length, model.id),
    )
    fill = [model.id for model in spare][: CASCADE_LENGTH - len(kept)]
    return CascadeProposal((*kept, *fill), tuple(left_out))
