import json
from typing import Any

import pytest

from rollout.dispatch.classify import classify, interrupted
from rollout.dispatch.failures import http_status
from rollout.dispatch.opening import Opening
from rollout.domain.failure import GATEWAY_FAULTS, MODEL_FAULTS, PATH_FAULTS, PATH_LIVES, FailureKind
from rollout.domain.flag import Path
from tests.dispatch.openrouter_errors import SEEN, Seen

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


@pytest.mark.parametrize(
    "message",
    ["Invalid model name passed in model=x", "You passed in model=x. There are no healthy deployments for it"],
)
def test_a_model_that_the_gateway_does_not_know_is_the_gateways_fault(message: str) -> None:
    error = {"error": {"message": message}}
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
        (404, {"message": "No endpoints found that support tool use."}, FailureKind.MODEL_REFUSED, None),
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


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.name)
def test_a_real_error_of_openrouter_is_counted_for_what_it_is_and_shown_in_its_words(seen: Seen) -> None:
    fault = judged(seen.status, seen.document)
    assert (fault.kind, seen.words in fault.detail) == (seen.kind, True), fault


# measured with LiteLLM 1.106.2: how it names the errors of a status before it quotes OpenRouter's whole body
WRAPPED = {
    401: "litellm.AuthenticationError: AuthenticationError: OpenrouterException - ",
    404: "litellm.NotFoundError: NotFoundError: OpenrouterException - ",
    429: "litellm.RateLimitError: RateLimitError: OpenrouterException - ",
}
BY_HAND = (
    "litellm.BadRequestError: OpenrouterException - ",
    "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: OpenrouterException - ",
    "litellm.BadRequestError: OpenAIException - ",
)


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.name)
@pytest.mark.parametrize("before", [None, *BY_HAND])
def test_a_real_error_of_openrouter_is_the_same_one_behind_the_gateway(seen: Seen, before: Any) -> None:
    before = before or WRAPPED.get(seen.status, "litellm.APIError: APIError: OpenrouterException - ")
    message = f"{before}{json.dumps(seen.document)}. Received Model Group=x\nAvailable Model Group Fallbacks=None"
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": str(seen.status)}
    fault = judged(seen.status, {"error": error}, path=Path.LITELLM)
    assert (fault.kind, seen.words in fault.detail) == (seen.kind, True), fault


@pytest.mark.parametrize("seen", SEEN, ids=lambda seen: seen.name)
def test_a_real_error_of_openrouter_is_the_same_one_in_a_stream_on_both_paths(seen: Seen) -> None:
    error = seen.document["error"]
    words = f"Message: {error['message']}, Metadata: {error.get('metadata', {})}, User ID: "
    told = {"message": f"litellm.APIError: APIError: OpenrouterException - {words}", "code": str(seen.status)}
    _, direct = opened(event({"choices": [], "error": error}))
    _, gateway = opened(event({"error": told}), path=Path.LITELLM)
    assert (direct.kind, seen.words in direct.detail) == (seen.kind, True), direct
    assert (gateway.kind, seen.words in gateway.detail) == (seen.kind, True), gateway


@pytest.mark.parametrize("path", list(Path))
@pytest.mark.parametrize(
    "message",
    [
        "Provider returned error",  # of an error inside HTTP 200 the gateway keeps nothing but this
        "This endpoint's maximum context length is 40960 tokens. However, you requested about 42988 tokens",
        "This model does not support image input",
        "Unsupported parameter: 'max_tokens' is not supported with this model",
        "Unsupported role: developer",
        "Tool choice is not supported by this model",
        "max_tokens is too large: 1048576. This model supports at most 131072 completion tokens",
        "The input is too long for this model",
        "Developer instruction is not enabled for models/x",
        "Country, region, or territory not supported",
        "Input length 40000 exceeds the maximum allowed input length 32768",
        "Request too large for this model",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "inputs tokens + max_new_tokens must be <= 8192",
        "Your prompt of 9000 tokens exceeds the limit of 8192",
        "json mode is unavailable for this deployment",
        "Unavailable for legal reasons",
        "This geography is not served",
    ],
)
def test_words_alone_tell_that_a_model_refuses(path: Path, message: str) -> None:
    said = {"message": message if path is Path.OPENROUTER else f"litellm.BadRequestError: XException - {message}"}
    assert judged(400, {"error": said}, path=path).kind is FailureKind.MODEL_REFUSED


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (403, "Your organization must be verified to use the model x", FailureKind.MODEL_REFUSED),
        (403, "The provider declined to serve this account", FailureKind.MODEL_REFUSED),
        (403, "Not allowed in this geography", FailureKind.MODEL_REFUSED),
        (451, "Unavailable", FailureKind.MODEL_REFUSED),
        (403, "This key may not use the model x", FailureKind.UNAUTHORIZED),
        (403, "Key limit exceeded (total limit)", FailureKind.UNAUTHORIZED),
        (403, "Forbidden", FailureKind.UNAUTHORIZED),
        (401, "User not found, so no model is served", FailureKind.UNAUTHORIZED),
        (402, "You requested up to 65536 tokens, which exceeds the limit you can afford", FailureKind.PAYMENT_REQUIRED),
        (400, "model: expected a string, received a number", FailureKind.REJECTED),
        (400, "max_tokens must be at least 1", FailureKind.REJECTED),
    ],
)
def test_a_refusal_for_one_model_or_place_is_told_from_a_wrong_key_and_a_wrong_request(
    status: int, message: str, kind: FailureKind
) -> None:
    error = {"message": message, "code": status}
    assert judged(status, {"error": error}).kind is kind
    assert judged(status, through_the_gateway(status, error), path=Path.LITELLM).kind is kind


