"""Read JSON bodies strictly, before anything is asked of them.

FastAPI alone would take `NaN`, let the last of two equal keys win, and answer a wrong content type with a riddle.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from rollout.http.problems import Problem

_LONGEST_NUMBER: Final = 40
_TITLE: Final = "That is no JSON"


class JsonRoute(APIRoute):
    """A route of the API: a body it takes is JSON and says so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's own handler, behind the reading of the body."""
        inner = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            return await inner(await _read(request) if takes_body else request)

        return handle


class _JsonRequest(Request):
    """A request whose body was read already."""

    document: Any = None

    async def json(self) -> Any:
        return self.document


async def _read(request: Request) -> Request:
    read = _JsonRequest(request.scope, request.receive)
    body = await read.body()
    if not body:
        return read
    said = read.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (said == "application/json" or (said.startswith("application/") and said.endswith("+json"))):
        raise Problem(
            415,
            "This route takes JSON",
            f"send the body with Content-Type: application/json; it came as {said[:80] or 'nothing in particular'}. "
            "Nothing was changed.",
            {"Accept-Post": "application/json"},
        )
    read.document = parse(body)
    return read


def parse(body: bytes) -> Any:
    """Read a JSON document.

    Raises:
        Problem: 400 where it is no UTF-8, no JSON, names a key twice, or is nested too deeply.
    """
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise Problem(400, _TITLE, f"the body is not UTF-8 from byte {error.start} on; nothing was changed") from None
    except json.JSONDecodeError as error:
        raise Problem(
            400, _TITLE, f"{error.msg} at line {error.lineno}, column {error.colno}; nothing was changed"
        ) from None
    except RecursionError:
        raise Problem(400, _TITLE, "the body is nested too deeply; nothing was changed") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # None goes on
        raise Problem(400, _TITLE, f"{twice[:80]!r} is named twice, so it is unclear which counts; nothing was changed")
    return document


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise Problem(400, _TITLE, f"a number of {len(text):,} digits is too long; nothing was changed")
    return int(text)


def _constant(name: str) -> Any:
    raise Problem(400, _TITLE, f"{name} is no JSON number; nothing was changed")
