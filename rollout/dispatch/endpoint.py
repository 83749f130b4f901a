"""The OpenAI-compatible endpoint as a plain ASGI app: `POST /v1/chat/completions` and `GET /v1/models`.

It is in front of every request, so it parses what it must (the request once, a plain answer once, a stream up
to its first token) and passes everything else through as bytes. No framework: each costs more than all of this.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic, time
from typing import Any, Final

from rollout.dispatch.asgi import (
    JSON,
    BodyTooLong,
    CallerLeft,
    Headers,
    Receive,
    Scope,
    Send,
    WhileCallerStays,
    read_body,
    reply,
)
from rollout.dispatch.completions import (
    Refused,
    asked,
    checked_content_type,
    decided,
    failure_reply,
    read_document,
    refusal,
    stream_headers,
)
from rollout.dispatch.decision import Observe
from rollout.dispatch.exchange import Answer, Clock, attempt_once_async
from rollout.dispatch.gates import OwnGate, make_gate
from rollout.dispatch.invoke import Routes
from rollout.dispatch.passing import pass_on
from rollout.dispatch.paths import ATTRIBUTION, Attribution
from rollout.dispatch.reporting import OnCost, is_wanted, report
from rollout.dispatch.senders import make_async_sender
from rollout.dispatch.senders.seam import AsyncSender
from rollout.dispatch.sending import Decides, Sending
from rollout.domain.errors import InvalidRequest
from rollout.domain.failure import FailureKind
from rollout.resilience.gate import Gate
from rollout.resilience.policy import Verdict, adrive
from rollout.settings import Upstreams
from rollout.wire.chat import dump_json, models_document

COMPLETIONS: Final = "/v1/chat/completions"
MODELS: Final = "/v1/models"
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
Authorize = Callable[[str], bool]

_METHODS: Final = {COMPLETIONS: "POST", MODELS: "GET"}


class CompletionsApp:
    """An ASGI app; mount it beside another one, or serve it alone.

    Args:
        decides: says which path a user takes, and names the cascade.
        upstreams: returns where the paths lead; asked for each request.
        authorize: is given the text after `Bearer` (empty where none came) and says whether it may ask. Called
            for each request on the event loop, so it must be quick.
        observe: is handed an `Exchange` when a request is over.
        simulated: whether the upstream is the simulator; every answer then says so.
        sender: sends asynchronously.
        clock: monotonic seconds.
        wall: seconds since the epoch.
        attribution: who OpenRouter is told is asking.
        gate: this process's breakers, retry budget and quota; made with the upstreams' limits where None is given.
        sleep: waits a number of seconds, before an attempt that has to.
        on_cost: is told that an answer cost money: the model, US dollars, the path.
    """

    def __init__(
        self,
        decides: Decides,
        upstreams: Callable[[], Upstreams],
        authorize: Authorize,
        *,
        observe: Observe | None = None,
        simulated: bool = False,
        sender: AsyncSender | None = None,
        clock: Clock = monotonic,
        wall: Clock = time,
        attribution: Attribution = ATTRIBUTION,
        gate: Gate | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        on_cost: OnCost | None = None,
    ) -> None:
        self._gate = OwnGate(lambda: make_gate(upstreams(), clock=clock, wall=wall), gate)
        self._sleep = sleep
        self._on_cost = on_cost
        self._decides = decides
        self._upstreams = upstreams
        self._authorize = authorize
        self._observe = observe
        self._constant: Headers = [(b"x-rollout-upstream", b"simulator")] if simulated else []
        self._sender = sender or make_async_sender()
        self._clock = clock
        self._wall = wall
        self._attribution = attribution

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            identity = secrets.token_hex(8)
            constant = [*self._constant, (b"x-rollout-request-id", identity.encode())]
            try:
                await self._answer(scope, receive, send, constant, identity)
            except Refused as refused:
                status, headers, body = refused.reply()
                await reply(send, status, [*headers, *constant], body)
            except CallerLeft:
                return
        else:
            raise RuntimeError(f"nothing here speaks {scope['type']!r}")  # the server closes the connection

    @property
    def gate(self) -> Gate:
        """Return this process's breakers, retry budget and quota."""
        return self._gate.get()

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await self._sender.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send, constant: Headers, identity: str) -> None:
        path: str = scope["path"]
        if path not in _METHODS and (root := scope.get("root_path")):
            path = path.removeprefix(root)
        method = _METHODS.get(path)
        if method is None:
            raise Refused(404, f"there is nothing at {path!r:.200}; use POST {COMPLETIONS} or GET {MODELS}")
        if scope["method"] != method:
            allow = [(b"allow", method.encode())]
            raise Refused(405, f"{path} takes {method}, not {scope['method']!r:.20}", headers=allow)
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if not self._authorize(_bearer(headers)):
            message = "no valid access token; send one as `Authorization: Bearer ...` (in the OpenAI SDK: api_key)"
            challenge = [(b"www-authenticate", b"Bearer")]
            raise Refused(401, message, kind="authentication_error", headers=challenge, code="invalid_api_key")
        if path == MODELS:
            await reply(send, 200, [JSON, *constant], dump_json(models_document(self._decides.cascade)))
            return
        sending = self._read(headers, await self._body(headers, receive))
        async with WhileCallerStays(receive):
            await self._serve(sending, send, constant, identity)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> Any:
        content_type = headers.get(b"content-type", b"")
        checked_content_type(content_type)
        try:
            raw = await read_body(receive, headers.get(b"content-length"), MAX_BODY_BYTES)
        except BodyTooLong:
            raise Refused(413, f"the body is longer than {MAX_BODY_BYTES:,} bytes; send less") from None
        return read_document(content_type, raw)

    def _read(self, headers: Mapping[bytes, bytes], document: Any) -> Sending:
        """Decide a request's way; nothing is sent."""
        body, model, stream, user = asked(headers, document)
        try:
            return Sending(
                body,
                model=model,
                stream=stream,
                user=user,
                decides=self._decides,
                upstreams=self._upstreams(),
                gate=self._gate.get(),
                clock=self._clock,
                wall=self._wall,
                attribution=self._attribution,
                on_cost=self._on_cost,
            )
        except InvalidRequest as error:
            raise refusal(error) from None

    async def _serve(self, sending: Sending, send: Send, constant: Headers, identity: str) -> None:
        failure: FailureKind | None = FailureKind.CANCELLED
        try:
            verdict, answer = await adrive(
                sending.policy(),
                lambda attempt: attempt_once_async(sending, attempt, self._sender, clock=self._clock, wall=self._wall),
                sleep=self._sleep,
                clock=self._clock,
            )
            failure = await self._deliver(sending, verdict, answer, send, constant)
        except InvalidRequest as error:
            failure = FailureKind.REJECTED
            raise refusal(error) from None
        finally:
            sending.abandon()  # the caller left while an attempt was on its way; otherwise this does nothing
            if is_wanted(self._observe):
                report(self._observe, sending.exchange(failure, request_id=identity))

    async def _deliver(
        self, sending: Sending, verdict: Verdict, answer: Answer | None, send: Send, constant: Headers
    ) -> FailureKind | None:
        """Give the caller what the attempts brought; return what became of it."""
        if answer is None or answer.fault is not None:
            error = sending.failed(verdict, answer.fault if answer is not None else None)
            kind = verdict.failure or FailureKind.NO_ANSWER
            status, headers, body = failure_reply(error, kind)
            await reply(send, status, [*headers, *constant], body)
            return kind
        if answer.opening is None:
            content_type = (b"content-type", answer.content_type.encode("latin-1", "replace") or JSON[1])
            await reply(send, 200, [*constant, *decided(sending.decision()), content_type], answer.raw())
            return None
        headers = [*constant, *stream_headers(sending.decision(), answer.content_type)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        return await pass_on(sending, answer.opening, answer.live, send)


def create_data_plane(
    client: Routes,
    *,
    authorize: Authorize,
    observe: Observe | None = None,
    simulated: bool = False,
    gate: Gate | None = None,
    on_cost: OnCost | None = None,
) -> CompletionsApp:
    """Return the completions endpoint over a client, to be served alone: `uvicorn.run(create_data_plane(...))`."""
    return CompletionsApp(
        client,
        lambda: client.upstreams,
        authorize,
        observe=observe,
        simulated=simulated,
        gate=gate,
        on_cost=on_cost,
    )


def _bearer(headers: Mapping[bytes, bytes]) -> str:
    scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
    return rest.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
