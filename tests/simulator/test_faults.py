"""Each scripted fault has its documented shape."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from rollout.simulator import Fault, FaultError, Kind, parse_faults
from rollout.simulator.faults import Script

MODEL = "qwen/qwen3-coder:free"
DONE = "data: [DONE]\n\n"
HOUR_MS = 3_600_000


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    return [
        json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {") and line.endswith("}")
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("error_500", 500, "Internal Server Error"),
        ("error_502", 502, "Provider returned error"),
        ("error_503_retry_after", 503, "No instances available"),
        ("rate_limit_minute", 429, "free-models-per-min"),
        ("rate_limit_day", 429, "free-models-per-day"),
        ("upstream_busy", 429, "Provider returned error"),
        ("payment_required", 402, "Insufficient credits"),
        ("forbidden", 403, "moderation"),
        ("unauthorized", 401, "User not found."),
        ("not_found_free_variant_ended", 404, "no longer available"),
        ("not_found_data_policy", 404, "matching your data policy"),
    ],
)
def test_an_error_answer_says_what_it_is(upstream: Any, kind: str, status: int, said: str, *, stream: bool) -> None:
    upstream.script({"kind": kind})
    answer = upstream.ask(stream=stream)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, status)
    assert said in error["message"]
    assert answer.headers["content-type"] == "application/json"
    entry = upstream.entries()[-1]
    assert (entry["status"], entry["fault"], entry["finished"]) == (status, kind, True)


def test_the_three_kinds_of_429_differ_in_source_and_headers(upstream: Any) -> None:
    found = {}
    for kind in ("rate_limit_minute", "rate_limit_day", "upstream_busy"):
        upstream.script({"kind": kind})
        found[kind] = upstream.ask()
    metadata = {kind: answer.json()["error"]["metadata"] for kind, answer in found.items()}
    assert "limit_source" not in metadata["rate_limit_minute"]
    assert metadata["rate_limit_day"]["limit_source"] == "openrouter_free_tier_daily"
    assert metadata["upstream_busy"]["limit_source"] == "upstream_provider_shared_pool"
    assert "temporarily rate-limited upstream" in metadata["upstream_busy"]["raw"]
    assert found["rate_limit_minute"].headers["x-ratelimit-limit"] == "20"
    assert found["rate_limit_day"].headers["x-ratelimit-limit"] == "50"
    assert int(found["rate_limit_day"].headers["x-ratelimit-reset"]) % (24 * HOUR_MS) == 0
    assert "x-ratelimit-reset" not in found["upstream_busy"].headers


@pytest.mark.parametrize("kind", ["rate_limit_minute", "rate_limit_day"])
def test_a_quota_may_be_told_when_it_resets(upstream: Any, kind: str) -> None:
    upstream.script({"kind": kind, "seconds": 900})
    reset = int(upstream.ask().headers["x-ratelimit-reset"]) / 1000 - time.time()
    assert 800 < reset <= 900


def test_a_503_may_say_something_absurd(upstream: Any) -> None:
    upstream.script({"kind": "error_503_retry_after", "seconds": 999_999})
    assert upstream.ask().headers["retry-after"] == "999999"


def test_a_503_says_when_to_come_back(upstream: Any) -> None:
    upstream.script({"kind": "error_503_retry_after", "seconds": 7})
    answer = upstream.ask()
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["error"]["availability"]["retry_after"] == 7


def test_a_successful_answer_carries_no_rate_limit_headers(upstream: Any) -> None:
    assert not [name for name in upstream.ask().headers if "ratelimit" in name]


def test_finish_reason_error_is_a_200_with_partial_content(upstream: Any) -> None:
    upstream.script({"kind": "finish_reason_error"})
    choice = upstream.ask().json()["choices"][0]
    assert choice["finish_reason"] == "error"
    assert choice["error"]["code"] == 502
    assert choice["message"]["content"]
    streamed = upstream.ask(stream=True)
    last = events_of(streamed)[-2]
    assert last["choices"][0]["finish_reason"] == "error"
    assert streamed.text.endswith(DONE)


def test_finish_reason_error_may_come_before_any_content(upstream: Any) -> None:
    upstream.script({"kind": "finish_reason_error_at_once"})
    choice = upstream.ask().json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("error", "")
    deltas = [event["choices"][0]["delta"] for event in events_of(upstream.ask(stream=True)) if event["choices"]]
    assert not any(delta["content"] for delta in deltas)


@pytest.mark.parametrize("stream", [False, True])
def test_content_may_be_cut_short_and_still_end_with_stop(upstream: Any, *, stream: bool) -> None:
    upstream.script({"kind": "truncated_content"})
    schema = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = upstream.ask(stream=stream, response_format=wanted)
    choices = [event["choices"][0] for event in events_of(answer) if event["choices"]] if stream else []
    text = "".join(choice["delta"]["content"] for choice in choices)
    if not stream:
        choices = answer.json()["choices"]
        text = choices[0]["message"]["content"]
    assert choices[-1]["finish_reason"] == "stop"
    assert text == '{"name": "'


def test_an_error_may_hide_in_a_200(upstream: Any) -> None:
    upstream.script({"kind": "error_in_200_body"})
    plain, streamed = upstream.ask(), upstream.ask(stream=True)
    assert (plain.status_code, streamed.status_code) == (200, 200)
    assert plain.json()["error"]["code"] == 502
    assert [list(event) for event in events_of(streamed)] == [["error", "user_id"]]


def test_an_error_in_mid_stream_ends_the_stream_without_done(upstream: Any) -> None:
    upstream.script({"kind": "mid_stream_error"})
    answer = upstream.ask(stream=True)
    events = events_of(answer)
    assert events[-1]["error"]["code"] == 502
    assert events[-1]["choices"][0]["finish_reason"] == "error"
    assert events[1]["choices"][0]["delta"]["content"]
    assert "[DONE]" not in answer.text
    assert upstream.ask().json()["error"]["code"] == 502


def test_empty_content_ends_with_stop(upstream: Any) -> None:
    upstream.script({"kind": "empty_content"})
    choice = upstream.ask().json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "stop")
    events = events_of(upstream.ask(stream=True))
    assert not any(event["choices"][0]["delta"]["content"] for event in events if event["choices"])


def test_a_stream_without_done_is_otherwise_complete_and_plain_requests_are_spared(upstream: Any) -> None:
    upstream.script({"kind": "no_done"})
    answer = upstream.ask(stream=True)
    assert "[DONE]" not in answer.text
    assert "usage" in events_of(answer)[-1]
    assert upstream.ask().json()["choices"][0]["finish_reason"] == "stop"
    assert upstream.entries()[-1]["fault"] is None


@pytest.mark.parametrize("kind", ["truncated_json", "html_200"])
def test_a_200_may_be_no_json(upstream: Any, kind: str) -> None:
    upstream.script({"kind": kind})
    answer = upstream.ask()
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
        answer.json()
    assert not upstream.ask(stream=True).text.endswith("\n\n")


def test_garbage_lines_stand_between_good_ones(upstream: Any) -> None:
    upstream.script({"kind": "garbage_lines"})
    answer = upstream.ask(stream=True)
    assert b"\xff\xfe\x00" in answer.content
    assert "data: {not json}" in answer.text
    assert answer.text.endswith(DONE)
    assert upstream.ask().content.startswith(b"\xff")


@pytest.mark.parametrize("stream", [False, True])
def test_a_giant_line_is_one_good_line(upstream: Any, *, stream: bool) -> None:
    upstream.script({"kind": "giant_line", "size_bytes": 3_000_000})
    answer = upstream.ask(stream=stream)
    text = answer.text.split("\n\n")[0].removeprefix("data: ")
    choice = json.loads(text)["choices"][0]
    assert choice["delta" if stream else "message"]["content"] == "x" * 3_000_000


@pytest.mark.parametrize("stream", [False, True])
def test_a_cut_connection_ends_before_its_answer(upstream: Any, *, stream: bool) -> None:
    upstream.script({"kind": "cut_connection"})
    with pytest.raises(httpx.RemoteProtocolError):
        upstream.ask(stream=stream)
    assert upstream.entries()[-1]["closed_early"] is False
    assert upstream.entries()[-1]["finished"] is True


def test_an_answer_that_costs_money_says_so(upstream: Any) -> None:
    before = upstream.client.get(f"{upstream.base_url}/key").json()["data"]["usage"]
    upstream.script({"kind": "costs_money", "cost": 0.25})
    assert upstream.ask().json()["usage"]["cost"] == 0.25
    assert events_of(upstream.ask(stream=True))[-1]["usage"]["cost"] == 0.25
    assert upstream.client.get(f"{upstream.base_url}/key").json()["data"]["usage"] - before == pytest.approx(0.5)


def test_an_answer_that_bills_the_accounts_own_key_costs_nothing_at_openrouter(upstream: Any) -> None:
    upstream.script({"kind": "bills_own_key", "cost": 0.25})
    for usage in (upstream.ask().json()["usage"], events_of(upstream.ask(stream=True))[-1]["usage"]):
        assert (usage["cost"], usage["cost_details"]["upstream_inference_cost"]) == (0, 0.25)


def test_a_slow_answer_comes_in_the_end(upstream: Any) -> None:
    upstream.script({"kind": "slow", "seconds": 0.05, "chunk_seconds": 0.01})
    assert upstream.ask().json()["choices"][0]["finish_reason"] == "stop"
    assert upstream.ask(stream=True).text.endswith(DONE)
    assert not any(entry["closed_early"] for entry in upstream.entries())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "status", "heard"),
    [
        ("hang", None, lambda text: text == ""),
        ("slow", 200, lambda text: "data" not in text),
        ("headers_then_silence", 200, lambda text: text == ""),
        ("comments_forever", 200, lambda text: text.count(": OPENROUTER PROCESSING\n\n") > 1),
        ("one_token_then_silence", 200, lambda text: "gen-" in text and "[DONE]" not in text),
        ("giant_line", 200, lambda text: "xxx" in text),
    ],
)
def test_a_client_that_leaves_is_noticed(
    upstream: Any, kind: str, status: int | None, heard: Callable[[str], bool], *, stream: bool
) -> None:
    seconds = {"slow": {"seconds": 600.0}, "comments_forever": {"seconds": 0.001}}.get(kind)
    upstream.script({"kind": kind, **(seconds or {})})
    with httpx.Client(timeout=0.3) as client:
        text = ""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hej!"}], "stream": stream}
        try:
            with client.stream(
                "POST", f"{upstream.base_url}/chat/completions", json=body, headers={"authorization": "Bearer k"}
            ) as answer:
                for part in answer.iter_text():
                    text += part
                    if len(text) > 2000:
                        break
        except httpx.ReadTimeout:
            pass
    entry = upstream.wait_for(lambda entry: entry["finished"])
    assert entry["closed_early"] is True
    assert entry["fault"] == kind
    if kind == "slow" and not stream:
        status = None
    assert entry["status"] == status
    assert heard(text)


def test_a_client_that_leaves_within_its_request_is_noticed(upstream: Any) -> None:
    host, port = upstream.base_url.removeprefix("http://").removesuffix("/api/v1").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"POST /api/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert upstream.wait_for(lambda entry: entry["finished"])["closed_early"] is True


def test_a_fault_meets_only_whom_it_matches(upstream: Any) -> None:
    upstream.script({"kind": "error_500", "via": "litellm", "user": "anna", "model": MODEL, "stream": False})
    gateway = {"user-agent": "litellm/1.106.2"}
    assert upstream.ask(gateway, user="anna").status_code == 500
    assert upstream.ask(user="anna").status_code == 200
    assert upstream.ask(gateway, user="bo").status_code == 200
    assert upstream.ask(gateway, user="anna", stream=True).status_code == 200
    assert upstream.ask(gateway, user="anna", model="lumen/aurora-3-flash:free").status_code == 200


def test_the_first_fault_whose_turn_it_is_wins(upstream: Any) -> None:
    upstream.script({"kind": "error_502", "first": 2}, {"kind": "error_500", "every": 2})
    assert [upstream.ask().status_code for _ in range(6)] == [502, 502, 200, 500, 200, 500]
    tallies = upstream.manage("GET", "faults").json()["faults"]
    assert [(each["matched"], each["applied"]) for each in tallies] == [(6, 2), (4, 2)]


def test_a_probability_is_drawn_from_the_seed() -> None:
    def drawn(seed: int) -> list[bool]:
        script = Script(seed, [Fault(Kind.HANG, probability=0.3)])
        return [script.next("direct", MODEL, None, stream=False) is not None for _ in range(1000)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 250 < sum(drawn(1)) < 350


def test_every_fault_survives_being_written_and_read() -> None:
    faults = tuple(Fault(kind, via="direct", every=2, first=9, probability=0.5) for kind in Kind)
    assert parse_faults([fault.document() for fault in faults]) == faults
    assert parse_faults({"faults": []}) == ()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "must be a list"),
        ([3], r"faults\[0\]: must be an object"),
        ([{}], "kind is missing"),
        ([{"kind": "boom"}], "kind must be one of error_500"),
        ([{"kind": ["hang"]}], "kind must be one of"),
        ([{"kind": "hang", "often": 2}], "unknown 'often'; known are kind"),
        ([{"kind": "hang", "via": "bus"}], "via must be 'litellm' or 'direct'"),
        ([{"kind": "hang", "user": 3}], "user must be a text"),
        ([{"kind": "hang", "stream": 1}], "stream must be true or false"),
        ([{"kind": "hang", "every": 0}], "every must be an integer of at least 1"),
        ([{"kind": "hang", "first": True}], "first must be an integer"),
        ([{"kind": "hang", "probability": 1.1}], "probability must be a number from 0 to 1"),
        ([{"kind": "hang", "probability": "x"}], "probability must be a number"),
        ([{"kind": "hang", "seconds": 1}], "hang takes no seconds; it takes: nothing"),
        ([{"kind": "slow", "seconds": -1}], "seconds must be a number from 0 to 3600"),
        ([{"kind": "slow", "seconds": float("nan")}], "seconds must be a number"),
        ([{"kind": "giant_line", "size_bytes": 10**12}], "size_bytes must be a number"),
        ([{"kind": "hang"}, {"kind": "x"}, {"kind": "y"}], r"faults\[1\].*; faults\[2\]"),
    ],
)
def test_a_fault_that_cannot_be_played_is_explained(document: object, message: str) -> None:
    with pytest.raises(FaultError, match=message):
        parse_faults(document)


def test_a_fault_made_in_code_is_checked_too() -> None:
    with pytest.raises(FaultError, match="kind must be one of"):
        Fault("boom")  # type: ignore[arg-type]  # the point of the test
