"""The control routes under `/simulator`: read the record, script faults, set limits, withdraw models.

They show what the simulator was asked, prompts included, so each needs the world's secret as `Authorization: Bearer`.
"""

import hmac
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rollout.simulator.faults import FaultError, parse_faults
from rollout.simulator.world import World


class ControlError(ValueError):
    """A control request that cannot be carried out; nothing was changed."""


async def _document(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise ControlError("the body must be JSON") from None


def _object(document: object, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(document, dict) or not document:
        raise ControlError(f"the body must be an object with any of: {', '.join(known)}")
    unknown = [repr(name) for name in document if name not in known]
    if unknown:
        raise ControlError(f"unknown {', '.join(unknown)}; known are: {', '.join(known)}")
    return document


def _whole(name: str, text: object, *, default: int | None) -> int | None:
    if text is None:
        return default
    if not isinstance(text, str) or not text.isdecimal() or len(text) > 18:
        raise ControlError(f"{name} must be an integer of 0 or more, got {text!r}")
    return int(text)


class Control:
    """The control routes of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        """Return the routes, relative to `/simulator`."""
        table: tuple[tuple[str, str, Callable[[Request], Awaitable[Any]]], ...] = (
            ("/requests", "GET", self._requests),
            ("/requests", "DELETE", self._clear_requests),
            ("/counts", "GET", self._counts),
            ("/faults", "GET", self._faults),
            ("/faults", "PUT", self._set_faults),
            ("/faults", "DELETE", self._clear_faults),
            ("/account", "GET", self._account),
            ("/account", "PUT", self._set_account),
            ("/models", "GET", self._models),
            ("/models", "PUT", self._set_models),
        )
        return [Route(path, self._answering(endpoint), methods=[method]) for path, method, endpoint in table]

    def _answering(self, endpoint: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if not self._is_ours(request):
                message = "the control routes need the simulator's secret as `Authorization: Bearer`"
                return _json({"error": {"code": 401, "message": message}}, 401)
            try:
                return _json(await endpoint(request), 200)
            except (ControlError, FaultError) as error:
                return _json({"error": {"code": 400, "message": str(error)}}, 400)

        return answer

    def _is_ours(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        ours = hmac.compare_digest(given.strip().encode(), self._world.secret.encode())
        return scheme.lower() == "bearer" and ours

    async def _requests(self, request: Request) -> Any:
        since = _whole("since", request.query_params.get("since"), default=0)
        limit = _whole("limit", request.query_params.get("limit"), default=None)
        entries = self._world.record.since(since or 0, limit)
        return {
            "requests": [entry.document() for entry in entries],
            "dropped": self._world.record.dropped,
            "last_seq": self._world.record.seen,
        }

    async def _clear_requests(self, request: Request) -> Any:
        self._world.record.clear()
        return await self._requests(request)

    async def _counts(self, request: Request) -> Any:  # noqa: ARG002 - the shape of every route
        return self._world.record.counts()

    async def _faults(self, request: Request) -> Any:  # noqa: ARG002 - the shape of every route
        return {"faults": self._world.script.document(), "seed": self._world.seed}

    async def _set_faults(self, request: Request) -> Any:
        self._world.script.play(parse_faults(await _document(request)))
        return await self._faults(request)

    async def _clear_faults(self, request: Request) -> Any:
        self._world.script.play(())
        return await self._faults(request)

    async def _account(self, request: Request) -> Any:  # noqa: ARG002 - the shape of every route
        return self._world.account.settings_document()

    async def _set_account(self, request: Request) -> Any:
        known = ("per_minute", "per_day", "used_today", "is_free_tier", "spend_limit")
        wanted = _object(await _document(request), known)
        for name, value in wanted.items():
            _check_account(name, value)
        for name, value in wanted.items():
            setattr(self._world.account, name, value)
        return await self._account(request)

    async def _models(self, request: Request) -> Any:  # noqa: ARG002 - the shape of every route
        catalogue = self._world.catalogue
        return {
            "models": [
                {
                    "id": model.id,
                    "withdrawn": catalogue.is_withdrawn(model.id),
                    "prompt": model.prompt,
                    "completion": model.completion,
                    "expiration_date": model.expiration_date,
                }
                for model in catalogue.known.values()
            ]
        }

    async def _set_models(self, request: Request) -> Any:
        wanted = _object(await _document(request), ("withdraw", "restore", "price", "expire"))
        withdraw, restore = self._ids(wanted, "withdraw"), self._ids(wanted, "restore")
        prices, expiries = self._prices(wanted.get("price", {})), self._expiries(wanted.get("expire", {}))
        catalogue = self._world.catalogue
        for model_id in withdraw:
            catalogue.withdraw(model_id)
        for model_id in restore:
            catalogue.restore(model_id)
        for model_id, (prompt, completion) in prices.items():
            catalogue.reprice(model_id, prompt=prompt, completion=completion)
        for model_id, day in expiries.items():
            catalogue.expire(model_id, day)
        return await self._models(request)

    def _known(self, model_id: object) -> str:
        if not isinstance(model_id, str) or model_id not in self._world.catalogue.known:
            raise ControlError(f"{model_id!r} is not a known model; GET /simulator/models lists them")
        return model_id

    def _ids(self, wanted: Mapping[str, Any], name: str) -> list[str]:
        ids = wanted.get(name, [])
        if not isinstance(ids, list):
            raise ControlError(f"{name} must be a list of model ids, got {ids!r}")
        return [self._known(each) for each in ids]

    def _prices(self, wanted: object) -> dict[str, tuple[str, str]]:
        if not isinstance(wanted, dict):
            raise ControlError('price must be an object such as {"<id>": {"prompt": "0.000001"}}')
        found = {}
        for model_id, price in wanted.items():
            model = self._world.catalogue.known[self._known(model_id)]
            named = _object(price, ("prompt", "completion"))
            texts = {"prompt": model.prompt, "completion": model.completion, **named}
            for name, text in texts.items():
                _check_price(f"price of {model_id}, {name}", text)
            found[model.id] = (texts["prompt"], texts["completion"])
        return found

    def _expiries(self, wanted: object) -> dict[str, str | None]:
        if not isinstance(wanted, dict):
            raise ControlError('expire must be an object such as {"<id>": "2026-12-31"}')
        for model_id, day in wanted.items():
            self._known(model_id)
            try:
                fine = day is None or bool(date.fromisoformat(day))
            except (TypeError, ValueError):
                fine = False
            if not fine:
                raise ControlError(f"expire of {model_id} must be a day such as 2026-12-31, or null; got {day!r}")
        return wanted


def _check_account(name: str, value: object) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    match name:
        case "is_free_tier":
            fine, wanted = isinstance(value, bool), "true or false"
        case "spend_limit":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            fine, wanted = value is None or (number and 0 <= value < math.inf), "null or US dollars, 0 or more"  # type: ignore[operator]  # `number` says so
        case _:
            fine, wanted = whole and 0 <= value <= 10**9, "an integer from 0 to 1000000000; 0 is no limit"  # type: ignore[operator]  # `whole` says so
    if not fine:
        raise ControlError(f"{name} must be {wanted}; got {value!r}")


def _check_price(name: str, text: object) -> None:
    try:
        fine = isinstance(text, str) and 0 <= float(text) < math.inf
    except ValueError:
        fine = False
    if not fine:
        raise ControlError(f'{name} must be a text such as "0.000001", US dollars per token; got {text!r}')


def _json(document: object, status: int) -> Response:
    # Not Starlette's own: ids may hold lone surrogates, which only escaped JSON carries.
    return Response(json.dumps(document), status, media_type="application/json")
