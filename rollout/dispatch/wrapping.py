"""`wrap(old_function)`: the control path stays the code an application has today; only the gateway's side is ours.

Decided direct, the old function is called with exactly what the caller gave, and its answer comes back as it
is. Decided for the gateway, we send; when the gateway fails before anything was delivered, the old function
answers. What the old function sends by itself is outside our attempt counts.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

from rollout.dispatch.decision import Decision, Exchange
from rollout.dispatch.dispatcher import Dispatcher
from rollout.dispatch.invoke import default_dispatcher
from rollout.dispatch.paths import NOT_THE_CALLERS
from rollout.dispatch.reporting import is_wanted, report
from rollout.dispatch.sending import Sending
from rollout.domain.errors import InvalidRequest
from rollout.domain.evaluate import Evaluation
from rollout.domain.failure import GATEWAY_FAULTS, AttemptRecord, FailureKind
from rollout.domain.flag import Path
from rollout.resilience.policy import Verdict

_P = ParamSpec("_P")
_R = TypeVar("_R")


def wrap(old: Callable[_P, _R], *, dispatcher: Callable[[], Dispatcher] = default_dispatcher) -> Callable[_P, _R]:
    """Return a function like `old`, synchronous or asynchronous as it is, that follows the user's decision.

    Args:
        old: takes `invoke_llm`'s parameters: one mapping, keywords, or arguments of those names.
        dispatcher: returns what sends on the gateway's side; asked at each call.

    Raises:
        InvalidRequest: `old` is a generator function, whose answer nobody can take over; or (when called) it was
            decided for the gateway, and the parameters cannot be sent there.
        SendingFailed: (when called) the gateway answered, and refused; its faults are answered by `old`.
    """
    if inspect.isgeneratorfunction(old) or inspect.isasyncgenfunction(old):
        raise InvalidRequest("wrap takes a function that returns its answer; wrap what the generator calls instead")
    if _is_async(old):

        @functools.wraps(old)
        async def awrapped(*args: Any, **kwargs: Any) -> Any:
            call = _WrappedCall.begin(dispatcher(), old, args, kwargs)
            sending: Sending | None = None
            try:
                if (sending := call.treatment()) is not None:
                    verdict, answer = await call.dispatcher.aperform(sending)
                    if not _left_to_old(verdict):
                        return call.dispatcher.asettle(sending, verdict, answer)
            except InvalidRequest as error:
                if error.field not in NOT_THE_CALLERS:
                    raise
            try:
                result = await cast("Any", old)(*args, **kwargs)
            except BaseException:
                call.answered(sending, FailureKind.NO_ANSWER)
                raise
            call.answered(sending, None)
            return result

        return cast("Callable[_P, _R]", awrapped)

    @functools.wraps(old)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        call = _WrappedCall.begin(dispatcher(), old, args, kwargs)
        sending: Sending | None = None
        try:
            if (sending := call.treatment()) is not None:
                verdict, answer = call.dispatcher.perform(sending)
                if not _left_to_old(verdict):
                    return call.dispatcher.settle(sending, verdict, answer)
        except InvalidRequest as error:
            if error.field not in NOT_THE_CALLERS:
                raise  # otherwise this side is not set up, and the caller's own code still works
        try:
            result = cast("Any", old)(*args, **kwargs)
        except BaseException:
            call.answered(sending, FailureKind.NO_ANSWER)
            raise
        call.answered(sending, None)
        return result

    return cast("Callable[_P, _R]", wrapped)


def _left_to_old(verdict: Verdict) -> bool:
    """Tell whether the old function answers: the gateway failed, or rests, or has no model that may be asked."""
    resting = verdict.attempt is None and verdict.failure in (FailureKind.RESTING, FailureKind.NOT_FREE)
    return resting or verdict.failure in GATEWAY_FAULTS


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - asked for its kind, not whether there is one


@dataclass(frozen=True, slots=True)
class _WrappedCall:
    """One call of a wrapped function, decided."""

    dispatcher: Dispatcher
    params: Mapping[str, Any]
    evaluation: Evaluation
    started: float

    @classmethod
    def begin(cls, dispatcher: Dispatcher, old: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _WrappedCall:
        started = dispatcher.now()
        params = _parameters(old, args, kwargs)
        return cls(dispatcher, params, dispatcher.decide(params.get("user")), started)

    def treatment(self) -> Sending | None:
        """Return what to send through the gateway; None where the old function is to answer."""
        if self.evaluation.path is not Path.LITELLM:
            return None
        return self.dispatcher.prepare(None, self.params, rescue=False, evaluation=self.evaluation)

    def answered(self, sending: Sending | None, failure: FailureKind | None) -> None:
        """Tell the observer that the old function answered, or failed to."""
        if not is_wanted(self.dispatcher.observe):
            return
        records: tuple[AttemptRecord, ...] = tuple(sending.records) if sending else ()
        evaluation, seconds = self.evaluation, self.dispatcher.now() - self.started
        decision = Decision(
            path=evaluation.path,
            served_by=Path.OPENROUTER if failure is None else None,
            rescued_from=Path.LITELLM if failure is None and evaluation.path is Path.LITELLM else None,
            model=records[-1].model if records else "",
            model_substituted=False,
            reason=evaluation.reason,
            cause=evaluation.cause,
            bucket=evaluation.bucket,
            revision=evaluation.revision,
            attempts=records,
            latency=seconds,
        )
        stream = bool(self.params.get("stream"))
        report(self.dispatcher.observe, Exchange(decision, stream, failure, None, seconds, wrapped=True))


def _parameters(old: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[str, Any]:
    """Return what the caller gave, by name."""
    if not args:
        return kwargs
    if len(args) == 1 and isinstance(args[0], Mapping):
        return {**args[0], **kwargs}
    try:
        bound = inspect.signature(old).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return kwargs  # the old function will say what is wrong with it
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        elif bound.signature.parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL:
            named[name] = value
    return named
