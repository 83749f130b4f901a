"""`POST /chat/completions`: the checks in their order, then an answer or a scripted fault.

The order: who asks (401), how much (413), readable (400), the account's quota (429), the scripted fault, the
model (400, 404), its price (404), its tools (404), the money (402). A fault outranks the model's absence, so
that a script does what it says; the quota outranks a fault, because failed attempts count.
"""

import json
from dataclasses import replace
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from rollout.simulator import refusals
from rollout.simulator.answers import answer_to, forced_tool
from rollout.simulator.exchange import JSON, ClientLeft, Exchange, TooLarge
from rollout.simulator.faults import Fault
from rollout.simulator.misbehave import play, scripted_refusal
from rollout.simulator.models import FREE_SUFFIX, Model
from rollout.simulator.refusals import Refusal
from rollout.simulator.scene import Scene, send_answer
from rollout.simulator.schemas import SchemaError
from rollout.simulator.world import World

INVALID_KEY: Final = "sk-or-invalid"
_PER_MILLION: Final = 1_000_000


def authorization_problem(authorization: str) -> Refusal | None:
    """Refuse a request without a key or with the one invalid key; every other key is accepted."""
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        return refusals.no_credentials()
    return refusals.unauthorized() if key.strip() == INVALID_KEY else None


def read_request(raw: bytes) -> dict[str, Any] | Refusal:
    """Read a body as far as this upstream looks at it."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return refusals.bad_request("The request body is not valid JSON")
    if not isinstance(body, dict):
        return refusals.bad_request("The request body must be a JSON object")
    problem = _problem(body)
    return body if problem is None else refusals.bad_request(problem)


def _problem(body: dict[str, Any]) -> str | None:
    messages, models = body.get("messages"), body.get("models")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        return "messages: expected a non-empty list of objects"
    if models is not None and not (isinstance(models, list) and all(isinstance(each, str) for each in models)):
        return "models: expected a list of model ids"
    if not isinstance(body.get("model"), str | None) or not (body.get("model") or models):
        return "No models provided"
    for name, kind in (("stream", bool), ("user", str), ("provider", dict), ("tools", list), ("response_format", dict)):
        if not isinstance(body.get(name), kind | None):
            return f"{name}: expected a {kind.__name__}"
    return _tool_problem(body) or _format_problem(body)


def _tool_problem(body: dict[str, Any]) -> str | None:
    for tool in body.get("tools") or ():
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return "tools: each needs a function with a name"
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        function = choice.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return "tool_choice: expected a function with a name"
        if forced_tool(body) is None:
            return f"tool_choice: {function['name']!r} is not among the tools"
    return None


def _format_problem(body: dict[str, Any]) -> str | None:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        named = wanted.get("json_schema")
        if not isinstance(named, dict) or not isinstance(named.get("schema"), dict):
            return "response_format: json_schema needs a schema object"
    return None


def _max_price_problem(body: dict[str, Any], model: Model) -> Refusal | None:
    """Refuse a model that costs more than `provider.max_price`, in US dollars per million tokens."""
    limits = (body.get("provider") or {}).get("max_price")
    if limits is None:
        return None
    if not isinstance(limits, dict):
        return refusals.bad_request("provider.max_price: expected an object")
    for name, price in (("prompt", model.prompt), ("completion", model.completion)):
        try:
            allowed = float(limits[name]) if name in limits else None
        except (TypeError, ValueError):
            return refusals.bad_request(f"provider.max_price.{name}: expected a number")
        if allowed is not None and not float(price) * _PER_MILLION <= allowed:
            return refusals.too_expensive(model)
    return None


class Completions:
    """The ASGI endpoint; one instance for each world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request and close its entry in the record."""
        named = {name: value.decode("latin-1") for name, value in scope["headers"]}
        world = self._world
        entry = world.record.open(world.clock(), named.get(b"user-agent", ""), scope["headers"])
        exchange = Exchange(receive, send, entry, world.sleep)
        try:
            refusal = await self._answer(exchange, named.get(b"authorization", ""))
            if refusal is not None:
                headers = [(name.lower().encode(), value.encode()) for name, value in refusal.headers]
                await exchange.respond(refusal.status, (JSON, *headers), refusal.body())
        except ClientLeft:
            entry.closed_early = True
        finally:
            entry.finished = True
            exchange.release()

    async def _answer(self, exchange: Exchange, authorization: str) -> Refusal | None:
        world, entry = self._world, exchange.entry
        try:
            raw = await exchange.read_body(world.max_body_bytes)
        except TooLarge:
            return authorization_problem(authorization) or refusals.too_large(world.max_body_bytes)
        world.record.keep_body(entry, raw)
        body = read_request(raw)
        if isinstance(body, dict):
            entry.model = body.get("model") or body["models"][0]
            entry.user = body.get("user")
            entry.stream = body.get("stream") is True
        if (refusal := authorization_problem(authorization)) is not None:
            return refusal
        if isinstance(body, Refusal):
            return body
        if entry.model.endswith(FREE_SUFFIX) and (quota := world.account.take()) is not None:
            return refusals.rate_limited(quota)
        fault = world.script.next(entry.via, entry.model, entry.user, stream=entry.stream)
        if fault is not None:
            return await self._misbehave(exchange, body, fault)
        return await self._behave(exchange, body)

    async def _behave(self, exchange: Exchange, body: dict[str, Any]) -> Refusal | None:
        model = self._choose(body)
        if isinstance(model, Refusal):
            return model
        world = self._world
        try:
            answer = answer_to(body, model, generation_id=world.generation_id(), now=exchange.entry.at)
        except (SchemaError, RecursionError) as error:
            return refusals.bad_request(f"Invalid schema: {error}")
        world.account.spent += answer.cost
        await send_answer(exchange, answer, stream=exchange.entry.stream)
        return None

    async def _misbehave(self, exchange: Exchange, body: dict[str, Any], fault: Fault) -> Refusal | None:
        world, entry = self._world, exchange.entry
        entry.fault = fault.kind.value
        # A fault may be played for a model that is gone: it answers as if the model were there.
        known = world.catalogue.known.get(entry.model)
        model = known or Model(entry.model, entry.model, 8_192, "Simulated")
        refusal = scripted_refusal(fault, world, model.id, model.provider)
        if refusal is not None:
            return refusal
        try:
            answer = answer_to(body, model, generation_id=world.generation_id(), now=entry.at)
        except (SchemaError, RecursionError) as error:
            return refusals.bad_request(f"Invalid schema: {error}")
        await play(Scene(world, exchange, fault, replace(answer, cost=0), entry.stream))
        return None

    def _choose(self, body: dict[str, Any]) -> Model | Refusal:
        """Return the first of `model` and `models` that may answer, or why the first may not."""
        named = [each for each in (body.get("model"), *(body.get("models") or ())) if each]
        first: Refusal | None = None
        for model_id in named:
            found = self._serves(body, model_id)
            if isinstance(found, Model):
                return found
            first = first or found
        return first or refusals.bad_request("No models provided")

    def _serves(self, body: dict[str, Any], model_id: str) -> Model | Refusal:
        catalogue = self._world.catalogue
        model = catalogue.find(model_id)
        if model is None:
            known = catalogue.is_withdrawn(model_id)
            return refusals.withdrawn(model_id) if known else refusals.model_unknown(model_id)
        if (problem := _max_price_problem(body, model)) is not None:
            return problem
        if body.get("tools") and not model.tools:
            return refusals.no_tools(model)
        if not model.is_free and self._world.account.out_of_money:
            return refusals.payment_required()
        return model
