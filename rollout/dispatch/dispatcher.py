"""Everything that sending needs, in one place: who decides, what sends, and the way of a request between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Final, Protocol

from rollout.dispatch.decision import InvokeResult, Observe
from rollout.dispatch.exchange import Answer, Clock, attempt_once, attempt_once_async
from rollout.dispatch.gates import OwnGate, make_gate
from rollout.dispatch.paths import ATTRIBUTION, Attribution
from rollout.dispatch.reporting import OnCost, is_wanted, report
from rollout.dispatch.request import Request, normalise
from rollout.dispatch.senders import make_async_sender, make_sender
from rollout.dispatch.senders.seam import AsyncSender, Sender
from rollout.dispatch.sending import Decides, Sending
from rollout.dispatch.streams import AsyncInvokeStream, InvokeStream
from rollout.domain.evaluate import Evaluation
from rollout.domain.failure import FailureKind
from rollout.domain.flag import MAIN_FLAG
from rollout.resilience.gate import Gate
from rollout.resilience.policy import Verdict, adrive, drive
from rollout.settings import Upstreams

FIRST_SNAPSHOT_SECONDS: Final = 3.0
"""How long the first request of a process waits to hear which models there are; later ones never wait."""


class Routes(Decides, Protocol):
    """Who decides, and knows where the paths lead: a `RolloutClient`."""

    @property
    def upstreams(self) -> Upstreams:
        """Return where the two paths lead."""
        ...

    def wait_until_ready(self, timeout: float, /) -> bool:
        """Wait until the control plane was heard once, where there is one; say whether it was."""
        ...


def _nobody() -> str | None:
    return None


class Dispatcher:
    """Everything that sending needs, in one place; safe to share between threads and event loops.

    Args:
        client: decides, names the cascade and says where the paths lead.
        observe: is handed an `Exchange` when a request is over, in whatever thread or loop that happens.
        current_user: says who is asking where a call does not.
        sender: sends synchronously.
        async_sender: sends asynchronously.
        clock: monotonic seconds.
        wall: seconds since the epoch.
        attribution: who OpenRouter is told is asking.
        gate: this process's breakers, retry budget and quota; made with the client's limits where None is given.
        sleep: waits a number of seconds, before an attempt that has to.
        asleep: the same, asynchronously.
        on_cost: is told that an answer cost money: the model, US dollars, the path.
    """

    def __init__(
        self,
        client: Routes,
        *,
        observe: Observe | None = None,
        current_user: Callable[[], str | None] = _nobody,
        sender: Sender | None = None,
        async_sender: AsyncSender | None = None,
        clock: Clock = monotonic,
        wall: Clock = time.time,
        attribution: Attribution = ATTRIBUTION,
        gate: Gate | None = None,
        sleep: Callable[[float], object] = time.sleep,
        asleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        on_cost: OnCost | None = None,
    ) -> None:
        self._gate = OwnGate(lambda: make_gate(client.upstreams, clock=clock, wall=wall), gate)
        self._sleep, self._asleep = sleep, asleep
        self.on_cost = on_cost
        self.client = client
        self.observe = observe
        self._current_user = current_user
        self._senders: dict[str, Sender] = {"own": sender} if sender else {}
        self._async_senders: dict[str, AsyncSender] = {"own": async_sender} if async_sender else {}
        self._clock = clock
        self._wall = wall
        self._attribution = attribution

    def invoke(self, params: Mapping[str, Any] | None = None, /, **keywords: Any) -> InvokeResult | InvokeStream:
        """Send a request the way its user's decision says; see `invoke_llm`."""
        if not self.client.cascade:
            self.client.wait_until_ready(FIRST_SNAPSHOT_SECONDS)
        sending = self.prepare(params, keywords)
        return self.settle(sending, *self.perform(sending))

    async def ainvoke(
        self, params: Mapping[str, Any] | None = None, /, **keywords: Any
    ) -> InvokeResult | AsyncInvokeStream:
        """Send a request the way its user's decision says; see `ainvoke_llm`."""
        if not self.client.cascade:
            await asyncio.to_thread(self.client.wait_until_ready, FIRST_SNAPSHOT_SECONDS)
        sending = self.prepare(params, keywords)
        return self.asettle(sending, *await self.aperform(sending))

    @property
    def gate(self) -> Gate:
        """Return this process's breakers, retry budget and quota."""
        return self._gate.get()

    @property
    def sender(self) -> Sender:
        """Return what sends synchronously; made when first asked for, so that nobody imports both libraries in vain."""
        # of many threads that come at once the first one's stays: what is in use is never replaced
        return self._senders.get("own") or self._senders.setdefault("own", make_sender(self.client.upstreams.network))

    @property
    def async_sender(self) -> AsyncSender:
        """Return what sends asynchronously; made when first asked for."""
        made = self._async_senders.get("own")
        return made or self._async_senders.setdefault("own", make_async_sender(self.client.upstreams.network))

    def decide(self, user: object) -> Evaluation:
        """Evaluate the flag for a user, for the current one where None is named."""
        return self.client.evaluate(MAIN_FLAG, self._current_user() if user is None else user)

    def now(self) -> float:
        """Return monotonic seconds."""
        return self._clock()

    def prepare(
        self,
        params: Mapping[str, Any] | None,
        keywords: Mapping[str, Any],
        *,
        rescue: bool = True,
        evaluation: Evaluation | None = None,
    ) -> Sending:
        """Read a request and decide its way; nothing is sent.

        Raises:
            InvalidRequest: it cannot be sent.
        """
        return self.sending(normalise(params, keywords), rescue=rescue, evaluation=evaluation)

    def sending(
        self,
        request: Request,
        *,
        upstreams: Upstreams | None = None,
        rescue: bool = True,
        evaluation: Evaluation | None = None,
        request_id: str | None = None,
    ) -> Sending:
        """Decide the way of a request that was read; nothing is sent.

        Args:
            request: what is asked.
            upstreams: other limits than the client's, for this request alone.
            rescue: whether the direct path may take over from the gateway.
            evaluation: the decision, where it was made before.
            request_id: what the answer will call it, where it came over HTTP.

        Raises:
            InvalidRequest: the cascade is empty.
        """
        return Sending(
            request.body,
            model=request.model,
            stream=request.stream,
            user=request.user,
            decides=self.client,
            upstreams=upstreams or self.client.upstreams,
            gate=self._gate.get(),
            clock=self._clock,
            wall=self._wall,
            attribution=self._attribution,
            rescue=rescue,
            on_cost=self.on_cost,
            evaluation=evaluation if evaluation is not None else self.decide(request.user),
            request_id=request_id,
        )

    def perform(self, sending: Sending) -> tuple[Verdict, Answer | None]:
        """Make the attempts; what they fail with is a value, and where nothing was sent there is no answer."""
        try:
            return drive(
                sending.policy(),
                lambda attempt: attempt_once(sending, attempt, self.sender, clock=self._clock, wall=self._wall),
                sleep=self._sleep,
                clock=self._clock,
            )
        except BaseException as error:
            self._broken_off(sending, error)
            raise

    async def aperform(self, sending: Sending) -> tuple[Verdict, Answer | None]:
        """Make the attempts; a cancellation closes the upstream, is put on record and passes on."""
        try:
            return await adrive(
                sending.policy(),
                lambda attempt: attempt_once_async(
                    sending, attempt, self.async_sender, clock=self._clock, wall=self._wall
                ),
                sleep=self._asleep,
                clock=self._clock,
            )
        except BaseException as error:
            self._broken_off(sending, error)
            raise

    def _broken_off(self, sending: Sending, error: BaseException) -> None:
        """Put on record that a caller left, by a cancellation or by Ctrl-C."""
        sending.abandon()
        if not isinstance(error, Exception):
            self.finish(sending, FailureKind.CANCELLED)

    def settle(self, sending: Sending, verdict: Verdict, answer: Answer | None) -> InvokeResult | InvokeStream:
        """Turn what the attempts brought into what the caller gets; raise where they failed."""
        if answer is None or answer.opening is None or answer.fault is not None:
            return self._plain(sending, verdict, answer)
        return InvokeStream(
            sending,
            answer.opening,
            answer.live,
            decision=sending.decision(),
            finish=lambda failure: self.finish(sending, failure),
        )

    def asettle(self, sending: Sending, verdict: Verdict, answer: Answer | None) -> InvokeResult | AsyncInvokeStream:
        """Do what `settle` does, for what was sent asynchronously."""
        if answer is None or answer.opening is None or answer.fault is not None:
            return self._plain(sending, verdict, answer)
        return AsyncInvokeStream(
            sending,
            answer.opening,
            answer.live,
            decision=sending.decision(),
            finish=lambda failure: self.finish(sending, failure),
        )

    def finish(self, sending: Sending, failure: FailureKind | None) -> None:
        """Tell the observer that a request is over; of several ends that one request comes to, the first counts."""
        if not sending.is_over and is_wanted(self.observe):
            report(self.observe, sending.exchange(failure))
        sending.is_over = True

    async def aclose(self) -> None:
        """Close what the running event loop holds open; `asyncio.run` does it by itself at its end."""
        if (made := self._async_senders.get("own")) is not None:
            await made.aclose()

    def _plain(self, sending: Sending, verdict: Verdict, answer: Answer | None) -> InvokeResult:
        self.finish(sending, verdict.failure)
        if answer is None or answer.fault is not None:
            raise sending.failed(verdict, answer.fault if answer is not None else None)
        return InvokeResult(answer.document, sending.decision())
