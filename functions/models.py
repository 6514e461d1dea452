"""Model doors: what is on offer at which price, and which model a call should use."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from functions.auth import BUDGET_CHECK, CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import DEFAULT_TENANT, Answer, Call, door
from shared.budgets.request import Count, Name, known_tenant
from shared.errors import NotFound

bp = new_blueprint()


class RouteRequest(msgspec.Struct, kw_only=True):
    """The body of `POST /route`. With `model`, its capabilities are added to those asked for."""

    model: Name | None = None
    capabilities: Annotated[list[Name], msgspec.Meta(max_length=32)] = []
    input_tokens: Count = 0
    max_output_tokens: Count | None = None
    tenant: str = DEFAULT_TENANT
    scopes: dict[str, str] = {}


@bp.function_name("models")
@bp.route(route="models", methods=["GET"])
@door(BUDGET_CHECK, CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_models(call: Call) -> Answer:
    """Every model with the prices in force for the tenant, its capabilities and its fallbacks."""
    if call.principal.has_any((BUDGET_CHECK,)):  # a gateway serves every tenant
        tenant = known_tenant(call.services.config.current, call.query("tenant") or DEFAULT_TENANT).id
    else:  # what a tenant negotiated is for its own readers
        tenant = call.reach().tenant
    return Answer({"models": call.services.router.models_view(tenant, datetime.now(UTC))})


@bp.function_name("route")
@bp.route(route="route", methods=["POST"])
@door(BUDGET_CHECK)
async def post_route(call: Call) -> Answer:
    """The cheapest model that can do the call, the alternatives, and why the others cannot."""
    wanted = call.json(RouteRequest)
    config = call.services.config.current
    tenant = known_tenant(config, wanted.tenant)
    capabilities = set(wanted.capabilities)
    if wanted.model is not None:
        served = call.services.router.deployments.named(wanted.model)
        requested = None if served is None else config.models[served.model]
        if requested is None:
            raise NotFound(f"model: {wanted.model!r} is not configured", code="model_unknown", param="model")
        capabilities |= requested.capabilities
    route = call.services.router.cheapest(
        capabilities, wanted.input_tokens, wanted.max_output_tokens, tenant.id, datetime.now(UTC)
    )
    return Answer(route.body())
