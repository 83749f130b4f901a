import json
from typing import Any

import pytest

from rollout.dispatch.classify import classify
from rollout.dispatch.opening import Opening
from rollout.domain.failure import FailureKind
from rollout.domain.flag import Path

GOOD = {"choices": [{"message": {"content": "Hej"}}]}
NOON = 1_700_000_000.0


def judged(status: int, document: Any, *, path: Any = Path.OPENROUTER, headers: Any = None) -> Any:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return classify(path, status, headers or {}, raw, wall=NOON)[0]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, FailureKind.REJECTED),
        (401, FailureKind.UNAUTHORIZED),
        (402, FailureKind.PAYMENT_REQUIRED),
        (403, FailureKind.UNAUTHORIZED),
        (404, FailureKind.MODEL_GONE),
        (408, FailureKind.TIMEOUT),
        (413, FailureKind.REJECTED),
        (422, FailureKind.REJECTED),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.SERVER_ERROR),
        (502, FailureKind.SERVER_ERROR),
        (503, FailureKind.SERVER_ERROR),
        (504, FailureKind.TIMEOUT),
        (302, FailureKind.NO_ANSWER),
        (204, FailureKind.NO_ANSWER),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_status_is_a_kind_also_when_it_hides_in_an_error_inside_200(
    status: int, kind: FailureKind, wrapped: Any
) -> None:
    error = {"error": {"code": status, "message": "because"}}
    fault = judged(200, error) if wrapped else judged(status, error)
    assert fault.detail == "because"
    assert fault.kind is (FailureKind.NO_ANSWER if wrapped and status < 400 else kind)


@pytest.mark.parametrize(
    "document",
    [b"<html>busy</html>", b"", b"{", b"\xff\xfe", [], {"choices": []}, {}, {"error": "x"}, {"error": {"code": "x"}}],
)
def test_an_answer_that_is_none_is_no_answer(document: Any) -> None:
    assert judged(200, document).kind is FailureKind.NO_ANSWER


def test_an_answer_is_an_answer_also_with_an_empty_error_in_it() -> None:
    assert judged(200, GOOD) is None
    assert judged(200, {**GOOD, "error": None}) is None


def test_what_the_gateway_answers_to_a_wrong_key_is_about_our_key() -> None:
    error = {"error": {"message": "No connected db.", "type": "no_db_connection"}}
    assert judged(400, error, path=Path.LITELLM).kind is FailureKind.UNAUTHORIZED
    assert judged(400, error).kind is FailureKind.REJECTED


def test_a_model_that_the_gateway_does_not_know_is_the_gateways_fault() -> None:
    error = {"error": {"message": "Invalid model name passed in model=x"}}
    assert judged(400, error, path=Path.LITELLM).kind is FailureKind.SERVER_ERROR


def through_the_gateway(status: int, error: Any) -> Any:
    """What LiteLLM makes of an upstream's error: the whole answer as text in its own message."""
    quoted = json.dumps({"error": {"code": status, **error}, "user_id": "u"})
    return {"error": {"message": f"litellm.XError: OpenrouterException - {quoted}", "code": str(status), "type": None}}


