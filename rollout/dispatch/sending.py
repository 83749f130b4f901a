"""One request on its way: its policy, the record of its attempts, and its decision or its error at the end.

No sockets: the synchronous caller, the asynchronous caller and the endpoint perform the attempts, and all of
them ask this what to do and tell it what came of it. It also gives back each attempt's permit, exactly once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from math import isfinite
from time import time
from typing import Any, Final, Protocol

from rollout.dispatch.classify import Fault
from rollout.dispatch.decision import Decision, Exchange
from rollout.dispatch.failing import nobody_answered, nothing_sent
from rollout.dispatch.paths import ATTRIBUTION, Attribution, Call, Written, call_for, write
from rollout.dispatch.reporting import OnCost, report_cost
from rollout.dispatch.request import Choice, choose_models
from rollout.dispatch.substance import Wanted, wanted_by
from rollout.domain.errors import SendingFailed
from rollout.domain.evaluate import Evaluation
from rollout.domain.failure import AttemptRecord, FailureKind
from rollout.domain.flag import MAIN_FLAG, Path
from rollout.domain.identity import is_free_id
from rollout.resilience.gate import Gate
from rollout.resilience.permit import Permit
from rollout.resilience.policy import Attempt, Outcome, Policy, Verdict, attempts, handing_over
from rollout.resilience.source import Mark
from rollout.settings import Upstreams
from rollout.wire.chat import Usage, dump_json

_NO_PART_OF_WHAT_IS_ASKED: Final = frozenset(
    {
        "metadata",
        "model",
        "prompt_cache_key",
        "safety_identifier",
        "session_id",
        "stream",
        "stream_options",
        "trace",
        "user",
    }
)
"""Fields that say who asks, how it is to be sent or what it belongs to: with others the request is still the same."""

_FAILED_BY_GATEWAY: Final = frozenset({FailureKind.SERVER_ERROR, FailureKind.GATEWAY_ERROR})
_EXCLUDED: Final = frozenset({FailureKind.MODEL_GONE, FailureKind.NOT_FREE})
_EXCLUDES_NOBODY: Final = frozenset({"max_price", "sort"})
"""Preferences of `provider` with which every provider may still answer; `max_price` is written by us."""

_LEFT = Fault(FailureKind.CANCELLED, "the caller left")


class Decides(Protocol):
    """Who decides: the client, or anything that behaves like it. Never raises, never blocks."""

    def evaluate(self, flag: str, targeting_key: object, /) -> Evaluation:
        """Say which path a user takes, and why."""
        ...

    @property
    def cascade(self) -> tuple[str, ...]:
        """Return the model ids, in the order to try them."""
        ...


class _Source:
    """Who asks and what, for the gate. It knows nothing of the request's attempts.

    They hold it, and a circle would leave every request to the garbage collector.
    """

    __slots__ = ("_body", "_mark", "_user")

    def __init__(self, user: object, body: Mapping[str, Any]) -> None:
        self._user, self._body = user, body
        self._mark: Mark | None = None

    def mark(self) -> Mark:
        """Return by what the gate tells this request's caller and body from others."""
        if self._mark is None:
            body = _fingerprint(self._body)
            self._mark = Mark(hash(self._user) if isinstance(self._user, str) and self._user else body, body)
        return self._mark


