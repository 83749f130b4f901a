"""The record and the control routes."""

import json
from typing import Any

import pytest

from rollout.simulator import users
from rollout.simulator.record import Record

MODEL = "qwen/qwen3-coder:free"


def test_the_record_tells_the_paths_apart(upstream: Any) -> None:
    gateway = {"user-agent": "litellm/1.106.2", "http-referer": "https://litellm.ai", "x-title": "liteLLM"}
    for user in ("anna", "anna", "bo"):
        upstream.ask(user=user)
    upstream.ask(gateway, user="bo", stream=True)
    upstream.ask(gateway, model="z-ai/glm-4.5-air:free")
    counts = upstream.counts()
    assert counts["requests"] == 5
    assert counts["via"] == {"direct": 3, "litellm": 2}
    assert counts["user"] == {"anna": 2, "bo": 2}
    assert counts["model"] == {MODEL: 4, "z-ai/glm-4.5-air:free": 1}
    assert counts["status"] == {"200": 4, "404": 1}
    entry = upstream.entries()[3]
    assert (entry["via"], entry["stream"], entry["closed_early"]) == ("litellm", True, False)
    assert entry["headers"] == gateway
    assert entry["body"]["messages"] == [{"role": "user", "content": "Hej!"}]
    assert "authorization" not in json.dumps(upstream.entries()).lower()


def test_lookups_are_counted_apart_from_completions(upstream: Any) -> None:
    upstream.client.get(f"{upstream.base_url}/models")
    upstream.client.get(f"{upstream.base_url}/key")
    counts = upstream.counts()
    assert counts["lookups"] == {"models": 1, "key": 1}
    assert counts["requests"] == 0


def test_the_record_is_read_on_from_where_one_was(upstream: Any) -> None:
    for _ in range(4):
        upstream.ask()
    page = upstream.manage("GET", "requests").json()
    first = page["requests"][0]["seq"]
    assert page["last_seq"] == first + 3
    rest = upstream.manage("GET", "requests", params={"since": first, "limit": 2}).json()
    assert [entry["seq"] for entry in rest["requests"]] == [first + 1, first + 2]
    assert upstream.manage("DELETE", "requests").json()["requests"] == []
    assert upstream.counts()["requests"] == 0


@pytest.mark.parametrize("query", ["since=x", "since=-1", "limit=1.5", "since=" + "9" * 30])
def test_a_query_that_is_no_number_is_refused(upstream: Any, query: str) -> None:
    answer = upstream.manage("GET", f"requests?{query}")
    assert answer.status_code == 400
    assert "must be an integer of 0 or more" in answer.json()["error"]["message"]


def test_the_record_drops_the_oldest_and_says_how_many() -> None:
    record = Record(limit=3, max_bytes=100)
    for _ in range(5):
        record.keep_body(record.open(0.0, "curl", []), b"x" * 10)
    assert ([entry.seq for entry in record], record.dropped, record.seen) == ([3, 4, 5], 2, 5)
    record.keep_body(record.open(0.0, "curl", []), b"x" * 95)
    assert [entry.seq for entry in record] == [6]
    assert record.counts()["dropped"] == 5


def test_a_model_is_withdrawn_restored_and_repriced(upstream: Any) -> None:
    def put(**document: Any) -> None:
        upstream.manage("PUT", "models", json=document).raise_for_status()

    put(withdraw=[MODEL])
    assert upstream.ask().status_code == 404
    put(restore=[MODEL], price={MODEL: {"prompt": "0.000001"}}, expire={MODEL: "2026-12-31"})
    listed = upstream.client.get(f"{upstream.base_url}/model/{MODEL}").json()["data"]
    assert (listed["pricing"]["prompt"], listed["expiration_date"]) == ("0.000001", "2026-12-31")
    assert upstream.ask().json()["usage"]["cost"] > 0
    put(price={MODEL: {"prompt": "0"}}, expire={MODEL: None})
    assert upstream.ask().json()["usage"]["cost"] == 0
    assert {"id": MODEL, "withdrawn": False, "prompt": "0", "completion": "0", "expiration_date": None} in (
        upstream.manage("GET", "models").json()["models"]
    )


@pytest.mark.parametrize(
    ("route", "document", "message"),
    [
        ("faults", [{"kind": "boom"}], "kind must be one of"),
        ("account", {}, "any of: per_minute"),
        ("account", {"rpm": 3}, "unknown 'rpm'"),
        ("account", {"per_minute": -1}, "per_minute must be an integer"),
        ("account", {"per_day": True}, "per_day must be an integer"),
        ("account", {"per_minute": 5, "per_day": "x"}, "per_day must be an integer"),
        ("account", {"is_free_tier": 1}, "is_free_tier must be true or false"),
        ("account", {"spend_limit": "x"}, "spend_limit must be null or US dollars"),
        ("models", {"withdraw": ["nobody"]}, "'nobody' is not a known model"),
        ("models", {"withdraw": [MODEL], "restore": "x"}, "restore must be a list"),
        ("models", {"price": {MODEL: {"prompt": 0}}}, "must be a text such as"),
        ("models", {"price": {MODEL: {"prompt": "dear"}}}, "must be a text such as"),
        ("models", {"price": []}, "price must be an object"),
        ("models", {"expire": []}, "expire must be an object"),
        ("models", {"expire": {MODEL: "soon"}}, "must be a day such as"),
    ],
)
def test_a_control_request_that_cannot_be_carried_out_changes_nothing(
    upstream: Any, route: str, document: object, message: str
) -> None:
    before = upstream.manage("GET", f"{route}").json()
    answer = upstream.manage("PUT", f"{route}", json=document)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
    assert upstream.manage("GET", f"{route}").json() == before


def test_a_control_request_must_be_json(upstream: Any) -> None:
    answer = upstream.manage("PUT", "faults", content=b"{")
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "the body must be JSON")


def test_limits_are_set_over_the_control_route(upstream: Any) -> None:
    shown = upstream.manage("PUT", "account", json={"per_day": 50, "used_today": 50}).json()
    assert (shown["per_day"], shown["used_today"]) == (50, 50)
    assert upstream.ask().status_code == 429


def test_a_larger_population_only_adds_users() -> None:
    assert users(1, 10) == users(1, 500)[:10]
    assert len(set(users(1, 500))) == 500
    assert users(1, 10) != users(2, 10)
    assert users(1, 0) == []
    with pytest.raises(ValueError, match="count must be 0 or more"):
        users(1, -1)