RESET = str(int((NOON + 30) * 1000))
MINUTE = {
    "message": "Rate limit exceeded: free-models-per-min. ",
    "metadata": {"headers": {"X-RateLimit-Reset": RESET}},
}
DAY = {"message": "Rate limit exceeded: free-models-per-day-high-balance. "}
BUSY = {"message": "Provider returned error", "metadata": {"raw": "x is temporarily rate-limited upstream."}}
ENDED = {
    "message": "The free variant a/b:free is no longer available. Use the paid model a/b instead.",
    "availability": {"code": "free_variant_ended", "fallback_models": ["a/b"]},
}
TO_MIDNIGHT = 86_400 - NOON % 86_400


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize(
    ("status", "error", "kind", "wait"),
    [
        (429, MINUTE, FailureKind.MINUTE_CAP, 30),
        (429, {"message": MINUTE["message"]}, FailureKind.MINUTE_CAP, 60),
        (429, DAY, FailureKind.DAY_CAP, TO_MIDNIGHT),
        (
            429,
            {"message": "x", "metadata": {"limit_source": "openrouter_free_tier_daily"}},
            FailureKind.DAY_CAP,
            TO_MIDNIGHT,
        ),
        (429, BUSY, FailureKind.UPSTREAM_BUSY, None),
        (
            429,
            {"message": "x", "metadata": {"limit_source": "upstream_provider_shared_pool"}},
            FailureKind.UPSTREAM_BUSY,
            None,
        ),
        (429, {"message": "slow down"}, FailureKind.RATE_LIMITED, None),
        (503, {"message": "x", "availability": {"retry_after": 7}}, FailureKind.SERVER_ERROR, 7),
        (404, ENDED, FailureKind.MODEL_GONE, None),
        (404, {"message": "No endpoints found matching your data policy"}, FailureKind.MODEL_GONE, None),
        (
            404,
            {"message": "No endpoints found for x that satisfy the requested max_price."},
            FailureKind.NOT_FREE,
            None,
        ),
        (404, {"message": "No endpoints found that support tool use."}, FailureKind.MODEL_GONE, None),
        (400, {"message": "a/b:free is not a valid model ID"}, FailureKind.MODEL_GONE, None),
        (400, {"message": "bad"}, FailureKind.REJECTED, None),
        (403, {"message": "requires moderation", "metadata": {"flagged_input": ""}}, FailureKind.REJECTED, None),
        (402, {"message": "Insufficient credits"}, FailureKind.PAYMENT_REQUIRED, None),
    ],
)
def test_what_an_upstream_means_is_read_on_both_paths(
    path: Path, status: int, error: Any, kind: FailureKind, wait: Any
) -> None:
    document = {"error": {"code": status, **error}} if path is Path.OPENROUTER else through_the_gateway(status, error)
    fault = judged(status, document, path=path)
    assert (fault.kind, fault.retry_after) == (kind, wait)
    assert fault.fits is ("tool use" not in str(error))


def test_the_sentences_of_a_model_that_is_gone_say_what_to_do_and_never_to_pay() -> None:
    assert "paid one is suggested and never asked" in judged(404, {"error": ENDED}).detail
    policy = {"error": {"message": "No endpoints found matching your data policy"}}
    assert "privacy settings" in judged(404, policy).detail


def test_a_message_that_cannot_be_parsed_is_searched() -> None:
    text = f'429 free-models-per-day "X-RateLimit-Reset":"{RESET}" (cut off here {{"a'
    fault = judged(429, {"error": {"message": text}}, path=Path.LITELLM)
    assert (fault.kind, fault.retry_after) == (FailureKind.DAY_CAP, 30)


def test_a_day_never_lasts_beyond_midnight() -> None:
    headers = {"x-ratelimit-reset": str(int((NOON + 86_000) * 1000)), "retry-after": "5"}
    assert judged(429, {"error": DAY}, headers=headers).retry_after == TO_MIDNIGHT


def test_the_gateways_own_breaker_is_told_apart_from_the_upstreams_limits() -> None:
    error = {"message": "No deployments available. Try again in 5 seconds.", "type": "all_deployments_in_cooldown"}
    fault = judged(429, {"error": error}, path=Path.LITELLM)
    assert (fault.kind, fault.retry_after) == (FailureKind.GATEWAY_COOLDOWN, 5)
    assert judged(429, {"error": error}).kind is FailureKind.RATE_LIMITED


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.2"}, 1.0),
        ({"llm_provider-retry-after": "9"}, 9.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"x-ratelimit-reset": "1700000060000"}, 60.0),
        ({"retry-after": "999999"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"x-ratelimit-reset": "x"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_where_it_is_sane(headers: Any, seconds: Any) -> None:
    assert judged(429, {"error": {"message": "slow"}}, headers=headers).retry_after == seconds


def test_a_reset_inside_the_error_is_read_too() -> None:
    error = {"error": {"code": 429, "metadata": {"headers": {"X-RateLimit-Reset": "1700000010000"}}}}
    assert judged(200, error).retry_after == 10.0


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Message: Provider disconnected, Metadata: {}, User ID: user_7", "Provider disconnected"),
        ("Message: a, b: c, Metadata: {'raw': 'x, Metadata: y'}, User ID: . No fallback.", "a, b: c"),
        ("Message: , Metadata: {}, User ID: user_7", "HTTP 502"),
        ("Message: cut off, User ID: user_7", "litellm.APIError: APIError: OpenrouterException - Message: cut off"),
        (
            '{"message": "cut", "user_id": "user_7',
            'litellm.APIError: APIError: OpenrouterException - {"message": "cut"',
        ),
    ],
)
def test_the_gateways_words_around_an_upstreams_are_left_out_and_the_accounts_id_with_them(
    said: str, words: str
) -> None:
    error = {"message": f"litellm.APIError: APIError: OpenrouterException - {said}", "type": None, "code": "502"}
    fault = judged(200, {"error": error}, path=Path.LITELLM)
    assert (fault.kind, fault.detail) == (FailureKind.SERVER_ERROR, words)
    assert judged(502, {"error": {"message": "of no user id: 7"}}).detail == "of no user id: 7"