def test_a_byte_order_mark_before_an_answer_means_nothing() -> None:
    document = {"choices": [{"message": {"content": "Hej"}}]}
    body = b"\xef\xbb\xbf" + json.dumps(document).encode()
    assert classify(Path.OPENROUTER, 200, {}, body, wall=0.0) == (None, document)


def test_a_model_that_refuses_speaks_neither_against_itself_nor_against_its_path() -> None:
    for seen in SEEN:
        if seen.kind is FailureKind.MODEL_REFUSED:
            assert judged(seen.status, seen.document).blames(Path.LITELLM) is FailureKind.MODEL_REFUSED
    assert FailureKind.MODEL_REFUSED in PATH_LIVES
    assert FailureKind.MODEL_REFUSED not in MODEL_FAULTS | PATH_FAULTS


@pytest.mark.parametrize(
    ("upstream", "shown"), [(400, 400), (401, 400), (402, 400), (403, 400), (404, 400), (413, 413), (500, 400)]
)
def test_a_caller_is_shown_a_refusal_as_its_own_request_and_never_as_its_key(upstream: int, shown: int) -> None:
    assert http_status(FailureKind.MODEL_REFUSED, upstream) == shown


@pytest.mark.parametrize(
    ("raw", "hidden"),
    [
        ("Incorrect API key provided: sk-proj-abcDEF123456. See the docs", "abcDEF"),
        ("Authorization: Bearer abc.def-ghi123 is wrong", "def-ghi"),
        ("key AIzaSyA1234567890abcdefgh is wrong", "SyA1234"),
        ("for organization org-AbCdEf123456 on tokens per min", "AbCdEf"),
        ("user_2xAbCdEfGhIjKl has no access", "2xAbCd"),
        ("account_id: 123456789012 is not allowed", "123456789012"),
        ("account 123456789012 is not authorized", "123456789012"),
        ("{'user_id': 'someone-42', 'why': 'x'}", "someone-42"),
        ("https://me:secret-pass@host.example/v1 did not answer", "secret-pass"),
        ("https://host.example/v1?key=abc123&x=1 did not answer", "abc123"),
        ("anna@example.com has no access", "anna@"),
        ("see https://openrouter.ai/workspaces/default/keys/e9de15efe0312af0ee76de8f339e3f0b", "e9de15"),
    ],
)
@pytest.mark.parametrize("path", list(Path))
def test_a_providers_words_are_shown_without_keys_accounts_and_people(path: Path, raw: str, hidden: str) -> None:
    error = {"message": "Provider returned error", "metadata": {"raw": raw, "provider_name": "P"}}
    document = {"error": {"code": 400, **error}} if path is Path.OPENROUTER else through_the_gateway(400, error)
    fault = judged(400, document, path=path)
    assert fault.kind is FailureKind.MODEL_REFUSED
    assert fault.detail.startswith("P: ")
    assert "***" in fault.detail
    assert hidden not in fault.detail


def test_a_providers_words_are_bounded_however_they_are_wrapped() -> None:
    raw: Any = "x" * 100_000
    for _ in range(50):
        raw = {"error": raw}
    odd: list[Any] = [raw, json.dumps({"error": {"message": "y" * 100_000}}), [[]] * 10, {"a": 1}, 5, None, "{", ""]
    for said in odd:
        error = {"message": "Provider returned error", "metadata": {"raw": said, "provider_name": 5}}
        assert 0 < len(judged(400, {"error": error}).detail) <= 501


