"""Errors of OpenRouter as they were seen in public reports, with ids and keys replaced. Data.

`status` is the HTTP status; `error` is what stands under `error` in the body, without `code` where that is the status.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from rollout.domain.failure import FailureKind


class Seen(NamedTuple):
    """One error: what it has to be counted as, and words that the caller has to be shown."""

    name: str
    status: int
    error: dict[str, Any]
    kind: FailureKind
    words: str

    @property
    def document(self) -> dict[str, Any]:
        """Return the body."""
        return {"error": {"code": self.status, **self.error}, "user_id": "user_2xAbCdEfGhIjKlMnOpQrStUvWxY"}


def _provider(name: str, raw: object, **more: Any) -> dict[str, Any]:
    said = raw if isinstance(raw, str) else json.dumps(raw)
    return {"message": "Provider returned error", "metadata": {"raw": said, "provider_name": name, **more}}


def _routing(message: str, step: str | None, endpoints: int = 1, **more: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"routing_funnel": [{"step": "Initial Endpoints", "endpoint_count": endpoints}], **more}
    if step is not None:
        metadata["failed_routing_step"] = step
    return {"message": message, "metadata": metadata}


def _openai(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}}


def _google(message: str, status: str = "INVALID_ARGUMENT", code: int = 400) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status}}


_REFUSED: Final = FailureKind.MODEL_REFUSED
_DOCS: Final = "https://openrouter.ai/docs/guides/routing/provider-selection"

SEEN: Final[tuple[Seen, ...]] = (
    # what a provider says
    Seen(
        "developer instruction",
        400,
        _provider("Google AI Studio", _google("Developer instruction is not enabled for models/gemma-3-27b-it")),
        _REFUSED,
        "Google AI Studio: Developer instruction is not enabled for models/gemma-3-27b-it",
    ),
    Seen(
        "one image at most",
        400,
        _provider(
            "Crucible",
            _openai("Model 'moonshotai/kimi-k2.6' supports at most 1 image per prompt.", request_id="req_1"),
            is_byok=False,
        ),
        _REFUSED,
        "Crucible: Model 'moonshotai/kimi-k2.6' supports at most 1 image per prompt.",
    ),
    Seen(
        "the word json is missing",
        400,
        _provider(
            "OpenAI", _openai("Response input messages must contain the word 'json' in some form", param="input")
        ),
        _REFUSED,
        "OpenAI: Response input messages must contain the word 'json'",
    ),
    Seen(
        "its context, by a provider",
        400,
        _provider(
            "Nvidia",
            {"error": {"message": "This model's maximum context length is 262144 tokens.", "type": "Bad Request"}},
            provider_error_code="400",
        ),
        _REFUSED,
        "Nvidia: This model's maximum context length is 262144 tokens.",
    ),
    Seen(
        "no content part",
        400,
        _provider(
            "Xiaomi",
            {"error": {"code": "400", "message": "Param Incorrect", "param": "messages[2] must contain a part"}},
        ),
        _REFUSED,
        "Xiaomi: Param Incorrect",
    ),
    Seen(
        "order of messages",
        400,
        _provider(
            "Mistral",
            {"object": "error", "message": "Duplicate tool call id in assistant message", "code": "3230"},
        ),
        _REFUSED,
        "Mistral: Duplicate tool call id in assistant message",
    ),
    Seen(
        "tool results are missing",
        400,
        _provider("DeepSeek", _openai("An assistant message with 'tool_calls' must be followed by tool messages")),
        _REFUSED,
        "DeepSeek: An assistant message with 'tool_calls' must be followed by tool messages",
    ),
    Seen(
        "name of a tool",
        400,
        _provider(
            "Azure",
            {
                "type": "error",
                "error": {"type": "invalid_request_error", "message": "tools.0.custom.name: String should"},
            },
        ),
        _REFUSED,
        "Azure: tools.0.custom.name: String should",
    ),
    Seen(
        "thought signature",
        400,
        _provider(
            "Google",
            "Gemini models require OpenRouter reasoning details to be preserved in each request. Upstream error: {}",
            previous_errors=[{"code": 429, "message": "429 ...", "provider_name": "Google AI Studio"}],
        ),
        _REFUSED,
        "Google: Gemini models require OpenRouter reasoning details to be preserved",
    ),
    Seen(
        "the provider's own key",
        400,
        _provider("Google AI Studio", _google("API key not valid. Please pass a valid API key.")),
        _REFUSED,
        "Google AI Studio: API key not valid.",
    ),
    Seen(
        "input validation",
        400,
        {"message": "Provider returned error", "metadata": {"raw": "Input validation error"}},
        _REFUSED,
        "Input validation error",
    ),
    Seen(
        "an empty reason",
        404,
        _provider("Nvidia", "", previous_errors=[{"code": 429, "message": "Resource exhausted"}]),
        _REFUSED,
        "Provider returned error",
    ),
    Seen(
        "the provider's balance",
        403,
        _provider(
            "SiliconFlow", {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None}
        ),
        _REFUSED,
        "SiliconFlow: Sorry, your account balance is insufficient",
    ),
    Seen(
        "a wall before the provider",
        403,
        {"message": "Provider returned error", "metadata": {"raw": "upstream WAF blocked policy XYZ"}},
        _REFUSED,
        "upstream WAF blocked policy XYZ",
    ),
    # regions
    Seen(
        "country, by a provider",
        403,
        {
            "message": "Provider returned error",
            "metadata": {
                "raw": {
                    "__kind": "OK",
                    "data": json.dumps(
                        {
                            "error": {
                                "code": "unsupported_country_region_territory",
                                "message": "Country, region, or territory not supported",
                                "type": "request_forbidden",
                            }
                        }
                    ),
                },
                "provider_name": "OpenAI",
            },
        },
        _REFUSED,
        "OpenAI: Country, region, or territory not supported",
    ),
    Seen(
        "location, by a provider",
        400,
        _provider(
            "Google AI Studio",
            _google("User location is not supported for the API use.", "FAILED_PRECONDITION"),
        ),
        _REFUSED,
        "Google AI Studio: User location is not supported for the API use.",
    ),
    Seen(
        "region, by the router",
        403,
        _routing("This model is not available in your region.", "Gate Endpoints with Geo Restrictions", 5),
        _REFUSED,
        "This model is not available in your region.",
    ),
    Seen(
        "country, in words alone",
        403,
        {"message": "This model is not available in your country.", "type": "RegionError"},
        _REFUSED,
        "This model is not available in your country.",
    ),
    # the model's limits
    Seen(
        "its context, by the endpoint",
        400,
        {
            "message": "This endpoint's maximum context length is 131072 tokens. However, you requested about 141607 "
            "tokens (10535 of text input, 131072 in the output). Please reduce the length of either one, or use the "
            '"middle-out" transform to compress your prompt automatically.',
            "metadata": {"provider_name": "Chutes"},
        },
        _REFUSED,
        "This endpoint's maximum context length is 131072 tokens.",
    ),
    Seen(
        "its context, of nobody",
        400,
        {
            "message": "This endpoint's maximum context length is 262000 tokens. However, you requested about 263390 "
            "tokens (658 of text input, 732 of tool input, 262000 in the output). Please reduce the length of either "
            "one, or use the context-compression plugin to compress your prompt automatically.",
            "metadata": {"provider_name": None},
        },
        _REFUSED,
        "This endpoint's maximum context length is 262000 tokens.",
    ),
    Seen(
        "its context, by the type alone",
        400,
        {"message": "too long", "metadata": {"error_type": "context_length_exceeded"}},
        _REFUSED,
        "too long",
    ),
    Seen(
        "tool use",
        404,
        {"message": f"No endpoints found that support tool use. To learn more about provider routing, visit: {_DOCS}"},
        _REFUSED,
        "No endpoints found that support tool use.",
    ),
    Seen(
        "tool use, by the router",
        404,
        _routing('No endpoints found that support tool use. Try disabling "bash".', "Filter by Tool Compatibility"),
        _REFUSED,
        "No endpoints found that support tool use.",
    ),
    Seen("images", 404, {"message": "No endpoints found that support image input"}, _REFUSED, "support image input"),
    Seen(
        "images, by the router",
        404,
        _routing("No endpoints found that support image input", "Filter by Image Support", 29),
        _REFUSED,
        "No endpoints found that support image input",
    ),
    Seen(
        "kinds of answers",
        404,
        _routing(
            "No endpoints found that support the requested output modalities: image, text",
            "Filter by Model Output Modalities",
        ),
        _REFUSED,
        "support the requested output modalities",
    ),
    Seen(
        "parameters",
        404,
        _routing(
            f"No endpoints found that can handle the requested parameters. To learn more, visit: {_DOCS}",
            "Filter by Parameters",
        ),
        _REFUSED,
        "No endpoints found that can handle the requested parameters.",
    ),
    Seen(
        "quantization",
        404,
        _routing("No endpoints found for the request with quantization: fp32.", "Filter by Quantization"),
        _REFUSED,
        "No endpoints found for the request with quantization: fp32.",
    ),
    Seen(
        "providers that the caller leaves out",
        404,
        _routing("All providers have been ignored.", "Filter by Ignored Providers"),
        _REFUSED,
        "All providers have been ignored.",
    ),
    Seen(
        "no endpoint is left",
        404,
        {
            "message": "No endpoints found for ~google/gemini-flash-latest.",
            "metadata": {
                "routing_funnel": [
                    {"step": "Initial Endpoints", "endpoint_count": 44},
                    {"step": "Filter by Fallback", "endpoint_count": 0},
                ]
            },
        },
        _REFUSED,
        "No endpoints found for ~google/gemini-flash-latest.",
    ),
    Seen(
        "reasoning",
        400,
        {"message": "Reasoning is mandatory for this endpoint and cannot be disabled."},
        _REFUSED,
        "Reasoning is mandatory for this endpoint",
    ),
    Seen(
        "only for some programs",
        403,
        _routing(
            "thinkingmachines/inkling:free is only available on agentic harnesses.",
            "Gate Free Endpoints by Agentic Harness",
        ),
        _REFUSED,
        "is only available on agentic harnesses",
    ),
    Seen(
        "only after a confirmation",
        403,
        _routing(
            "This model requires you to complete the following before use: 18+ age confirmation.",
            "Gate Endpoints with Attestations",
            missing_attestation_types=["age_18plus"],
        ),
        _REFUSED,
        "18+ age confirmation",
    ),
    # the request itself
    Seen(
        "no messages",
        400,
        {"message": 'Input required: specify "prompt" or "messages"'},
        FailureKind.REJECTED,
        "Input required",
    ),
    Seen(
        "an option of reasoning",
        400,
        {
            "message": 'reasoning.effort: Invalid option: expected one of "max"|"xhigh"|"high"|"medium"|"low"|"minimal"'
            '|"none"'
        },
        FailureKind.REJECTED,
        "reasoning.effort: Invalid option",
    ),
    Seen(
        "a type",
        400,
        {"message": '[{"code":"invalid_type","expected":"array","received":"string","path":["messages"]}]'},
        FailureKind.REJECTED,
        "invalid_type",
    ),
    Seen(
        "a limit that is none",
        400,
        {
            "message": "max_tokens: Number must be greater than or equal to 1",
            "metadata": {"error_type": "invalid_request"},
        },
        FailureKind.REJECTED,
        "max_tokens: Number must be greater",
    ),
    Seen(
        "moderation",
        403,
        {
            "message": "openai/gpt-oss-20b:free requires moderation on OpenInference. Your input was flagged",
            "metadata": {
                "reasons": ["harassment"],
                "flagged_input": "what was said",
                "provider_name": "OpenInference",
                "model_slug": "openai/gpt-oss-20b",
            },
        },
        FailureKind.REJECTED,
        "Your input was flagged",
    ),
    Seen(
        "moderation, by the type alone",
        400,
        {"message": "Blocked", "metadata": {"error_type": "content_policy_violation", "provider_code": "x"}},
        FailureKind.REJECTED,
        "Blocked",
    ),
    Seen(
        "the account's guardrail",
        403,
        {
            "message": "Request blocked: prompt injection patterns detected",
            "metadata": {"patterns": ["ignore all previous instructions"]},
        },
        FailureKind.REJECTED,
        "Request blocked: prompt injection patterns detected",
    ),
    Seen(
        "the router's own wall",
        403,
        {"message": "Access denied by security policy"},
        FailureKind.REJECTED,
        "Access denied by security policy",
    ),
    # the model is not to be had
    Seen(
        "no such model",
        400,
        {"message": "google/gemini-2.0-pro-exp-02-05:free is not a valid model ID"},
        FailureKind.MODEL_GONE,
        "is not a valid model ID",
    ),
    Seen(
        "the account's data policy",
        404,
        _routing(
            "0 endpoints out of 1 requested are available matching your guardrail restrictions and data policy. We "
            "removed them for the following reasons: Free model training violation (guardrail): 1 endpoint excluded",
            "Filter by Guardrails",
            ineligibility_reasons=[{"reason": "free-model-training-violation-by-guardrail", "endpoint_count": 1}],
        ),
        FailureKind.MODEL_GONE,
        "privacy settings",
    ),
    Seen(
        "it costs",
        404,
        _routing("No endpoints found that satisfy the max price for this request", "Filter by Max Price"),
        FailureKind.NOT_FREE,
        "it would cost money",
    ),
    # our key, our account
    Seen("no such user", 401, {"message": "User not found."}, FailureKind.UNAUTHORIZED, "User not found."),
    Seen(
        "no key",
        401,
        {"message": "Missing Authentication header", "metadata": {"error_type": "authentication"}},
        FailureKind.UNAUTHORIZED,
        "Missing Authentication header",
    ),
    Seen(
        "the key's limit",
        403,
        {"message": "Key limit exceeded (total limit). Manage it using https://openrouter.ai/settings/keys"},
        FailureKind.UNAUTHORIZED,
        "Key limit exceeded (total limit).",
    ),
    Seen(
        "another kind of key",
        403,
        {"message": "Only management keys can perform this operation", "metadata": {"error_type": "permission_denied"}},
        FailureKind.UNAUTHORIZED,
        "Only management keys can perform this operation",
    ),
    Seen(
        "no credit",
        402,
        {
            "message": "Prompt tokens limit exceeded: 10335 > 6390. To increase, visit "
            "https://openrouter.ai/settings/credits and upgrade to a paid account",
            "metadata": {"limit_source": "openrouter_credits"},
        },
        FailureKind.PAYMENT_REQUIRED,
        "Prompt tokens limit exceeded",
    ),
    # others' load
    Seen(
        "the pool",
        429,
        _provider(
            "BaseTen",
            "z-ai/glm-5.3-flash is temporarily rate-limited upstream. Please retry shortly.",
            limit_source="upstream_provider_shared_pool",
        ),
        FailureKind.UPSTREAM_BUSY,
        "BaseTen: z-ai/glm-5.3-flash is temporarily rate-limited upstream.",
    ),
    Seen(
        "a provider is away",
        502,
        {
            "message": "Upstream error from Nvidia: Service temporarily overloaded",
            "metadata": {"error_type": "provider_unavailable"},
        },
        FailureKind.SERVER_ERROR,
        "Upstream error from Nvidia: Service temporarily overloaded",
    ),
)