def test_a_message_is_one_bounded_line() -> None:
    fault = judged(500, {"error": {"message": "a\n b" * 1000}})
    assert "\n" not in fault.detail
    assert len(fault.detail) <= 501


@pytest.mark.parametrize(
    "quoted",
    [
        'Unable to get json response, Original Response: {"content": "mine"',
        "Invalid response object received_args={'response_object': 'mine'}",
        "KeyError: 'created', Got unexpected response from OpenRouter: {'delta': 'mine'}",
        "The model is repeating the same chunk = mine.",
        "Invalid response object Traceback (most recent call last):\n mine",
    ],
)
def test_an_answer_that_the_gateway_quotes_is_no_part_of_the_sentence(quoted: str) -> None:
    error = {"error": {"message": f"litellm.APIError: OpenrouterException - {quoted}"}}
    fault = judged(500, error, path=Path.LITELLM)
    assert "litellm.APIError" in fault.detail
    assert "mine" not in fault.detail


def opened(*pieces: Any, end: Any = False) -> Any:
    opening = Opening(Path.OPENROUTER, {})
    fault = None
    for piece in pieces:
        fault = fault or opening.feed(piece, wall=NOON)
    if end:
        fault = fault or opening.end(wall=NOON)
    return opening, fault


def event(document: Any) -> Any:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def test_a_stream_is_held_back_until_it_delivers() -> None:
    role = event({"model": "m", "choices": [{"delta": {"role": "assistant", "content": ""}}]})
    opening, fault = opened(b": busy\n\n", role)
    assert (opening.committed, fault) == (False, None)
    opening, fault = opened(b": busy\n\n", role, event({"choices": [{"delta": {"content": "x"}}]}))
    assert (opening.committed, fault, opening.model) == (True, None, "m")
    assert bytes(opening.held).startswith(b": busy\n\ndata: ")


@pytest.mark.parametrize(
    ("piece", "kind"),
    [
        (event({"error": {"code": 429, "message": "x"}}), FailureKind.RATE_LIMITED),
        (event({"error": {"code": "server_error"}}), FailureKind.NO_ANSWER),
        (b"data: [DONE]\n\n", FailureKind.EMPTY),
        (event({"choices": [{"delta": {}, "finish_reason": "stop"}]}) + b"data: [DONE]\n\n", FailureKind.EMPTY),
        (event({"choices": [{"delta": {"role": "assistant"}}]}), FailureKind.TRUNCATED),
        (event({"choices": [{"delta": {}, "finish_reason": "error"}]}), FailureKind.ERROR_FINISH),
        (b"data: garbage\n\n", FailureKind.NO_ANSWER),
        (b"", FailureKind.NO_ANSWER),
    ],
)
def test_a_stream_that_fails_before_it_delivers_is_a_failed_attempt(piece: Any, kind: FailureKind) -> None:
    opening, fault = opened(piece, end=True)
    assert fault.kind is kind
    assert not opening.committed


def test_a_stream_that_never_delivers_is_bounded() -> None:
    comment = b":" + b"x" * 1_000_000 + b"\n"
    _, fault = opened(*[comment] * 20)
    assert fault.kind is FailureKind.NO_ANSWER