# measured with LiteLLM 1.106.2: what it says if its own code fails on an answer that others can read
OWN_CODE = [
    (400, "litellm.BadRequestError: OpenrouterException - KeyError: 'choices', Got unexpected response from "
          "OpenRouter: {'id': 'gen-1', 'object': 'chat.completion.chunk'}"),
    (400, "litellm.BadRequestError: OpenrouterException - KeyError: 'created', Got unexpected response from "
          "OpenRouter: {'id': 'gen-1', 'choices': []}"),
    (400, "Invalid request format: litellm.APIConnectionError: APIConnectionError: OpenrouterException - Invalid "
          'response object Traceback (most recent call last):\n  File "x.py", line 1\nAttributeError: y'),
    (400, "litellm.BadRequestError: BadRequestError: OpenrouterException - Error in response object"),
    (500, "litellm.APIConnectionError: APIConnectionError: OpenrouterException - 'NoneType' object is not iterable"),
    (500, "litellm.APIConnectionError: APIConnectionError: OpenrouterException - 'NoneType' object has no attribute "
          "'get'"),
    (500, "litellm.APIConnectionError: APIConnectionError: OpenrouterException - string indices must be integers, "
          "not 'str'"),
    (500, "litellm.APIConnectionError: APIConnectionError: OpenrouterException - Error parsing chunk: 1 validation "
          "error for ModelResponseStream\nid\n  Input should be a valid string [type=string_type, input_value=5]"),
    (500, "litellm.APIConnectionError: APIConnectionError: OpenrouterException - Invalid response object"),
    (500, "invalid literal for int() with base 10: 'server_error'"),
    (500, "'>=' not supported between instances of 'str' and 'int'"),
    (500, 'litellm.APIConnectionError: OpenrouterException - can only concatenate str (not "int") to str'),
    (500, "could not convert string to float: 'free'"),
    (500, "int() argument must be a string, a bytes-like object or a real number, not 'dict'"),
    (500, "sequence item 0: expected str instance, int found"),
    (500, "litellm.InternalServerError: The model is repeating the same chunk = ---."),
]  # fmt: skip


@pytest.mark.parametrize(("status", "message"), OWN_CODE)
def test_what_the_gateways_own_code_fails_on_speaks_against_the_gateway_alone(status: int, message: str) -> None:
    error = {"message": message, "type": None, "code": str(status)}
    fault = judged(status, {"error": error}, path=Path.LITELLM)
    assert fault.kind is FailureKind.GATEWAY_ERROR
    assert "the gateway's own code" in fault.detail
    assert "gen-1" not in fault.detail
    assert opened(event({"error": error}), path=Path.LITELLM)[1].kind is FailureKind.GATEWAY_ERROR
    assert judged(status, {"error": error}).kind is not FailureKind.GATEWAY_ERROR
    late = interrupted(Path.LITELLM, error)
    assert (late.kind, late.blames(Path.LITELLM)) == (FailureKind.INTERRUPTED, FailureKind.GATEWAY_ERROR)
    assert FailureKind.GATEWAY_ERROR in GATEWAY_FAULTS & PATH_FAULTS - MODEL_FAULTS


def test_an_upstreams_own_words_that_sound_like_code_are_not_the_gateways() -> None:
    error = {"message": "Provider returned error", "metadata": {"raw": "'NoneType' object is not iterable"}}
    fault = judged(400, through_the_gateway(400, error), path=Path.LITELLM)
    assert (fault.kind, fault.detail) == (FailureKind.MODEL_REFUSED, "'NoneType' object is not iterable")
    assert not interrupted(Path.LITELLM, through_the_gateway(502, error)["error"]).of_gateway


def test_an_error_that_an_old_gateway_quotes_as_an_unexpected_answer_is_the_upstreams() -> None:
    said: Any = {"error": {"message": "This endpoint's maximum context length is 8 tokens", "code": 400}}
    message = (
        f"litellm.BadRequestError: XException - KeyError: 'choices', Got unexpected response from OpenRouter: {said}"
    )
    fault = judged(400, {"error": {"message": message}}, path=Path.LITELLM)
    assert (fault.kind, fault.detail) == (FailureKind.MODEL_REFUSED, said["error"]["message"])


def test_a_400_of_the_gateway_that_names_no_reason_blames_nobody_and_lets_the_direct_path_tell() -> None:
    message = "litellm.BadRequestError: BadRequestError: OpenrouterException - busy"
    fault = judged(400, {"error": {"message": message}}, path=Path.LITELLM)
    assert fault.kind in GATEWAY_FAULTS
    assert fault.blames(Path.LITELLM) is FailureKind.REJECTED
    own = {"message": "litellm.UnsupportedParamsError: openrouter does not support parameters: ['x']"}
    fault = judged(400, {"error": own}, path=Path.LITELLM)
    assert (fault.kind, fault.blames(Path.LITELLM)) == (FailureKind.GATEWAY_ERROR, FailureKind.REJECTED)


def opened(*pieces: Any, end: Any = False, path: Path = Path.OPENROUTER) -> Any:
    opening = Opening(path, {})
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
