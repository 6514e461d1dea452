"""Letting attempts in: what a check takes for an attempt, and the one way or the other in which it is free again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from shared.errors import TollkeeperError

if TYPE_CHECKING:
    from gateway.attempts import Place
    from gateway.call import ModelCall
    from gateway.events import EventQueue
    from shared.bootstrap import Services
    from shared.budgets.answer import CheckAnswer
    from shared.budgets.request import CheckRequest

log = logging.getLogger("tollkeeper.gateway")


async def admit(check: CheckRequest, services: Services, events: EventQueue) -> Admission:
    """What the budget says of an attempt. Raises TollkeeperError where it cannot be asked, and then holds nothing."""
    events.reserve()
    try:
        answer = await services.budget.check(check)
    except BaseException:
        events.give_back()
        raise
    if answer.error is not None:
        events.give_back()
    return Admission(answer, services, events)


class Admission:
    """The budget's answer. One that lets the attempt in holds budget for it, and room for its event, until the attempt
    is made or taken back.
    """

    def __init__(self, answer: CheckAnswer, services: Services, events: EventQueue) -> None:
        self.answer = answer
        self._services = services
        self._events = events
        self._is_unused = answer.error is None

    def covers(self, place: Place, call: ModelCall) -> bool:
        """Whether an attempt at the place may still be made on it, at the price that is held: deployments of one model
        may have prices of their own.
        """
        answer = self.answer
        if not self._is_unused or place.model != answer.model:
            return False
        if place.deployment == answer.deployment:
            return True
        held = self._hold_prices(answer.provider, answer.deployment, call)
        return held == self._hold_prices(place.provider, place.deployment, call)

    def _hold_prices(self, provider: str, deployment: str, call: ModelCall) -> tuple[int, int]:
        answer, services = self.answer, self._services
        region = services.router.region_of(provider, deployment)
        at_utc, input_tokens, tier = answer.admitted_at_utc, call.input_tokens, call.service_tier
        prices = services.pricer.hold_prices
        return prices(answer.tenant, provider, answer.model, deployment, region, at_utc, input_tokens, tier)

    def use(self, place: Place) -> CheckAnswer:
        """The answer, for an attempt at the place: whoever makes it uses the room or gives that back."""
        self._is_unused = False
        self.answer.provider, self.answer.deployment = place.provider, place.deployment
        return self.answer

    async def take_back(self) -> None:
        """Free what is held, unless an attempt was made on it."""
        if self._is_unused:
            self._is_unused = False
            self._events.give_back()
            await self.release()

    async def release(self) -> None:
        """Free the budget alone, after an attempt that cost nothing."""
        if self.answer.reservation is None:
            return
        try:
            await self._services.budget.release(self.answer.reservation)
        except TollkeeperError as error:
            # The hold then ends with its event or its time to live: budget is tied up for minutes, nothing is lost.
            log.warning("a reservation could not be released: %s", error.code)
