"""Which model to use: the cheapest that can do the work. Pure; reads config and prices, never usage or budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any

import msgspec

from shared.config.model import Config, Endpoint, Model
from shared.pricing.book import UnitPrices, canonical_provider
from shared.pricing.deployments import compact_region
from shared.pricing.pricer import Pricer
from shared.routing.deployments import DEFAULT_PROVIDER, Deployments, Served
from shared.routing.endpoints import Endpoints, takes
from shared.routing.listing import listed_models
from shared.routing.route import Choice, Route, route_of

# What an answer is taken to be long when nobody says. The same for all models, so that they are compared on equal work.
DEFAULT_OUTPUT_TOKENS = 500
_TYPICAL_INPUT_TOKENS = 1000
CHEAPEST = "cheapest"
EMBEDDING_ONLY = frozenset({"embeddings", "embedding"})  # a model of these alone has no output to price


class Bounds(msgspec.Struct, frozen=True):
    """Where a call may be served, as its caller demands; empty: anywhere."""

    region: str = ""
    data_zone: str = ""

    def __bool__(self) -> bool:
        return bool(self.region or self.data_zone)

    def __str__(self) -> str:
        return " and ".join(
            f"{name} {wanted}" for name, wanted in (("region", self.region), ("data zone", self.data_zone)) if wanted
        )

    def admit(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint is known to lie inside."""
        return _same(self.region, endpoint.region) and _same(self.data_zone, endpoint.data_zone)


ANYWHERE = Bounds()
_NOTHING: frozenset[str] = frozenset()


