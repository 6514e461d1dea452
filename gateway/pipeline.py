"""One model call: check the budget, try the places that serve it, answer.

Routes hand in a call and a caller; what comes out is whole or streamed, and knows everything that a route may want to
say about it. Nothing here knows HTTP's server side.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from gateway.admission import Admission, admit
from gateway.answers import Caller, Streamed, Whole
from gateway.asking import Asking, Outcome
from gateway.attempts import MOST_ATTEMPTS, Attempts, Order, Place
from gateway.breakers import Breakers
from gateway.call import ModelCall
from gateway.cost import with_cost
from gateway.events import EventQueue
from gateway.exchange import Exchange
from gateway.failures import Failure
from gateway.needs import capabilities_needed
from gateway.upstream import Upstream
from shared.budgets.request import CheckRequest
from shared.budgets.routed import AUTO
from shared.errors import Forbidden, InvalidRequest, TollkeeperError

if TYPE_CHECKING:
    from shared.bootstrap import Services
    from shared.budgets.answer import CheckAnswer

ATTEMPTS_HEADER = "x-tollkeeper-attempts"
FALLBACK = "fallback"  # decision and reason of a call that another model served because the first did not answer


@dataclass
class _Journey:
    """One call on its way from place to place."""

    call: ModelCall
    caller: Caller
    request_id: str
    check: CheckRequest
    first: CheckAnswer  # what the budget said of the model that the client asked for
    order: Order
    sent: int = 0
    refusal: Whole | None = None  # the budget's last, of a model that might have served it
    reply: Whole | TollkeeperError | None = None  # of the last place that failed


class Pipeline:
    """The order of things, over one set of services."""

    def __init__(self, services: Services, upstream: Upstream, events: EventQueue, name: str) -> None:
        """`name` tells gateways apart in the events' source."""
        self._services = services
        self._events = events
        breakers = Breakers()
        self._attempts = Attempts(upstream.endpoint_of, lambda: services.config.current, breakers)
        self._asking = Asking(upstream, events, breakers)
        self._source = f"gateway/{name}"

    async def run(self, call: ModelCall, caller: Caller, request_id: str) -> Whole | Streamed:
        """Answer one call. Raises TollkeeperError for one that no budget could be asked about."""
        check = CheckRequest(
            model=call.model,
            identity=dict(caller.identity),
            scopes=dict(caller.scopes),
            operation=call.operation,
            tools=list(call.tools),
            input_tokens=call.input_tokens,
            max_output_tokens=call.max_output_tokens,
            choices=call.choices,
            service_tier=call.service_tier,
            request_id=request_id,
            capabilities=sorted(capabilities_needed(call)) if call.model == AUTO else None,
            required_region=caller.bounds.region,
            required_data_zone=caller.bounds.data_zone,
        )
        admission = await admit(check, self._services, self._events)
        if admission.answer.error is not None:
            return _refusal(admission.answer, request_id)
        order = self._attempts.order(call, admission.answer, caller.bounds)
        journey = _Journey(call, caller, request_id, check, admission.answer, order)
        try:
            outcome = await self._go(journey, admission)
        except TollkeeperError as error:
            outcome = _own_error(error, journey)
        if journey.sent > 1:
            outcome.headers[ATTEMPTS_HEADER] = str(journey.sent)
        return with_cost(outcome, self._services.pricer) if call.wants_cost else outcome

    async def _go(self, journey: _Journey, admission: Admission) -> Whole | Streamed:
        """From place to place until one answers; when none does, the last reply, or the error that stands for it."""
        call, order = journey.call, journey.order
        try:
            for place, wait_seconds in order:
                if wait_seconds or not admission.covers(place, call):
                    await admission.take_back()
                    await asyncio.sleep(wait_seconds)
                    again = await self._admit_again(journey, place)
                    if again is None:
                        order.close(place.model)
                        continue
                    admission = again
                serving = order.serving(place, admission.answer)
                if serving is None or not admission.covers(serving, call):
                    continue
                outcome = await self._try(journey, serving, admission)
                if not isinstance(outcome, Failure):
                    return outcome
                journey.reply = outcome.reply
                if journey.sent == MOST_ATTEMPTS:
                    break
        finally:
            await admission.take_back()
        # A refusal tells the caller more than that a backend failed.
        last = journey.refusal or journey.reply or order.nowhere()
        if isinstance(last, TollkeeperError):
            raise last
        return last

    async def _try(self, journey: _Journey, place: Place, admission: Admission) -> Outcome:
        """One attempt. What was held for it is free again when it failed: the next one needs the room."""
        answer = admission.use(place)
        journey.sent += 1
        exchange = Exchange(self._source, journey.request_id, journey.call, answer, attempt=journey.sent)
        target = self._attempts.target(place, journey.caller.api_version)
        try:
            outcome = await self._asking.ask(exchange, place.key, target, journey.caller)
        except InvalidRequest as error:  # of the place's API: the model was not asked
            await admission.release()
            journey.sent -= 1
            journey.order.close(place.model)
            if place.model == journey.first.requested_model:
                raise
            return Failure(journey.reply or error, again=False)  # that a backend failed tells the caller more
        except Exception:
            await admission.release()
            raise
        if isinstance(outcome, Failure):
            if not outcome.is_billed:  # else the hold stands for what the event is about to charge
                await admission.release()
            journey.order.failed(place, again=outcome.again)
        return outcome

    async def _admit_again(self, journey: _Journey, place: Place) -> Admission | None:
        """The budget's word on another attempt; None when the place's model is not to serve the call."""
        first, attempt = journey.first, journey.sent + 1
        model, provider, deployment = place.model, place.provider, place.deployment
        check = replace(journey.check, model=model, provider=provider, deployment=deployment, attempt=attempt)
        try:
            admission = await admit(check, self._services, self._events)
        except Forbidden:
            return None
        answer = admission.answer
        answer.requested_model = first.requested_model
        if answer.error is not None:
            journey.refusal = _refusal(answer, journey.request_id)
            return None
        if answer.model == first.model:
            answer.decision, answer.reason = first.decision, first.reason
        else:  # no budget chose this model, so nothing was saved by it
            answer.decision, answer.reason = FALLBACK, FALLBACK
        return admission


def _refusal(answer: CheckAnswer, request_id: str) -> Whole:
    headers = {"content-type": "application/json", **answer.headers, "x-request-id": request_id}
    return Whole(answer.status, msgspec.json.encode(answer.body), headers)


def _own_error(error: TollkeeperError, journey: _Journey) -> Whole:
    """An error of the gateway's own, with the headers that every admitted call has; no model served this one."""
    headers = {name: value for name, value in journey.first.headers.items() if name.startswith("x-budget-")}
    headers |= {"content-type": "application/json", **error.headers(), "x-request-id": journey.request_id}
    return Whole(error.http_status, msgspec.json.encode(error.body()), headers)
