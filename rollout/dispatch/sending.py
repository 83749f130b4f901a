"""One request on its way: its policy, the record of its attempts, and its decision or its error at the end.

No sockets: the synchronous caller, the asynchronous caller and the endpoint perform the attempts, and all of
them ask this what to do and tell it what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from rollout.dispatch.classify import Fault
from rollout.dispatch.decision import Decision, Exchange
from rollout.dispatch.failures import FACES
from rollout.dispatch.paths import ATTRIBUTION, Attribution, Call, call_for
from rollout.dispatch.request import choose_models
from rollout.domain.errors import SendingFailed
from rollout.domain.evaluate import Evaluation
from rollout.domain.failure import AttemptRecord, FailureKind
from rollout.domain.flag import MAIN_FLAG, Path
from rollout.resilience.policy import Attempt, Outcome, Policy, Verdict, attempts
from rollout.settings import Upstreams


class Decides(Protocol):
    """Who decides: the client, or anything that behaves like it. Never raises, never blocks."""

    def evaluate(self, flag: str, targeting_key: object, /) -> Evaluation:
        """Say which path a user takes, and why."""
        ...

    @property
    def cascade(self) -> tuple[str, ...]:
        """Return the model ids, in the order to try them."""
        ...


class Sending:
    """One request on its way. Belongs to whoever sends it; not shared between threads.

    Args:
        body: the request's body, JSON-ready, whatever stands under `model`.
        model: the model asked for, None for no wish.
        stream: whether it is a stream.
        user: whom the caller is asking for, None for nobody.
        decides: says which path, and names the cascade.
        upstreams: where the paths lead.
        clock: monotonic seconds.
        attribution: who OpenRouter is told is asking.
        rescue: whether the direct path may take over from the gateway.

    Raises:
        InvalidRequest: the cascade is empty.
    """

    __slots__ = (
        "_attribution",
        "_clock",
        "_models",
        "_rescue",
        "_substituted",
        "body",
        "evaluation",
        "last",
        "records",
        "started",
        "stream",
        "upstreams",
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
        clock: Callable[[], float],
        attribution: Attribution = ATTRIBUTION,
        rescue: bool = True,
        evaluation: Evaluation | None = None,
    ) -> None:
        self._clock = clock
        self.started = clock()
        self.evaluation = evaluation if evaluation is not None else decides.evaluate(MAIN_FLAG, user)
        self._models, self._substituted = choose_models(model, decides.cascade)
        self.body, self.stream, self.upstreams = body, stream, upstreams
        self._attribution = attribution
        # without a key nobody can come to the rescue
        self._rescue = rescue and bool(upstreams.openrouter_key)
        self.records: list[AttemptRecord] = []
        self.last: Attempt | None = None

    def policy(self) -> Policy:
        """Return the generator of attempts."""
        limits = self.upstreams
        return attempts(
            self.evaluation.path,
            self._models,
            now=self.started,
            total=limits.total_timeout,
            per_attempt=limits.first_token_timeout if self.stream else limits.attempt_timeout,
            rescue=self._rescue,
        )

    def call(self, attempt: Attempt) -> Call:
        """Return an attempt as an HTTP call.

        Raises:
            InvalidRequest: it cannot be sent at all.
        """
        self.last = attempt
        return call_for(attempt.path, attempt.model, self.body, self.upstreams, self._attribution)

    def note(
        self, attempt: Attempt, fault: Fault | None, *, status: int | None, model: str | None, committed: bool = False
    ) -> Outcome:
        """Put an attempt on record; return its outcome for the policy."""
        now = self._clock()
        kind, detail = (fault.kind, self._without_secrets(fault.detail)) if fault else (None, None)
        took = (now - attempt.started) * 1000
        self.records.append(AttemptRecord(attempt.path, attempt.model, status, kind, took, model, detail))
        return Outcome(kind, now, committed)

    def amend(self, kind: FailureKind, detail: str) -> None:
        """Put on record that the last attempt failed after it had begun to answer."""
        self.records[-1] = replace(self.records[-1], failure=kind, detail=self._without_secrets(detail))

    def abandon(self) -> None:
        """Put on record that the caller left while an attempt was on its way."""
        last = self.last
        if last is not None and len(self.records) < last.number:
            self.note(last, Fault(FailureKind.CANCELLED, "the caller left"), status=None, model=None)

    def decision(self) -> Decision:
        """Return what was decided and, so far, came of it."""
        evaluation, last = self.evaluation, self.last
        served = bool(self.records) and self.records[-1].failure is None
        return Decision(
            path=evaluation.path,
            served_by=last.path if last and served else None,
            rescued_from=last.rescued_from if last and served else None,
            model=last.model if last else self._models[0],
            model_substituted=self._substituted,
            reason=evaluation.reason,
            cause=evaluation.cause,
            bucket=evaluation.bucket,
            revision=evaluation.revision,
            attempts=tuple(self.records),
            latency=self._clock() - self.started,
        )

    def exchange(self, decision: Decision, failure: FailureKind | None, *, wrapped: bool = False) -> Exchange:
        """Return what happened, for an observer; call it when it is over."""
        status = self.records[-1].status if self.records else None
        return Exchange(decision, self.stream, failure, status, self._clock() - self.started, wrapped)

    def failed(self, verdict: Verdict, fault: Fault) -> SendingFailed:
        """Return the error for a request that nobody answered."""
        return sending_failed(fault, self.records, self.decision(), advice=self._advice(verdict))

    def _advice(self, verdict: Verdict) -> str:
        path = verdict.attempt.path
        match verdict.failure:
            case FailureKind.UNAUTHORIZED:
                return f"; check {'LITELLM_MASTER_KEY' if path is Path.LITELLM else 'OPENROUTER_API_KEY'}"
            case FailureKind.PAYMENT_REQUIRED:
                return "; look at the credits and limits of the OpenRouter account"
            case FailureKind.MODEL_GONE:
                return f"; take {verdict.attempt.model!r} out of the cascade if it stays away"
            case _:
                pass
        if path is Path.LITELLM and not self.upstreams.openrouter_key:
            return "; it could not go direct either, because OPENROUTER_API_KEY is not set"
        return ""

    def _without_secrets(self, text: str) -> str:
        for secret in (self.upstreams.openrouter_key, self.upstreams.litellm_key):
            if secret and secret in text:
                text = text.replace(secret, "***")
        return text


def sending_failed(
    fault: Fault, records: Sequence[AttemptRecord], decision: Decision, *, advice: str = ""
) -> SendingFailed:
    """Return the error of the tree that fits a fault; the last record says where it happened."""
    last = records[-1]
    answered = f"HTTP {last.status}, " if last.status is not None else ""
    message = f"{last.path} failed with {last.model!r} ({answered}{fault.kind}): {last.detail}{advice}"
    if len(records) > 1:
        first = records[0]
        message += f"; before that {first.path} failed ({first.failure}: {first.detail})"
    return FACES[fault.kind].error(
        message, attempts=records, status=last.status, retry_after=fault.retry_after, decision=decision
    )
