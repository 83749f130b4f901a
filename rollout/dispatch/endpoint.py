"""The OpenAI-compatible endpoint as a plain ASGI app: `POST /v1/chat/completions` and `GET /v1/models`.

It is in front of every request, so it parses what it must (the request once, a plain answer once, a stream up
to its first token) and passes everything else through as bytes. No framework: each costs more than all of this.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
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
from rollout.dispatch.decision import Decision, Observe
from rollout.dispatch.exchange import Answer, Clock, attempt_once_async
from rollout.dispatch.failures import FACES, http_status
from rollout.dispatch.invoke import Routes, report
from rollout.dispatch.passing import pass_on
from rollout.dispatch.paths import ATTRIBUTION, NOT_THE_CALLERS, Attribution
from rollout.dispatch.request import checked_model, checked_stream
from rollout.dispatch.senders import make_async_sender
from rollout.dispatch.senders.seam import AsyncSender
from rollout.dispatch.sending import Decides, Sending
from rollout.domain.errors import InvalidRequest, SendingFailed
from rollout.domain.failure import FailureKind
from rollout.resilience.policy import Verdict, adrive
from rollout.settings import Upstreams
from rollout.wire.chat import dump_json, error_document, models_document, parse_json

COMPLETIONS: Final = "/v1/chat/completions"
MODELS: Final = "/v1/models"
MAX_BODY_BYTES: Final = 10 * 1024 * 1024
MAX_USER: Final = 1024
"""Characters of a user id in a request; longer ones are mistakes."""

Authorize = Callable[[str], bool]

_METHODS: Final = {COMPLETIONS: "POST", MODELS: "GET"}
_STREAM_HEADERS: Final = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
# the OpenAI SDK sends a failed request three times by itself; retrying is our business
_NO_RETRY: Final = (b"x-should-retry", b"false")


class Refused(Exception):
    """A request that is answered with an error before anything is sent."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        headers: Headers | None = None,
        **more: str | None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or []
        self.document = error_document(message, kind=kind, **more)


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
    ) -> None:
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
            constant = [*self._constant, (b"x-rollout-request-id", secrets.token_hex(8).encode())]
            try:
                await self._answer(scope, receive, send, constant)
            except Refused as refused:
                headers = [JSON, _NO_RETRY, *refused.headers, *constant]
                await reply(send, refused.status, headers, dump_json(refused.document))
            except CallerLeft:
                return
        else:
            raise RuntimeError(f"nothing here speaks {scope['type']!r}")  # the server closes the connection

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await self._sender.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send, constant: Headers) -> None:
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
            await self._serve(sending, send, constant)

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> Any:
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type != b"application/json":
            shown = content_type.decode("latin-1") or "nothing"
            raise Refused(415, f"the body must be application/json, not {shown!r:.100}; set the Content-Type header")
        try:
            raw = await read_body(receive, headers.get(b"content-length"), MAX_BODY_BYTES)
        except BodyTooLong:
            raise Refused(413, f"the body is longer than {MAX_BODY_BYTES:,} bytes; send less") from None
        try:
            return parse_json(raw)
        except UnicodeDecodeError:
            raise Refused(400, "the body is not UTF-8; encode it so") from None
        except ValueError as error:
            raise Refused(400, f"the body is not JSON: {error}"[:300]) from None

    def _read(self, headers: Mapping[bytes, bytes], body: Any) -> Sending:
        """Decide a request's way; nothing is sent."""
        if not isinstance(body, dict):
            raise Refused(400, "the body must be an object with `messages`")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise Refused(400, "`messages` must be a list with at least one message", param="messages")
        try:
            return Sending(
                body,
                model=checked_model(body.get("model")),
                stream=checked_stream(body),
                user=_user(headers, body),
                decides=self._decides,
                upstreams=self._upstreams(),
                clock=self._clock,
                attribution=self._attribution,
            )
        except InvalidRequest as error:
            raise _refusal(error) from None

    async def _serve(self, sending: Sending, send: Send, constant: Headers) -> None:
        failure: FailureKind | None = FailureKind.CANCELLED
        try:
            verdict, answer = await adrive(
                sending.policy(),
                lambda attempt: attempt_once_async(sending, attempt, self._sender, clock=self._clock, wall=self._wall),
            )
            failure = await self._deliver(sending, verdict, answer, send, constant)
        except InvalidRequest as error:
            failure = FailureKind.REJECTED
            raise _refusal(error) from None
        except asyncio.CancelledError:
            sending.abandon()
            raise
        finally:
            if self._observe is not None:
                report(self._observe, sending.exchange(sending.decision(), failure))

    async def _deliver(
        self, sending: Sending, verdict: Verdict, answer: Answer, send: Send, constant: Headers
    ) -> FailureKind | None:
        """Give the caller what the attempts brought; return what became of it."""
        decision = sending.decision()
        headers = [*constant, *_decided(decision)]
        if answer.fault is not None:
            await _fail(sending.failed(verdict, answer.fault), answer.fault.kind, send, headers)
            return answer.fault.kind
        headers.append((b"content-type", answer.content_type.encode("latin-1", "replace") or JSON[1]))
        if answer.opening is None:
            await reply(send, 200, headers, answer.body)
            return None
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, *_STREAM_HEADERS]})
        return await pass_on(sending, answer.opening, answer.live, send)


