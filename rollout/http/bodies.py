"""Read a request's body before anybody is asked who is calling: small, unless an access token that holds came along.

Forms come from our own pages, so they are small and simple. The whole body is read here, and what is compressed is
unpacked, so that no route has to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rollout.dispatch.asgi import (
    ACCEPT_ENCODING,
    BodyTooLong,
    Receive,
    Scope,
    UnknownEncoding,
    UnreadableBody,
    read_body,
    unpack,
)

MAX_BODY: Final = 1 << 20
"""Bytes that a request with an access token may carry; the completions endpoint has its own limit."""

MAX_UNKNOWN: Final = 64 * 1024
"""Bytes that anybody may send. A session's requests are among them: who holds a cookie is asked in the database."""

MAX_FIELDS: Final = 100
"""Fields of a form; our largest has under ten."""

_FORM: Final = b"application/x-www-form-urlencoded"


class BodyRefused(Exception):
    """A body that is not taken; the parts are those of a problem document."""

    def __init__(self, status: int, title: str, detail: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.headers = status, title, detail, headers


async def take_body(scope: Scope, receive: Receive, known: Callable[[str], bool]) -> bytes:
    """Return the body; of a compressed one the scope's headers no longer say so.

    Args:
        scope: the request.
        receive: gives its messages.
        known: says whether an access token holds.

    Raises:
        BodyRefused: it is too large, or of a kind that is not taken here.
        CallerLeft: the caller hung up before it was there.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    said = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if said.startswith(b"multipart/"):
        detail = f"send a form as {_FORM.decode()}, and anything else as application/json; nothing was done"
        raise BodyRefused(415, "That kind of body is not taken", detail)
    small = said == _FORM or not known(bearer_in(headers))
    limit = MAX_UNKNOWN if small else MAX_BODY
    try:
        declared = headers.get(b"content-length")
        if declared is not None and not declared.isdigit():
            raise BodyTooLong
        raw = await read_body(receive, declared, limit)
        body = await unpack(raw, headers.get(b"content-encoding"), limit)
    except BodyTooLong:
        whose = "a form, or a request without a valid access token," if small else "a request"
        detail = f"{whose} may carry {limit:,} bytes; nothing was done"
        raise BodyRefused(413, "That body is too large", detail) from None
    except UnknownEncoding as error:
        detail = f"{error}; nothing was done"
        raise BodyRefused(415, "That encoding is not taken", detail, (ACCEPT_ENCODING,)) from None
    except UnreadableBody as error:
        raise BodyRefused(400, "That body cannot be read", f"{error}; nothing was done") from None
    # the parser of forms takes a semicolon for an ampersand
    if said == _FORM and body.count(b"&") + body.count(b";") >= MAX_FIELDS:
        raise BodyRefused(413, "That form has too many fields", f"{MAX_FIELDS} are the most; nothing was done")
    if body is not raw:
        gone = {b"content-encoding", b"content-length"}
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in gone]
    return body


def bearer_in(headers: dict[bytes, bytes]) -> str:
    """Return the secret of an `Authorization: Bearer` header; empty if there is none."""
    scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
    return secret.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
