"""Where the attempts of a call may go, and in which order."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gateway.breakers import Breakers, PlaceKey
from gateway.failures import UpstreamBusy, UpstreamUnavailable
from gateway.needs import capabilities_needed
from gateway.providers.base import Target
from shared.errors import NotFound, TollkeeperError
from shared.routing.fallbacks import fallback_models
from shared.routing.router import Bounds, of_one_choice

if TYPE_CHECKING:
    from gateway.call import ModelCall
    from shared.budgets.answer import CheckAnswer
    from shared.config.model import Config, Endpoint

MOST_ATTEMPTS = 8  # of one call, wherever they go
LONGEST_WAIT_SECONDS = 3.0  # a client waits for a busy place no longer than this; then it hears of it
_PAUSE_SECONDS = 0.2  # before a place that failed without saying for how long is asked again
_JITTER = 0.5  # waits are up to so much longer: those who wait for the same place must not come back together


class Place(NamedTuple):
    """A deployment of a model, and the endpoint that has it."""

    model: str
    provider: str
    deployment: str
    endpoint: Endpoint

    @property
    def key(self) -> PlaceKey:
        """What its breaker goes by."""
        return self.endpoint.id, self.deployment


class Attempts:
    """The places that one gateway knows, and which of them answer."""

    def __init__(
        self, endpoint_of: Callable[[str, str], Endpoint | None], read_config: Callable[[], Config], breakers: Breakers
    ) -> None:
        self._endpoint_of = endpoint_of
        self._read_config = read_config
        self.breakers = breakers

    def target(self, place: Place, api_version: str | None) -> Target:
        """The place as the providers' APIs want it."""
        model = self._read_config().models.get(place.model)
        longest = None if model is None else model.max_output_tokens
        return Target(place.model, place.provider, place.deployment, place.endpoint, api_version, longest)

    def places(self, answer: CheckAnswer, bounds: Bounds) -> Iterator[Place]:
        """Where the answer's model is served: on the answer's deployment, then on the model's others."""
        own = answer.deployment  # as it is now: whoever tries another one writes that into the answer
        first = self._place(answer.model, answer.provider, own, bounds)
        if first is not None:
            yield first
        for place in self._places_of(answer.model, bounds):
            if place.deployment != own:
                yield place

    def order(self, call: ModelCall, answer: CheckAnswer, bounds: Bounds) -> Order:
        """All places of a call that was admitted by `answer`."""
        return Order(self, call, answer, bounds)

    def fallback_places(self, call: ModelCall, answer: CheckAnswer, bounds: Bounds) -> Iterator[Place]:
        """Where the models are served that may stand in, in their order."""
        models = self._read_config().models
        routed = () if answer.routing is None else [choice.model for choice in answer.routing.alternatives]
        for model in fallback_models(
            models,
            answer.model,
            routed,
            operation=call.operation,
            needs=capabilities_needed(call),
            input_tokens=call.input_tokens,
            max_output_tokens=of_one_choice(call.max_output_tokens, call.choices),
        ):
            yield from self._places_of(model, bounds)

    def _places_of(self, model_id: str, bounds: Bounds) -> Iterator[Place]:
        model = self._read_config().models.get(model_id)
        for deployment in () if model is None else model.served_by:
            place = self._place(model_id, model.provider, deployment, bounds) if model else None
            if place is not None:
                yield place

    def _place(self, model: str, provider: str, deployment: str, bounds: Bounds) -> Place | None:
        endpoint = self._endpoint_of(provider, deployment)
        if endpoint is None or (bounds and not bounds.admit(endpoint)):
            return None
        return Place(model, provider, deployment, endpoint)


@dataclass
class Order:
    """The places of one call, one after the other, each at most twice; whoever tries them says what became of it."""

    attempts: Attempts
    call: ModelCall
    answer: CheckAnswer
    bounds: Bounds
    seen: bool = False  # whether there is any place at all
    _closed_models: set[str] = field(default_factory=set)
    _tried: list[Place] = field(default_factory=list)
    _worth_again: list[Place] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Place, float]]:
        """Places with the seconds to wait before each: first those that may be tried at once, then what is left."""
        breakers = self.attempts.breakers
        for place in self._all():
            self.seen = True
            if place.model in self._closed_models:
                continue
            if breakers.wait_seconds(place.key) > 0:
                self._worth_again.append(place)
            else:
                yield place, 0.0
        again, self._worth_again = self._worth_again, []
        for place in sorted(again, key=lambda place: breakers.wait_seconds(place.key)):
            wait = breakers.wait_seconds(place.key)
            if place.model not in self._closed_models and wait <= LONGEST_WAIT_SECONDS:
                yield place, max(wait, _PAUSE_SECONDS) * (1 + random.random() * _JITTER)  # noqa: S311

    def failed(self, place: Place, *, again: bool) -> None:
        """The place was tried in vain; `again`: it may be asked once more when all others were."""
        self._tried.append(place)
        if again:
            self._worth_again.append(place)

    def close(self, model: str) -> None:
        """The budget does not let this model serve the call."""
        self._closed_models.add(model)

    def serving(self, place: Place, answer: CheckAnswer) -> Place | None:
        """The place itself; or, when the budget serves a cheaper model in its stead, where that may be tried now.

        None when that was tried everywhere, or may not be tried yet.
        """
        if place.model == answer.model:
            return place
        tried = {place.key for place in self._tried}
        for other in self.attempts.places(answer, self.bounds):
            if other.key not in tried and self.attempts.breakers.wait_seconds(other.key) == 0:
                return other
        return None

    def nowhere(self) -> TollkeeperError:
        """Why no place was tried at all."""
        if not self.seen:
            message = f"model: no endpoint of this gateway serves {self.answer.model!r}"
            if self.bounds:
                message += f" in {self.bounds}"
            return NotFound(message, code="model_not_served", param="model")
        waits = [self.attempts.breakers.wait_seconds(place.key) for place in self._all()]
        seconds = max(1, math.ceil(min(waits, default=0.0)))
        if self.attempts.breakers.is_open(next(self._all()).key):
            return UpstreamUnavailable("the model backend fails; try again later", retry_after_seconds=seconds)
        return UpstreamBusy("the model backend is busy; try again later", retry_after_seconds=seconds)

    def _all(self) -> Iterator[Place]:
        yield from self.attempts.places(self.answer, self.bounds)
        yield from self.attempts.fallback_places(self.call, self.answer, self.bounds)