class Sending:
    """One request on its way. Belongs to whoever sends it; not shared between threads.

    Args:
        body: the request's body, JSON-ready, whatever stands under `model`.
        model: the model asked for, None for no wish.
        stream: whether it is a stream.
        user: whom the caller is asking for, None for nobody.
        decides: says which path, and names the cascade.
        upstreams: where the paths lead.
        gate: says what may be sent now, and is told what came of it.
        clock: monotonic seconds.
        wall: seconds since the epoch.
        attribution: who OpenRouter is told is asking.
        rescue: whether the direct path may take over from the gateway; else whoever sends does, at its first fault.
        evaluation: the decision, where it was made before.
        on_cost: is told of an answer that cost money.
        request_id: what its answer calls it, None where it is no request over HTTP.

    Attributes:
        is_over: whether the observer was told of its end.
        source: who asks and what, for the gate.

    Raises:
        InvalidRequest: the cascade is empty.
    """

    __slots__ = (
        "__weakref__",
        "_answered",
        "_attribution",
        "_clock",
        "_hands_over",
        "_models",
        "_on_cost",
        "_permit",
        "_request_id",
        "_rescue",
        "_substituted",
        "_wall",
        "_written",
        "body",
        "evaluation",
        "gate",
        "is_over",
        "last",
        "records",
        "source",
        "started",
        "stream",
        "upstreams",
        "wanted",
    )

    def __init__(
        self,
        body: Mapping[str, Any],
        *,
        model: str | None,
        stream: bool,
        user: object,
        decides: Decides,
        upstreams: Upstreams,
        gate: Gate,
        clock: Callable[[], float],
        wall: Callable[[], float] = time,
        attribution: Attribution = ATTRIBUTION,
        rescue: bool = True,
        evaluation: Evaluation | None = None,
        on_cost: OnCost | None = None,
        request_id: str | None = None,
    ) -> None:
        self._clock, self._wall = clock, wall
        self.started = self._answered = clock()
        self.evaluation = evaluation if evaluation is not None else decides.evaluate(MAIN_FLAG, user)
        self._models, self._substituted = _in_order(model, decides.cascade, upstreams.allow_paid)
        self.body, self.stream, self.upstreams, self.gate = body, stream, upstreams, gate
        self.source = _Source(user, body)
        self.wanted: Wanted = wanted_by(body)
        self._attribution = attribution
        self._on_cost = on_cost
        self._hands_over = not rescue
        # without a key nobody can come to the rescue
        self._rescue = rescue and bool(upstreams.openrouter_key)
        self.records: list[AttemptRecord] = []
        self.last: Attempt | None = None
        self._permit: Permit | None = None
        self._written: Written | None = None
        self._request_id = request_id
        self.is_over = False

    def policy(self) -> Policy:
        """Return the generator of attempts."""
        limits = self.upstreams
        policy = attempts(
            self.evaluation.path,
            self._models,
            gate=self.gate,
            now=self.started,
            total=limits.total_timeout,
            per_attempt=limits.first_token_timeout if self.stream else limits.attempt_timeout,
            rescue=self._rescue,
            source=self.source,
        )
        return handing_over(policy) if self._hands_over else policy

    @property
    def can_leave_the_gateway(self) -> bool:
        """Tell whether somebody else takes a request over that the gateway is not asked."""
        return self._rescue or self._hands_over

    def call(self, attempt: Attempt) -> Call:
        """Return an attempt as an HTTP call; from here on its permit is kept here.

        Raises:
            InvalidRequest: it cannot be sent at all.
        """
        self.last = attempt
        try:
            if self._written is None:
                self._written = write(self.body, free=not self.upstreams.allow_paid)
            call = call_for(attempt.path, attempt.model, self._written, self.upstreams, self._attribution)
        except BaseException:
            self.gate.release(attempt.permit, sent=False)
            raise
        self._permit = attempt.permit
        return call

    def note(
        self,
        attempt: Attempt,
        fault: Fault | None,
        *,
        status: int | None,
        model: str | None = None,
        headers: Mapping[str, str] | None = None,
        usage: Usage | None = None,
        committed: bool = False,
        sent: bool = True,
    ) -> Outcome:
        """Put an attempt on record and give its permit back; return its outcome for the policy.

        Args:
            attempt: which one.
            fault: what is wrong with its answer, None where it serves.
            status: the answer's HTTP status, None where there was none.
            model: the model it names.
            headers: its headers, looked up in lower case.
            usage: what it says it used.
            committed: whether the caller gets something of it, as of a stream that has begun.
            sent: False where no byte of it can have reached the other side.
        """
        now = self._answered = self._clock()
        kind, detail, wait = None, None, None
        if fault is not None:
            kind, detail, wait = fault.kind, self._without_secrets(fault.detail), fault.retry_after
        self._give_back(fault, sent=sent)
        prompt, completion, cost = usage or (None, None, None)
        took = (now - attempt.started) * 1000
        overhead = _overhead(headers) if headers is not None and attempt.path is Path.LITELLM else None
        self.records.append(
            AttemptRecord(
                attempt.path,
                attempt.model,
                status,
                kind,
                took,
                model,
                detail,
                took if committed else None,
                prompt,
                completion,
                cost,
                overhead,
                1 if sent else 0,
            )
        )
        if cost is not None and cost > 0:
            self._charged(cost)
        return Outcome(kind, now, committed, wait, sent)

    def used(self, usage: Usage | None) -> None:
        """Put on record what a stream says it used, in its last chunk."""
        if usage is None:
            return
        prompt, completion, cost = usage
        last = self.records[-1]
        if cost is not None and last.path is Path.LITELLM:
            self.gate.streams_say_cost = True
        self.records[-1] = last._replace(prompt_tokens=prompt, completion_tokens=completion, cost=cost)
        if cost is not None and cost > 0 and not (last.cost is not None and last.cost > 0):
            self._charged(cost)

    def amend(self, fault: Fault) -> None:
        """Put on record, and count, that the last attempt failed after it had begun to answer."""
        last = self.records[-1]
        self.records[-1] = last._replace(failure=fault.kind, detail=self._without_secrets(fault.detail))
        self.gate.broke(last.path, last.model, fault.blames(last.path), self.source)

    def abandon(self) -> None:
        """Put on record that the caller left while an attempt was on its way; nothing where none was."""
        if self._permit is not None and self.last is not None:
            self.note(self.last, _LEFT, status=None)

    def decision(self) -> Decision:
        """Return what was decided and, so far, came of it."""
        evaluation, last = self.evaluation, self.last
        served = bool(self.records) and self.records[-1].failure is None
        return Decision(
            evaluation.path,
            last.path if last and served else None,
            last.rescued_from if last and served else None,
            last.model if last else self._models[0],
            self._substituted,
            evaluation.reason,
            evaluation.cause,
            evaluation.bucket,
            evaluation.revision,
            tuple(self.records),
            self._answered - self.started,
        )

    def exchange(self, failure: FailureKind | None) -> Exchange:
        """Return what happened, for an observer; call it when it is over."""
        status = self.records[-1].status if self.records else None
        seconds = self._clock() - self.started
        return Exchange(self.decision(), self.stream, failure, status, seconds, request_id=self._request_id)

    def failed(self, verdict: Verdict, fault: Fault | None) -> SendingFailed:
        """Return the error for a request that nobody answered; `fault` is the last attempt's, None without one."""
        if fault is None or not self.records:
            return nothing_sent(verdict.refusal, self.decision(), wall=self._wall())
        return nobody_answered(verdict.refusal, fault, self.decision(), self.upstreams, wall=self._wall())

    def _give_back(self, fault: Fault | None, *, sent: bool) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            return
        if fault is None:
            self.gate.settle(permit, None)
        elif fault.kind is FailureKind.CANCELLED:
            self.gate.release(permit)
        elif not sent and not fault.fits:
            self.gate.release(permit, sent=False)  # it was withheld: nothing was learned
        else:
            if self._brings_about(permit.path, fault.kind):
                fault = fault._replace(fits=False)
            self.gate.settle(permit, fault.blames(permit.path), fault.retry_after, sent=sent, fits=fault.fits)

    def _brings_about(self, path: Path, kind: FailureKind) -> bool:
        """Tell whether a failure may be due to a field of this request that others do not have."""
        if kind in _EXCLUDED:
            # who may not answer this request may answer others: OpenRouter says of both that the model has nobody
            preferences = self.body.get("provider")
            given = preferences.items() if isinstance(preferences, Mapping) else ()
            return any(value is not None and name not in _EXCLUDES_NOBODY for name, value in given)
        # LiteLLM answers 500 to fields that it allows nobody to set
        strange = self._written is not None and self._written.strange
        return strange and path is Path.LITELLM and kind in _FAILED_BY_GATEWAY

    def _charged(self, cost: float) -> None:
        if self.upstreams.allow_paid:
            return
        last = self.records[-1]
        self.gate.charged(last.model)
        report_cost(self._on_cost, last.model, cost, last.path)

    def _without_secrets(self, text: str) -> str:
        for secret in (self.upstreams.openrouter_key, self.upstreams.litellm_key):
            if secret and secret in text:
                text = text.replace(secret, "***")
        return text


def _fingerprint(body: Mapping[str, Any]) -> int:
    """Return a number that equal questions share, whoever asks them."""
    asked = {name: value for name, value in body.items() if name not in _NO_PART_OF_WHAT_IS_ASKED}
    try:
        return hash(dump_json(asked))
    except (TypeError, ValueError, RecursionError):
        return 0  # it cannot be sent either


@lru_cache(maxsize=64)
def _in_order(asked: str | None, cascade: tuple[str, ...], allow_paid: bool) -> Choice:  # noqa: FBT001 - a cache's key
    """Choose the models; without those that cannot be free, but all of them where none is, so that it is refused."""
    chosen = choose_models(asked, cascade)
    free = chosen.models if allow_paid else tuple(filter(is_free_id, chosen.models))
    return chosen._replace(models=free or chosen.models)


def _overhead(headers: Mapping[str, str]) -> float | None:
    """Return the milliseconds that the gateway says it took itself."""
    try:
        milliseconds = float(headers["x-litellm-overhead-duration-ms"])
    except (KeyError, ValueError):
        return None
    return milliseconds if isfinite(milliseconds) and milliseconds >= 0 else None
