"""What the generated configuration makes of the real LiteLLM."""

import asyncio
import json
import os
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from rollout.gateway.plan import GatewayPlan
from rollout.gateway.state import GatewayPhase, GatewayState
from rollout.gateway.supervise import Supervisor
from rollout.resources import resource

pytestmark = [pytest.mark.litellm, pytest.mark.processes]

UPSTREAM_KEY = "sk-or-v1-nobody-may-read-this-0123456789"
MASTER_KEY = "sk-master-nobody-may-read-this-0123456789"
CASCADE = ["z-ai/glm-4.5-air:free", "qwen/qwen3-coder:free", "moonshotai/kimi-k2:free"]


class Upstream:
    """Answers chat completions as OpenRouter would, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.gone: set[str] = set()  # models answered with 404
        self.ill: tuple[int, bytes] | None = None  # answered to everything
        seen = self

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.requests.append(body)
                seen.headers.append({name.lower(): value for name, value in self.headers.items()})
                if seen.ill is not None:
                    self._send_bytes(*seen.ill)
                    return
                if body["model"] in seen.gone:
                    self._send(404, {"error": {"code": 404, "message": "No endpoints found"}})
                    return
                message = {"role": "assistant", "content": "hello"}
                self._send(
                    200,
                    {
                        "id": "gen-1",
                        "object": "chat.completion",
                        "created": 1,
                        "model": body["model"],
                        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost": 0},
                    },
                )

            def _send(self, status: int, document: dict[str, object]) -> None:
                self._send_bytes(status, json.dumps(document).encode())

            def _send_bytes(self, status: int, data: bytes) -> None:
                self.send_response(status)
                kind = "text/event-stream" if data.startswith(b"data:") else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.base_url = f"http://127.0.0.1:{self.server.server_address[1]}/api/v1"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    """An upstream on a port of its own; LiteLLM is started once against it."""
    it = Upstream()
    thread = threading.Thread(target=it.server.serve_forever, daemon=True)
    thread.start()
    yield it
    it.server.shutdown()
    it.server.server_close()
    thread.join()


class Running:
    """A supervised LiteLLM and all the states it went through."""

    def __init__(
        self, supervisor: Supervisor, plan: GatewayPlan, states: list[GatewayState], changed: asyncio.Event
    ) -> None:
        self.supervisor = supervisor
        self.plan = plan
        self.states = states
        self.changed = changed
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{plan.port}",
            headers={"Authorization": f"Bearer {MASTER_KEY}", "x-litellm-num-retries": "0"},
            trust_env=False,
            timeout=60,
        )

    async def ask(self, model: str, **more: object) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "a question of mine"}], **more}
        return await self.http.post("/v1/chat/completions", json=body)

    async def becomes(self, phase: GatewayPhase) -> None:
        async with asyncio.timeout(180):
            while self.supervisor.state.phase is not phase:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture(scope="module")
async def running(
    litellm_environment: Path, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    plan = GatewayPlan(
        environment=litellm_environment,
        lock=resource("locks") / "litellm.txt",
        folder=tmp_path_factory.mktemp("gateway"),
        port=port,
        upstream_base_url=upstream.base_url,
        upstream_key=UPSTREAM_KEY,
        master_key=MASTER_KEY,
        site_url="http://rollout.example",
        app_name="rollout tests",
    )
    states: list[GatewayState] = []
    changed = asyncio.Event()

    def note(state: GatewayState) -> None:
        states.append(state)
        changed.set()

    supervisor = Supervisor(
        plan,
        cascade=CASCADE,
        environ={**os.environ, "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"},
        clock=time.time,
        sleep=asyncio.sleep,
        random=random.random,
        on_change=note,
    )
    task = asyncio.ensure_future(supervisor.run())
    it = Running(supervisor, plan, states, changed)
    try:
        await it.becomes(GatewayPhase.HEALTHY)
        yield it
    finally:
        await it.http.aclose()
        task.cancel()
        await asyncio.wait({task})


async def test_a_free_model_named_directly_reaches_the_upstream_although_the_cascade_lacks_it(
    running: Running, upstream: Upstream
) -> None:
    answer = await running.ask("openrouter/mistralai/devstral-small:free", disable_fallbacks=True)
    assert answer.status_code == 200, answer.text
    assert upstream.requests[-1]["model"] == "mistralai/devstral-small:free"


async def test_the_user_is_kept_and_the_upstream_key_is_ours_alone(running: Running, upstream: Upstream) -> None:
    answer = await running.ask(f"openrouter/{CASCADE[0]}", user="user-42", disable_fallbacks=True)
    assert answer.status_code == 200, answer.text
    assert upstream.requests[-1]["user"] == "user-42"
    headers = upstream.headers[-1]
    assert headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert headers["http-referer"] == "http://rollout.example"
    assert headers["x-title"] == "rollout tests"


async def test_a_paid_model_is_refused_by_the_gateway_itself(running: Running, upstream: Upstream) -> None:
    before = len(upstream.requests)
    for model in ("openrouter/openai/gpt-5", "openai/gpt-5", "gpt-5", f"openrouter/{CASCADE[0].removesuffix(':free')}"):
        answer = await running.ask(model)
        assert 400 <= answer.status_code < 500, (model, answer.text)
    assert len(upstream.requests) == before


async def test_every_call_forbids_the_upstream_to_charge_anything(running: Running, upstream: Upstream) -> None:
    nothing = {"prompt": 0, "completion": 0, "request": 0, "image": 0}
    for model in ("free-1", f"openrouter/{CASCADE[0]}"):
        assert (await running.ask(model)).status_code == 200
        assert upstream.requests[-1]["provider"]["max_price"] == nothing


async def test_a_provider_of_the_caller_is_passed_on(running: Running, upstream: Upstream) -> None:
    wanted = {"max_price": {"prompt": 0, "completion": 0, "request": 0, "image": 0}, "data_collection": "deny"}
    answer = await running.ask(f"openrouter/{CASCADE[0]}", provider=wanted, disable_fallbacks=True)
    assert answer.status_code == 200, answer.text
    assert upstream.requests[-1]["provider"] == wanted


async def test_nobody_who_asks_for_an_alias_can_raise_the_price(running: Running, upstream: Upstream) -> None:
    dear = {"max_price": {"prompt": 5, "completion": 5}}
    answer = await running.ask("free-1", provider=dear)
    assert answer.status_code == 200, answer.text
    assert upstream.requests[-1]["provider"]["max_price"]["prompt"] == 0


async def test_an_alias_walks_down_the_cascade_with_one_call_for_each_model(
    running: Running, upstream: Upstream
) -> None:
    upstream.gone = set(CASCADE[:2])
    before = len(upstream.requests)
    try:
        answer = await running.ask("free-1")
    finally:
        upstream.gone = set()
    assert answer.status_code == 200, answer.text
    assert [request["model"] for request in upstream.requests[before:]] == CASCADE


async def test_a_model_that_is_gone_does_not_take_the_others_with_it(running: Running, upstream: Upstream) -> None:
    upstream.gone = {"gone/model:free"}
    try:
        for _ in range(4):
            assert (await running.ask("openrouter/gone/model:free", disable_fallbacks=True)).status_code == 404
        answer = await running.ask(f"openrouter/{CASCADE[1]}", disable_fallbacks=True)
    finally:
        upstream.gone = set()
    assert answer.status_code == 200, answer.text


async def test_nobody_gets_in_without_the_master_key(running: Running, upstream: Upstream) -> None:
    before = len(upstream.requests)
    async with httpx.AsyncClient(base_url=running.http.base_url, trust_env=False, timeout=60) as stranger:
        for headers in ({}, {"Authorization": "Bearer sk-wrong"}):
            body = {"model": f"openrouter/{CASCADE[0]}", "messages": [{"role": "user", "content": "hi"}]}
            answer = await stranger.post("/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code >= 400
    assert len(upstream.requests) == before


async def test_a_changed_cascade_is_written_without_a_restart(running: Running, upstream: Upstream) -> None:
    pid = running.supervisor.state.pid
    assert running.supervisor.set_cascade([*CASCADE, "new/one:free"])
    assert not running.supervisor.set_cascade([*CASCADE, "new/one:free"])
    assert "new/one:free" in running.plan.config.read_text()
    assert (await running.ask("openrouter/new/one:free", disable_fallbacks=True)).status_code == 200
    assert running.supervisor.state.pid == pid


ANSWER = "an answer for one alone"
"""Words of a model, that nobody else may read."""

WHOLE = json.dumps(
    {"id": "gen-1", "choices": [{"index": 0, "message": {"role": "assistant", "content": f"{ANSWER}\nand {ANSWER}"}}]},
    indent=1,
).encode()


def in_stream(text: object, **more: object) -> bytes:
    chunk = {"id": "gen-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}], **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


ILL: list[tuple[int, bytes]] = [
    (200, WHOLE[:-20]),
    (200, f"<html>\n<p>{ANSWER}</p>\n\n<pre>{ANSWER}</pre></html>".encode()),
    (200, json.dumps({"id": "x", "choices": [{"index": "a", "message": {"content": {"it": ANSWER}}}]}).encode()),
    (200, json.dumps({"id": "x", "choices": [{"text": ANSWER}]}).encode()),
    (200, json.dumps([ANSWER]).encode()),
    (200, json.dumps({"error": {"code": 502, "message": ANSWER}}).encode()),
    (500, json.dumps({"error": {"code": 500, "message": "failed", "metadata": {"raw": f"a\n{ANSWER}"}}}).encode()),
    (500, f"<html>\n<p>{ANSWER}</p></html>".encode()),
    (400, json.dumps({"error": {"code": 400, "message": f"not this:\na question of mine\n{ANSWER}"}}).encode()),
    (403, json.dumps({"error": {"code": 403, "metadata": {"flagged_input": "a question of mine"}}}).encode()),
]
ILL_STREAMS: list[tuple[int, bytes]] = [
    (200, in_stream(ANSWER) + in_stream("", error={"code": 502, "message": ANSWER})),
    (200, in_stream(ANSWER) + b'data: {"id": "x", "choices": [{"delta": {"tool_calls": [{"function": "%s"}]}}]}\n\n'
     % ANSWER.encode()),
    (200, in_stream(ANSWER) * 150),
]  # fmt: skip


async def test_whatever_goes_wrong_the_log_has_neither_questions_nor_answers(
    running: Running, upstream: Upstream
) -> None:
    log = running.plan.log
    before = log.stat().st_size
    try:
        for stream, answers in ((False, ILL), (True, ILL_STREAMS)):
            for upstream.ill in answers:
                for model, more in ((f"openrouter/{CASCADE[0]}", {"disable_fallbacks": True}), ("free-2", {})):
                    await running.ask(model, stream=stream, **more)
        upstream.ill = None
        last = (await running.ask(f"openrouter/{CASCADE[0]}", tools="a question of mine")).headers["x-litellm-call-id"]
    finally:
        upstream.ill = None
    async with asyncio.timeout(30):
        while last.encode() not in log.read_bytes():  # noqa: ASYNC110 - a file tells nobody that it was written to
            await asyncio.sleep(0.05)
    written = log.read_bytes()[before:].decode()
    assert ANSWER not in written
    assert "a question of mine" not in written
    assert "Original Response" not in written
    assert "MaskedHTTPStatusError: HTTP 500" in written
    assert log.stat().st_mode & 0o777 == 0o600


async def test_a_killed_litellm_comes_back_under_another_process_id(running: Running) -> None:
    pid = running.supervisor.state.pid
    assert pid is not None
    os.kill(pid, 9)
    await running.becomes(GatewayPhase.RESTARTING)
    assert "SIGKILL" in running.supervisor.state.detail
    assert running.supervisor.state.pid is None
    await running.becomes(GatewayPhase.HEALTHY)
    assert running.supervisor.state.pid != pid
    assert running.supervisor.state.restarts == 1
    assert (await running.ask(f"openrouter/{CASCADE[0]}")).status_code == 200


async def test_no_secret_and_no_question_reaches_a_file_or_a_state(running: Running) -> None:
    written = b"".join(path.read_bytes() for path in running.plan.folder.rglob("*") if path.is_file())
    shown = repr(running.states) + repr(running.plan)
    for secret in (UPSTREAM_KEY, MASTER_KEY, "a question of mine"):
        assert secret.encode() not in written
        assert secret not in shown