class Router:
    """Routes by one config and its prices."""

    def __init__(self, config: Config, pricer: Pricer) -> None:
        self.deployments = Deployments(config.models)
        self._endpoints = Endpoints(config, None)
        self._lists_endpoints = bool(config.endpoints)
        self._models = config.models
        self._pricer = pricer
        # What any model has room for: most calls are smaller, and need not be held against each.
        self._least_context_tokens = _least(model.context_tokens for model in config.models.values())
        self._least_output_tokens = _least(model.max_output_tokens for model in config.models.values())
        self._without_responses = frozenset(name for name in config.models if not self._takes(name, "responses"))

    def cheapest(
        self,
        capabilities: Collection[str],
        input_tokens: int,
        max_output_tokens: int | None,
        tenant: str,
        at_utc: datetime,
        exclude: Collection[str] = (),
        provider: str | None = None,
        bounds: Bounds = ANYWHERE,
        may_use: Callable[[str], bool] | None = None,
        service_tier: str = "",
        choices: int = 1,
        operation: str = "chat",
    ) -> Route:
        """The cheapest configured model with all `capabilities` that fits the tokens and has a price at `at_utc`.

        `max_output_tokens` is of all `choices` together, each of which must fit. A model of unknown price is never
        chosen: it may be the dearest; nor one that `may_use` forbids, that is not known to be served inside the bounds,
        or whose API does not have the operation. Equal costs go to the id that sorts first. At a `service_tier` models
        cost what would be held for them: one that does not list the tier counts at the guard price.
        """
        needed = frozenset(capabilities)
        longest = of_one_choice(max_output_tokens, choices)
        output_tokens = DEFAULT_OUTPUT_TOKENS * choices if max_output_tokens is None else max_output_tokens
        able: list[Choice] = []
        rejected: dict[str, str] = {}
        for model in self._models.values():
            reason = unfit(model, needed, input_tokens, longest, exclude, provider)
            if reason is None and may_use is not None and not may_use(model.id):
                reason = "not among the allowed models"
            served = None if reason else self.served_inside(model.id, bounds)
            if served is None:
                nowhere = f"not known to be served in {bounds}" if bounds else "no endpoint serves it"
                rejected[model.id] = reason or nowhere
                continue
            place = served.deployment
            if not takes(self._endpoints.of(served.provider, place), operation):
                rejected[model.id] = f"its API has no {operation}"
                continue
            cost = self._cost_nano_usd(model, input_tokens, output_tokens, tenant, at_utc, place, service_tier)
            if cost is None:
                rejected[model.id] = "its price is unknown"
            else:
                able.append(Choice(model.id, cost, place))
        able.sort(key=lambda choice: (choice.cost_nano_usd, choice.model))
        return route_of(able, rejected, needed, input_tokens, output_tokens, bounds)

    def downgrade_target(
        self, requested_model: str, target: str, tenant: str, at_utc: datetime, exclude: Collection[str] = ()
    ) -> str | None:
        """The model a downgrade rule means for a call, None when there is nothing to downgrade to.

        A named target is itself, unless config knows it to lack a capability of the requested model or is excluded.
        `cheapest` is the cheapest model of the same provider that has every capability of the requested one and costs
        strictly less; None where such models are all excluded, and the requested model itself where there is none.
        None too for a model that config does not know, or whose own price is unknown. Embeddings are their own
        cheapest: vectors of another model cannot be compared with those already stored, so a silent change would ruin
        an index.
        """
        requested = self._models.get(requested_model)
        if target != CHEAPEST:
            stands_in = target not in (requested_model, *exclude) and self._can_stand_in(target, requested)
            return target if stands_in else None
        if requested is None:
            return None
        if requested.capabilities & EMBEDDING_ONLY:
            return requested_model
        own_cost = self._cost_nano_usd(requested, _TYPICAL_INPUT_TOKENS, DEFAULT_OUTPUT_TOKENS, tenant, at_utc)
        if own_cost is None:
            return None
        route = self.cheapest(
            requested.capabilities,
            _TYPICAL_INPUT_TOKENS,
            None,
            tenant,
            at_utc,
            exclude=(requested_model, *exclude),
            provider=requested.provider,
        )
        if route.cost_nano_usd is not None and route.cost_nano_usd < own_cost:
            return route.model
        is_cheapest = not exclude or self.downgrade_target(requested_model, target, tenant, at_utc) == requested_model
        return requested_model if is_cheapest else None

    def unable(
        self,
        requested_model: str,
        input_tokens: int,
        max_output_tokens: int | None,
        bounds: Bounds,
        operation: str = "chat",
    ) -> frozenset[str]:
        """The configured models that cannot serve such a call in place of the requested one: they are too small for it,
        not known to be served inside the bounds, or their API does not have the operation.

        `max_output_tokens` is of one choice. Where the requested model would be too small as well, size says nothing:
        the estimate is too high, or the call is in vain.
        """
        output_tokens = max_output_tokens or 0
        fits_all = (
            input_tokens + output_tokens <= self._least_context_tokens and output_tokens <= self._least_output_tokens
        )
        lacking = self._without_responses if operation == "responses" else _NOTHING
        if fits_all and not bounds:
            return lacking
        requested = self._models.get(requested_model)
        says_nothing = requested is not None and unfit(requested, _NOTHING, input_tokens, max_output_tokens) is not None
        size = (0, None) if says_nothing else (input_tokens, max_output_tokens)
        return lacking | frozenset(
            model.id
            for model in self._models.values()
            if unfit(model, _NOTHING, *size) is not None or (bounds and self.served_inside(model.id, bounds) is None)
        )

    def served_inside(self, model_id: str, bounds: Bounds, preferred: str = "") -> Served | None:
        """Where a configured model is served: on the preferred deployment, else its own, else the first of all; the
        first of these that lies inside the bounds.

        None when no endpoint serves it, or none that is known to lie there. What config lists no endpoint for may still
        be served, by the endpoint of the settings or by API Management.
        """
        first = self.deployments.serving(model_id)
        if not bounds and (not self._lists_endpoints or canonical_provider(first.provider) == DEFAULT_PROVIDER):
            return first
        for deployment in (preferred or first.deployment, first.deployment, *self._models[model_id].deployments):
            endpoint = self._endpoints.of(first.provider, deployment)
            if endpoint is not None and bounds.admit(endpoint):
                return first if deployment == first.deployment else first._replace(deployment=deployment)
        return None

    def region_of(self, provider: str, deployment: str) -> str:
        """Where a deployment runs, as far as config says: prices may differ by that. Empty when it does not."""
        endpoint = self._endpoints.of(provider, deployment)
        return "" if endpoint is None else endpoint.region or ""

    def models_view(self, tenant: str, at_utc: datetime) -> list[dict[str, Any]]:
        """Every configured model as `GET /models` shows it, by id, with the prices in force for the tenant."""
        return listed_models(self._models, lambda model: self._prices(model, tenant, at_utc))

    def _takes(self, model_id: str, operation: str) -> bool:
        served = self.deployments.serving(model_id)
        return takes(self._endpoints.of(served.provider, served.deployment), operation)

    def _can_stand_in(self, target: str, requested: Model | None) -> bool:
        """Whether nothing known speaks against serving `target` in place of the requested model."""
        known = self._models.get(target)
        return known is None or requested is None or requested.capabilities <= known.capabilities

    def _prices(self, model: Model, tenant: str, at_utc: datetime) -> UnitPrices | None:
        """The model's prices on its first deployment, which is where a call to it goes."""
        served = self.deployments.serving(model.id)
        region = self.region_of(served.provider, served.deployment)
        return self._pricer.unit_prices(tenant, served.provider, model.id, served.deployment, region, at_utc)

    def _cost_nano_usd(
        self,
        model: Model,
        input_tokens: int,
        output_tokens: int,
        tenant: str,
        at_utc: datetime,
        deployment: str | None = None,
        service_tier: str = "",
    ) -> int | None:
        served = self.deployments.serving(model.id)
        tokens = {"input": input_tokens}
        if not model.capabilities or model.capabilities - EMBEDDING_ONLY:
            tokens["output"] = output_tokens
        name = served.deployment if deployment is None else deployment
        place = (tenant, served.provider, model.id, name, self.region_of(served.provider, name), at_utc)
        standard = self._pricer.rate(*place, tokens).cost_nano_usd
        if standard is None or not service_tier:
            return standard
        return max(standard, self._pricer.rate(*place, tokens, service_tier).charge_nano_usd)


def _same(wanted: str, known: str | None) -> bool:
    return not wanted or (known is not None and compact_region(wanted) == compact_region(known))


def _least(limits: Iterable[int | None]) -> float:
    return min((limit for limit in limits if limit is not None), default=math.inf)


def of_one_choice(max_output_tokens: int | None, choices: int) -> int | None:
    """The cap of each answer, where `max_output_tokens` is that of all of them together."""
    return max_output_tokens if max_output_tokens is None else -(-max_output_tokens // choices)


def unfit(
    model: Model,
    needed: frozenset[str],
    input_tokens: int,
    max_output_tokens: int | None,
    exclude: Collection[str] = (),
    provider: str | None = None,
) -> str | None:
    """Why a model cannot do the work, None when it can. A limit that config does not state does not exclude.

    `max_output_tokens` is of one choice.
    """
    if model.id in exclude:
        return "excluded by the request"
    if provider is not None and canonical_provider(model.provider) != canonical_provider(provider):
        return f"served by another provider, {model.provider}"
    missing = needed - model.capabilities
    if missing:
        return f"lacks {', '.join(sorted(missing))}"
    if max_output_tokens is not None and max_output_tokens > (model.max_output_tokens or max_output_tokens):
        return f"answers at most {model.max_output_tokens} tokens"
    if model.context_tokens is not None and input_tokens + (max_output_tokens or 0) > model.context_tokens:
        return f"holds at most {model.context_tokens} tokens"
    return None
