"""The middleware: every request has its own user, to the last byte of its answer."""

from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from rollout.client.user import current_user
from rollout.middleware import RolloutUserMiddleware, RolloutUserWSGIMiddleware, Scope


async def show(request: Request) -> StreamingResponse:
    async def pieces() -> Any:
        yield f"{current_user()},"
        yield f"{current_user()}"

    return StreamingResponse(pieces())


class SignedIn(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.headers.get("signed-in")
        return (AuthCredentials(), SimpleUser(name)) if name else None


async def ask(app: Any, **headers: str | bytes) -> str:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        raw = [
            (name.replace("_", "-").encode(), v if isinstance(v, bytes) else v.encode()) for name, v in headers.items()
        ]
        return (await http.get("/", headers=raw)).text


async def test_an_asgi_application_sees_the_header_while_it_streams() -> None:
    app = Starlette(routes=[Route("/", show)], middleware=[Middleware(RolloutUserMiddleware)])
    assert await ask(app, x_rollout_user="ada") == "ada,ada"
    assert await ask(app, x_rollout_user="sørén".encode()) == "sørén,sørén"
    assert await ask(app) == "None,None"
    assert await ask(app, x_rollout_user=" ") == "None,None"
    assert current_user() is None


async def test_who_is_signed_in_goes_before_a_header_anybody_can_send() -> None:
    app = Starlette(
        routes=[Route("/", show)],
        middleware=[Middleware(AuthenticationMiddleware, backend=SignedIn()), Middleware(RolloutUserMiddleware)],
    )
    assert await ask(app, signed_in="bob", x_rollout_user="ada") == "bob,bob"
    assert await ask(app, x_rollout_user="ada") == "ada,ada"


async def test_a_users_own_rule_says_who_asks_and_its_failure_means_nobody(caplog: pytest.LogCaptureFixture) -> None:
    routes = [Route("/", show)]
    fixed = Starlette(routes=routes, middleware=[Middleware(RolloutUserMiddleware, user_of=lambda scope: "carl")])
    assert await ask(fixed) == "carl,carl"

    def broken(scope: Scope) -> str | None:
        raise KeyError("session")

    failing = Starlette(routes=routes, middleware=[Middleware(RolloutUserMiddleware, user_of=broken)])
    assert await ask(failing, x_rollout_user="ada") == "None,None"
    assert "user_of failed" in caplog.text


async def test_other_scopes_pass_through() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*message: Any) -> Any:
        return {}

    await RolloutUserMiddleware(app)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]


class Unfinished(BaseUser):
    @property
    def is_authenticated(self) -> bool:
        return True


async def test_a_user_class_that_leaves_its_identity_open_falls_back_to_the_header() -> None:
    seen: list[str | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_user())

    async def nothing(*message: Any) -> Any:
        return {}

    scope = {"type": "http", "user": Unfinished(), "headers": [(b"x-rollout-user", b"ada")]}
    await RolloutUserMiddleware(app)(scope, nothing, nothing)
    assert seen == ["ada"]


def start(*arguments: Any) -> Callable[[bytes], object]:
    return lambda written: None


def test_a_wsgi_application_sees_its_user_to_the_last_piece_and_at_the_close() -> None:
    closed: list[str | None] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        try:
            yield str(current_user()).encode()
            yield str(current_user()).encode()
        finally:
            closed.append(current_user())

    wrapped = RolloutUserWSGIMiddleware(app)
    ada, bob = (wrapped({"HTTP_X_ROLLOUT_USER": name}, start) for name in ("ada", "bob"))
    first, second = iter(ada), iter(bob)
    assert [next(first), next(second), next(first)] == [b"ada", b"bob", b"ada"]
    assert current_user() is None
    ada.close()  # type: ignore[attr-defined]  # WSGI servers call it where it is there
    bob.close()  # type: ignore[attr-defined]  # as above
    assert closed == ["ada", "bob"]


def test_wsgi_reads_the_same_user_from_the_same_bytes_as_asgi() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        return [str(current_user()).encode()]

    wrapped = RolloutUserWSGIMiddleware(app)
    as_wsgi = "sørén".encode().decode("latin-1")
    assert wrapped({"HTTP_X_ROLLOUT_USER": as_wsgi}, start) == ["sørén".encode()]
    assert wrapped({"REMOTE_USER": "bob", "HTTP_X_ROLLOUT_USER": "ada"}, start) == [b"bob"]
    assert wrapped({"REMOTE_USER": "日本"}, start) == ["日本".encode()]
    assert wrapped({"REMOTE_USER": " ", "HTTP_X_ROLLOUT_USER": "ada"}, start) == [b"ada"]
    assert wrapped({}, start) == [b"None"]


def test_a_file_wrapper_reaches_the_server_as_it_is(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with (tmp_path / "file").open("rb") as file:
        body = FileWrapper(file)
        wrapped = RolloutUserWSGIMiddleware(lambda environ, start_response: body)
        assert wrapped({"wsgi.file_wrapper": FileWrapper}, start) is body


def test_an_answer_without_a_close_is_closed_without_a_fuss() -> None:
    wrapped = RolloutUserWSGIMiddleware(lambda environ, start_response: map(bytes, [[65]]))
    body = wrapped({}, start)
    assert list(body) == [b"A"]
    body.close()  # type: ignore[attr-defined]  # WSGI servers call it where it is there
