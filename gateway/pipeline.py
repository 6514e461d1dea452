"""One model call: check the budget, try the places that serve it, answer.

Routes hand in a call and a caller; what comes out is whole or streamed, and knows everything that a route may want to
say about it. Nothing here knows HTTP's server side.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

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

log = logging.getLogger("tollkeeper.gateway")

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
    sent: int = 0


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
        answer = await self._admit(check)
        if answer.error is not None:
            return _refusal(answer, request_id)
        journey = _Journey(call, caller, request_id, check, answer)
        try:
            outcome = await self._go(journey)
        except TollkeeperError as error:
            return _own_error(error, journey)
        return with_cost(outcome, self._services.pricer) if call.wants_cost else outcome

    async def _go(self, journey: _Journey) -> Whole | Streamed:
        """From place to place until one answers; the last reply when none does."""
        order = self._attempts.order(journey.call, journey.first, journey.caller.bounds)
        admitted: CheckAnswer | None = journey.first  # holds budget, and room for its event
        reply: Whole | TollkeeperError | None = None
        refusal: Whole | None = None  # of a model that might have served it
        try:
            for place, wait_seconds in order:
                if admitted is not None and (wait_seconds or not self._holds_for(place, admitted, journey.call)):
                    held, admitted = admitted, None
                    await self._take_back(held)
                if wait_seconds:
                    await asyncio.sleep(wait_seconds)
                if admitted is None:
                    admitted, refused = await self._admit_again(journey, place)
                    if admitted is None:
                        refusal = refused or refusal
                        order.close(place.model)
                        continue
                trying = place if place.model == admitted.model else order.free_place(admitted)
                if trying is None or not self._holds_for(trying, admitted, journey.call):
                    continue  # the budget serves a cheaper model in its place, and that one is tried out
                answer, admitted = admitted, None
                answer.provider, answer.deployment = trying.provider, trying.deployment
                outcome = await self._try(journey, order, trying, answer)
                if not isinstance(outcome, Failure):
                    return outcome
                reply = outcome.reply
                if journey.sent == MOST_ATTEMPTS:
                    break
        finally:
            if admitted is not None:
                await self._take_back(admitted)
        last = refusal or reply  # a refusal tells the caller more than that a backend failed
        if last is None:
            raise order.nowhere()
        return _last(last, journey)

    async def _try(self, journey: _Journey, order: Order, place: Place, answer: CheckAnswer) -> Outcome:
        """One attempt. What was held for it is free again when it failed: the next one needs the room."""
        call, caller = journey.call, journey.caller
        journey.sent += 1
        exchange = Exchange(self._source, journey.request_id, call, answer, attempt=journey.sent)
        target = self._attempts.target(place, caller.api_version)
        try:
            outcome = await self._asking.ask(exchange, place.key, target, caller)
        except InvalidRequest as error:  # of the place's API: the model was not asked
            await self._release(answer)
            journey.sent -= 1
            order.close(place.model)
            if place.model == journey.first.model and journey.first.routing is None:
                raise
            return Failure(error, again=False)
        except Exception:
            await self._release(answer)
            raise
        if isinstance(outcome, Failure):
            if not outcome.is_billed:  # else the hold stands for what the event is about to charge
                await self._release(answer)
            order.failed(place, again=outcome.again)
        elif journey.sent > 1:
            outcome.headers[ATTEMPTS_HEADER] = str(journey.sent)
        return outcome

    async def _admit(self, check: CheckRequest) -> CheckAnswer:
        """The budget's answer; room for the event of a call that it lets in is taken."""
        self._events.reserve()
        try:
            answer = await self._services.budget.check(check)
        except BaseException:
            self._events.give_back()
            raise
        if answer.error is not None:
            self._events.give_back()
        return answer

    async def _admit_again(self, journey: _Journey, place: Place) -> tuple[CheckAnswer | None, Whole | None]:
        """The budget's answer for another attempt; else its refusal, or nothing when the model is not allowed."""
        first, attempt = journey.first, journey.sent + 1
        model, provider, deployment = place.model, place.provider, place.deployment
        check = replace(journey.check, model=model, provider=provider, deployment=deployment, attempt=attempt)
        try:
            answer = await self._admit(check)
        except Forbidden:
            return None, None
        answer.requested_model = first.requested_model
        if answer.error is not None:
            return None, _refusal(answer, journey.request_id)
        if answer.model == first.model:
            answer.decision, answer.reason = first.decision, first.reason
        else:  # no budget chose this model, so nothing was saved by it
            answer.decision, answer.reason = FALLBACK, FALLBACK
        return answer, None

    def _holds_for(self, place: Place, answer: CheckAnswer, call: ModelCall) -> bool:
        """Whether what is held is the place's price: deployments of one model may have prices of their own."""
        if place.model != answer.model or place.deployment == answer.deployment:
            return place.model == answer.model
        at, input_tokens, tier = answer.admitted_at_utc, call.input_tokens, call.service_tier
        prices = self._services.pricer.hold_prices
        held, wanted = (
            prices(answer.tenant, provider, answer.model, deployment, "", at, input_tokens, tier)
            for provider, deployment in ((answer.provider, answer.deployment), (place.provider, place.deployment))
        )
        return held == wanted

    async def _take_back(self, answer: CheckAnswer) -> None:
        """An admitted attempt is not made after all."""
        self._events.give_back()
        await self._release(answer)

    async def _release(self, answer: CheckAnswer) -> None:
        if answer.reservation is None:
            return
        try:
            await self._services.budget.release(answer.reservation)
        except TollkeeperError as error:
            # The hold then ends with its event or its time to live: budget is tied up for minutes, nothing is lost.
            log.warning("a reservation could not be released: %s", error.code)


def _refusal(answer: CheckAnswer, request_id: str) -> Whole:
    headers = {"content-type": "application/json", **answer.headers, "x-request-id": request_id}
    return Whole(answer.status, msgspec.json.encode(answer.body), headers)


def _own_error(error: TollkeeperError, journey: _Journey) -> Whole:
    """An error of the gateway's own, with the headers that every admitted call has; no model served this one."""
    headers = {name: value for name, value in journey.first.headers.items() if name.startswith("x-budget-")}
    headers |= {"content-type": "application/json", **error.headers(), "x-request-id": journey.request_id}
    if journey.sent > 1:
        headers[ATTEMPTS_HEADER] = str(journey.sent)
    return Whole(error.http_status, msgspec.json.encode(error.body()), headers)


def _last(reply: Whole | TollkeeperError, journey: _Journey) -> Whole:
    """What the client gets of a call that nobody served."""
    if isinstance(reply, TollkeeperError):
        raise reply
    if journey.sent > 1:
        reply.headers[ATTEMPTS_HEADER] = str(journey.sent)
    return reply