def create_data_plane(
    client: Routes, *, authorize: Authorize, observe: Observe | None = None, simulated: bool = False
) -> CompletionsApp:
    """Return the completions endpoint over a client, to be served alone: `uvicorn.run(create_data_plane(...))`."""
    return CompletionsApp(client, lambda: client.upstreams, authorize, observe=observe, simulated=simulated)


def _bearer(headers: Mapping[bytes, bytes]) -> str:
    scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
    return rest.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""


def _user(headers: Mapping[bytes, bytes], body: Mapping[str, Any]) -> str | None:
    given = headers.get(b"x-rollout-user")
    if given is not None:
        try:
            user, name = given.decode("utf-8"), "X-Rollout-User"
        except UnicodeDecodeError:
            raise Refused(400, "X-Rollout-User is not UTF-8; send its bytes as UTF-8", param="user") from None
    else:
        said = body.get("user")
        if said is None:
            return None
        if not isinstance(said, str):
            raise Refused(400, "`user` must be a text", param="user")
        user, name = said, "user"
    if len(user) > MAX_USER:
        raise Refused(400, f"{name} is {len(user):,} characters long; {MAX_USER:,} is the most", param="user")
    if not user.isprintable() and any(each < " " or "\x7f" <= each < "\xa0" for each in user):
        raise Refused(400, f"{name} holds control characters; send the id as one line of text", param="user")
    return user


def _refusal(error: InvalidRequest) -> Refused:
    if error.field in NOT_THE_CALLERS:
        return Refused(503, error.message, kind="configuration_error", code="not_configured")
    return Refused(400, error.message, param=error.field)


def _decided(decision: Decision) -> Headers:
    headers = [
        (b"x-rollout-path", decision.path.encode()),
        (b"x-rollout-reason", decision.reason.encode()),
        (b"x-rollout-cause", decision.cause.encode()),
        (b"x-rollout-revision", b"%d" % decision.revision),
        (b"x-rollout-model", decision.model.encode("latin-1", "replace")),
        (b"x-rollout-attempts", b"%d" % len(decision.attempts)),
    ]
    if decision.served_by is not None:
        headers.append((b"x-rollout-served-by", decision.served_by.encode()))
    if decision.bucket is not None:
        headers.append((b"x-rollout-bucket", b"%d" % decision.bucket))
    if decision.model_substituted:
        headers.append((b"x-rollout-model-substituted", b"true"))
    return headers


async def _fail(error: SendingFailed, kind: FailureKind, send: Send, headers: Headers) -> None:
    complete = [JSON, _NO_RETRY, *headers]
    if error.retry_after is not None:
        complete.append((b"retry-after", b"%d" % error.retry_after))
    document = error_document(error.message, kind=FACES[kind].kind, code=kind.value)
    await reply(send, http_status(kind, error.status), complete, dump_json(document))
