"""The OpenAI-compatible endpoint as a plain ASGI app: `POST /v1/chat/completions` and `GET /v1/models`.

It is in front of every request, so it parses what it must (the request once, a plain answer once, a stream up
to its first token) and passes everything else through as bytes. No framework: each costs more than all of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from rollout.dispatch.asgi import (
    ACCEPT_ENCODING,
    JSON,
    BodyTooLong,
    CallerLeft,
    Headers,
    Receive,
    Scope,
    Send,
    UnknownEncoding,
    UnreadableBody,
    WhileCallerStays,
    read_body,
    reply,
    unpack,
)
from rollout.dispatch.completions import Refused, asked, checked_content_type, read_document, stream_headers
from rollout.dispatch.decision import Observe
from rollout.dispatch.dispatcher import Dispatcher, Routes
from rollout.dispatch.passing import Passage, pass_on
from rollout.dispatch.replying import new_request_id, refused_reply, whole_reply
from rollout.dispatch.reporting import OnCost
from rollout.dispatch.sending import Sending
from rollout.domain.errors import InvalidRequest
from rollout.domain.failure import FailureKind
from rollout.resilience.gate import Gate
from rollout.wire.chat import dump_json, models_document

COMPLETIONS: Final = "/v1/chat/completions"
MODELS: Final = "/v1/models"
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
Authorize = Callable[[str], bool]

_METHODS: Final = {COMPLETIONS: "POST", MODELS: "GET"}


class CompletionsApp:
    """An ASGI app; mount it beside another one, or serve it alone.

    Args:
        dispatcher: decides and sends.
        authorize: is given the text after `Bearer` (empty where none came) and says whether it may ask. Called
            for each request on the event loop, so it must be quick.
        simulated: whether the upstream is the simulator; every answer then says so.
    """

    def __init__(self, dispatcher: Dispatcher, authorize: Authorize, *, simulated: bool = False) -> None:
        self._dispatcher = dispatcher
        self._authorize = authorize
        self._constant: Headers = [(b"x-rollout-upstream", b"simulator")] if simulated else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the server's start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            identity, header = new_request_id()
            constant = [*self._constant, header]
            try:
                await self._answer(scope, receive, send, constant, identity)
            except (InvalidRequest, Refused) as error:
                await reply(send, *refused_reply(error, constant))
            except CallerLeft:
                return
        else:
            raise RuntimeError(f"nothing here speaks {scope['type']!r}")  # the server closes the connection

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await self._dispatcher.aclose()
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
            await reply(send, 200, [JSON, *constant], dump_json(models_document(self._dispatcher.client.cascade)))
            return
        document = await self._body(headers, receive)
        sending = self._dispatcher.sending(asked(headers, document), request_id=identity)
        async with WhileCallerStays(receive):
            await self._serve(sending, send, constant)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> Any:
        content_type = headers.get(b"content-type", b"")
        checked_content_type(content_type)
        try:
            raw = await read_body(receive, headers.get(b"content-length"), MAX_BODY_BYTES)
            if b"content-encoding" in headers:
                raw = await unpack(raw, headers[b"content-encoding"], MAX_BODY_BYTES)
        except BodyTooLong:
            raise Refused(413, f"the body is longer than {MAX_BODY_BYTES:,} bytes; send less") from None
        except UnknownEncoding as error:
            raise Refused(415, str(error), headers=[ACCEPT_ENCODING]) from None
        except UnreadableBody as error:
            raise Refused(400, str(error)) from None
        return read_document(content_type, raw)

    async def _serve(self, sending: Sending, send: Send, constant: Headers) -> None:
        """Give the caller what the attempts bring."""
        failure: FailureKind | None = FailureKind.CANCELLED
        passage: Passage | None = None
        try:
            verdict, answer = await self._dispatcher.aperform(sending)
            if answer is None or answer.opening is None or answer.fault is not None:
                await reply(send, *whole_reply(sending, verdict, answer, constant))
                failure = verdict.failure
                return
            headers = [*constant, *stream_headers(sending.decision(), answer.content_type)]
            passage = Passage(sending, answer.opening)
            failure = await pass_on(passage, answer.live, send, headers)
        except InvalidRequest:
            failure = FailureKind.REJECTED
            raise
        finally:
            left_at_the_end = failure is FailureKind.CANCELLED and passage is not None and passage.is_delivered
            self._dispatcher.finish(sending, None if left_at_the_end else failure)


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
        Dispatcher(client, observe=observe, gate=gate, on_cost=on_cost), authorize, simulated=simulated
    )


def _bearer(headers: Mapping[bytes, bytes]) -> str:
    scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
    return rest.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
