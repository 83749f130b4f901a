"""Every error the upstream answers with, in its exact shape: `{"error": {code, message, metadata, ...}}`.

Three kinds of 429 look alike and need different reactions; they differ in message, headers and
`metadata.limit_source`. A withdrawn free model is refused with the *paid* twin as a suggestion.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from rollout.simulator.account import Exhausted, Window
from rollout.simulator.models import FREE_SUFFIX, Model

USER_ID: Final = "user_simulated"
_HIGH_BALANCE_LIMIT: Final = 1_000
"""Free requests in a day once ten credits were bought."""

_DOCS: Final = "https://openrouter.ai/docs/api-reference/errors"


class Refusal(NamedTuple):
    """An error answer: HTTP status, document, extra headers."""

    status: int
    document: dict[str, Any]
    headers: tuple[tuple[str, str], ...] = ()

    def body(self) -> bytes:
        """Write the document."""
        return json.dumps(self.document).encode()


def _refusal(
    code: int,
    message: str,
    *,
    metadata: dict[str, Any] | None = None,
    availability: dict[str, Any] | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> Refusal:
    error: dict[str, Any] = {"message": message, "code": code}
    if metadata is not None:
        error["metadata"] = metadata
    if availability is not None:
        error["availability"] = availability
    return Refusal(code, {"error": error, "user_id": USER_ID}, headers)


def _availability(
    code: str,
    requested: Sequence[str],
    *,
    retryable: bool = False,
    retry_after: float | None = None,
    fallback_models: Sequence[str] = (),
    constraint: str | None = None,
) -> dict[str, Any]:
    return {
        "code": code,
        "retryable": retryable,
        "retry_after": retry_after,
        "requested_models": list(requested),
        "excluded_by": constraint,
        "fallback_models": list(fallback_models),
        "constraint": constraint,
        "docs_url": _DOCS,
    }


def bad_request(message: str) -> Refusal:
    """400: the request cannot be read."""
    return _refusal(400, message)


def not_found(message: str = "Not Found") -> Refusal:
    """404: no such route."""
    return _refusal(404, message)


def too_large(limit: int) -> Refusal:
    """413: the body is over the limit, in bytes."""
    return _refusal(413, f"Request body is too large: at most {limit} bytes are accepted")


def no_credentials() -> Refusal:
    """401: there is no usable Authorization header."""
    return _refusal(401, "No auth credentials found")


def unauthorized() -> Refusal:
    """401: the key is not known."""
    return _refusal(401, "User not found.")


def payment_required() -> Refusal:
    """402: the account has no credit left."""
    return _refusal(402, "Insufficient credits. Add more using https://openrouter.ai/settings/credits")


def forbidden(model: str) -> Refusal:
    """403: moderation flagged the input."""
    return _refusal(
        403,
        f"{model} requires moderation on this provider. Your input was flagged",
        metadata={"reasons": ["simulated"], "flagged_input": "", "provider_name": "Simulated", "model_slug": model},
    )


def error_500() -> Refusal:
    """500: the upstream itself failed."""
    return _refusal(500, "Internal Server Error")


def error_502(provider: str) -> Refusal:
    """502: the provider answered with nonsense."""
    return _refusal(
        502,
        "Provider returned error",
        metadata={"error_type": "provider_error", "provider_name": provider, "raw": "upstream connect error"},
    )


def error_503(model: str, retry_after: float) -> Refusal:
    """503: nobody can answer now; try again after some seconds."""
    return _refusal(
        503,
        "No instances available. Please try again later.",
        availability=_availability("temporarily_unavailable", [model], retryable=True, retry_after=retry_after),
        headers=(("Retry-After", f"{max(0, round(retry_after))}"),),
    )


def rate_limited(quota: Exhausted) -> Refusal:
    """429: one of the account's two free quotas is used up; no other model helps."""
    named = {
        "X-RateLimit-Limit": str(quota.limit),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(quota.reset_ms),
    }
    metadata: dict[str, Any] = {"headers": named}
    if quota.window is Window.MINUTE:
        message = "Rate limit exceeded: free-models-per-min. "
    else:
        metadata["limit_source"] = "openrouter_free_tier_daily"
        message = "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day"
        if quota.limit >= _HIGH_BALANCE_LIMIT:
            message = "Rate limit exceeded: free-models-per-day-high-balance. "
    return _refusal(429, message, metadata=metadata, headers=tuple(named.items()))


def upstream_busy(model: str, provider: str) -> Refusal:
    """429: the provider's shared pool is busy; another model may answer."""
    return _refusal(
        429,
        "Provider returned error",
        metadata={
            "raw": f"{model} is temporarily rate-limited upstream. Please retry shortly, or add your own key",
            "provider_name": provider,
            "limit_source": "upstream_provider_shared_pool",
        },
    )


def model_unknown(model: str) -> Refusal:
    """400: there never was such a model."""
    return _refusal(400, f"{model} is not a valid model ID", availability=_availability("model_not_found", [model]))


def free_variant_ended(model: str) -> Refusal:
    """404: the free model is gone; the suggestion is its paid twin, which costs money."""
    paid = model.removesuffix(FREE_SUFFIX)
    return _refusal(
        404,
        f"The free variant {model} is no longer available. Use the paid model {paid} instead.",
        availability=_availability("free_variant_ended", [model], fallback_models=[paid]),
    )


def no_data_policy(model: str) -> Refusal:
    """404: the account's privacy switch keeps free models out."""
    return _refusal(
        404,
        "No endpoints found matching your data policy (Free model publication). "
        "Configure: https://openrouter.ai/settings/privacy",
        availability=_availability("privacy_restricted", [model]),
    )


def provider_refused(provider: str) -> Refusal:
    """400: the provider behind the model does not take this request, and says so in its own words."""
    said = {
        "error": {"code": 400, "message": "Developer instruction is not enabled for this model", "status": "INVALID"}
    }
    return _refusal(400, "Provider returned error", metadata={"raw": json.dumps(said), "provider_name": provider})


def context_too_long(provider: str) -> Refusal:
    """400: what is asked is longer than the model's context."""
    return _refusal(
        400,
        "This endpoint's maximum context length is 8192 tokens. However, you requested about 9000 tokens. Please "
        "reduce the length, or use the context-compression plugin to compress your prompt automatically.",
        metadata={"provider_name": provider},
    )


def region_restricted() -> Refusal:
    """403: the model is not for the region that the request comes from."""
    funnel = [{"step": "Initial Endpoints", "endpoint_count": 1}]
    return _refusal(
        403,
        "This model is not available in your region.",
        metadata={"routing_funnel": funnel, "failed_routing_step": "Gate Endpoints with Geo Restrictions"},
    )


def withdrawn(model: str) -> Refusal:
    """404: the model was listed once and is gone."""
    if model.endswith(FREE_SUFFIX):
        return free_variant_ended(model)
    return _refusal(404, f"{model} is no longer available.", availability=_availability("model_deprecated", [model]))


def too_expensive(model: Model) -> Refusal:
    """404: `provider.max_price` rules the model out."""
    return _refusal(
        404,
        f"No endpoints found for {model.id} that satisfy the requested max_price.",
        availability=_availability("constraint_filtered", [model.id], constraint="max_price"),
    )


def no_tools(model: Model) -> Refusal:
    """404: the model supports no tools."""
    return _refusal(
        404,
        "No endpoints found that support tool use. To learn more about provider routing, see the documentation.",
        availability=_availability("constraint_filtered", [model.id], constraint="tools"),
    )
