"""Model doors: what is on offer at which price, and which model a call should use."""

from __future__ import annotations

from datetime import UTC, datetime

from functions.auth import BUDGET_CHECK, CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import DEFAULT_TENANT, Answer, Call, door
from shared.budgets.request import known_tenant
from shared.budgets.routed import RouteQuestion, answer_route

bp = new_blueprint()


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
    route = answer_route(call.json(RouteQuestion), call.services.snapshot(), datetime.now(UTC))
    return Answer(route.body())
