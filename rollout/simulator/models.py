"""The models the simulated upstream lists, and how they come and go.

Free models are withdrawn without warning in the real world, so the catalogue can withdraw, restore and
reprice while it serves; a withdrawn id stays known, because the upstream still answers for it (with an error
that suggests the paid twin).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

FREE_SUFFIX: Final = ":free"
CASCADE: Final = (
    "z-ai/glm-4.5-air:free",
    "deepseek/deepseek-chat-v3.1:free",
    "minimax/minimax-m2:free",
    "moonshotai/kimi-k2:free",
    "qwen/qwen3-coder:free",
)
"""The plan's five, of which only the last is still listed."""

WITHDRAWN_TODAY: Final = frozenset(CASCADE[:4])
_PLAIN: Final = ("frequency_penalty", "max_tokens", "presence_penalty", "seed", "stop", "temperature", "top_p")
_TOOLS: Final = (*_PLAIN, "response_format", "structured_outputs", "tool_choice", "tools")


@dataclass(frozen=True, slots=True)
class Model:
    """One listed model.

    Attributes:
        id: what a request names, such as `qwen/qwen3-coder:free`.
        name: for people.
        context_length: in tokens.
        provider: who is said to have answered.
        prompt: US dollars per prompt token, as the text of a decimal number.
        completion: US dollars per completion token, as the text of a decimal number.
        tools: whether tools and structured outputs are supported.
        created: when it was first listed, in epoch seconds.
        expiration_date: the announced last day as `YYYY-MM-DD`, or None.
    """

    id: str
    name: str
    context_length: int
    provider: str
    prompt: str = "0"
    completion: str = "0"
    tools: bool = True
    created: int = 1_753_000_000
    expiration_date: str | None = None

    @property
    def is_free(self) -> bool:
        """Tell whether both prices are zero."""
        return float(self.prompt) == 0.0 and float(self.completion) == 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | int:
        """Price one answer, in US dollars; the integer 0 for a free model, as the upstream writes it."""
        if self.is_free:
            return 0
        return round(prompt_tokens * float(self.prompt) + completion_tokens * float(self.completion), 12)

    def document(self) -> dict[str, Any]:
        """Write the model as the upstream lists it; prices are texts."""
        return {
            "id": self.id,
            "canonical_slug": self.id.removesuffix(FREE_SUFFIX),
            "name": self.name,
            "created": self.created,
            "description": "A simulated model: it repeats what it was told.",
            "context_length": self.context_length,
            "architecture": {
                "modality": "text->text",
                "input_modalities": ["text"],
                "output_modalities": ["text"],
                "tokenizer": "Other",
                "instruct_type": None,
            },
            "pricing": {
                "prompt": self.prompt,
                "completion": self.completion,
                "request": "0",
                "image": "0",
                "web_search": "0",
                "internal_reasoning": "0",
                "input_cache_read": "0",
            },
            "top_provider": {
                "context_length": self.context_length,
                "max_completion_tokens": None,
                "is_moderated": False,
            },
            "per_request_limits": None,
            "supported_parameters": list(_TOOLS if self.tools else _PLAIN),
            "expiration_date": self.expiration_date,
        }


DEFAULT_MODELS: Final = (
    Model("z-ai/glm-4.5-air:free", "Z.AI: GLM 4.5 Air (free)", 131_072, "Z.AI"),
    Model("deepseek/deepseek-chat-v3.1:free", "DeepSeek: DeepSeek V3.1 (free)", 163_840, "DeepInfra"),
    Model("minimax/minimax-m2:free", "MiniMax: MiniMax M2 (free)", 204_800, "Minimax"),
    Model("moonshotai/kimi-k2:free", "MoonshotAI: Kimi K2 (free)", 32_768, "Chutes"),
    Model("qwen/qwen3-coder:free", "Qwen: Qwen3 Coder (free)", 262_144, "Venice"),
    # Invented, but shaped like what is offered free of charge.
    Model("northwind/gale-70b-instruct:free", "Northwind: Gale 70B Instruct (free)", 131_072, "Northwind"),
    Model("northwind/breeze-8b:free", "Northwind: Breeze 8B (free)", 32_768, "Northwind", tools=False),
    Model("fjordlabs/skagen-24b:free", "Fjord Labs: Skagen 24B (free)", 96_000, "Fjord"),
    Model("fjordlabs/skagen-mini:free", "Fjord Labs: Skagen Mini (free)", 8_192, "Fjord", tools=False),
    Model("lumen/aurora-3-flash:free", "Lumen: Aurora 3 Flash (free)", 1_048_576, "Lumen"),
    Model("lumen/aurora-2-chat:free", "Lumen: Aurora 2 Chat (free)", 65_536, "Lumen", expiration_date="2026-12-15"),
    Model("openmoose/moose-coder-32b:free", "OpenMoose: Moose Coder 32B (free)", 200_000, "Moose"),
    Model("tidewater/harbor-120b:free", "Tidewater: Harbor 120B (free)", 128_000, "Tidewater", tools=False),
    # Paid: the twins of free ones, and one nobody here should ever reach.
    Model("z-ai/glm-4.5-air", "Z.AI: GLM 4.5 Air", 131_072, "Z.AI", "0.00000014", "0.00000086"),
    Model("qwen/qwen3-coder", "Qwen: Qwen3 Coder", 262_144, "DeepInfra", "0.00000022", "0.00000095"),
    Model("moonshotai/kimi-k2", "MoonshotAI: Kimi K2", 131_072, "DeepInfra", "0.0000005", "0.0000024"),
    Model("openai/gpt-5", "OpenAI: GPT-5", 400_000, "OpenAI", "0.00000125", "0.00001"),
)


class Catalogue:
    """The models known to the upstream, of which some are withdrawn."""

    def __init__(self, models: Iterable[Model] = DEFAULT_MODELS, withdrawn: Iterable[str] = WITHDRAWN_TODAY) -> None:
        self._models = {model.id: model for model in models}
        self._withdrawn = set(withdrawn) & self._models.keys()
        self._listing: bytes | None = None

    @property
    def known(self) -> Mapping[str, Model]:
        """Every model by id, the withdrawn ones included."""
        return MappingProxyType(self._models)

    def find(self, model_id: str) -> Model | None:
        """Return the listed model, or None when it is unknown or withdrawn."""
        return None if model_id in self._withdrawn else self._models.get(model_id)

    def is_withdrawn(self, model_id: str) -> bool:
        """Tell whether the id was listed once and is no longer."""
        return model_id in self._withdrawn

    def withdraw(self, model_id: str) -> None:
        """Take a known model off the list."""
        self._withdrawn.add(self._models[model_id].id)
        self._listing = None

    def restore(self, model_id: str) -> None:
        """Put a known model back on the list."""
        self._withdrawn.discard(self._models[model_id].id)
        self._listing = None

    def reprice(self, model_id: str, *, prompt: str, completion: str) -> None:
        """Set a known model's prices, in US dollars per token as texts."""
        self._models[model_id] = replace(self._models[model_id], prompt=prompt, completion=completion)
        self._listing = None

    def expire(self, model_id: str, day: str | None) -> None:
        """Announce a known model's last day as `YYYY-MM-DD`, or take the announcement back."""
        self._models[model_id] = replace(self._models[model_id], expiration_date=day)
        self._listing = None

    def listing(self) -> bytes:
        """Return the answer of `GET /models`; built once for each change."""
        if self._listing is None:
            listed = [model.document() for model in self._models.values() if model.id not in self._withdrawn]
            self._listing = json.dumps({"data": listed}).encode()
        return self._listing
