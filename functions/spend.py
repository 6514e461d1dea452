"""Spend doors: what every budget counter shows now, and where one scope is heading."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from shared.errors import InvalidRequest, NotFound
from shared.scopes import SCOPE_TYPE, validate_scope_key

bp = new_blueprint()


@bp.function_name("spend")
@bp.route(route="spend", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_spend(call: Call) -> Answer:
    """The counters of a tenant that the caller may see, optionally of one scope type or state."""
    reach = call.reach()
    scope_type, state = call.query("scope_type"), call.query("state")
    if scope_type is not None:
        _require_scope_type(scope_type)
    counters = await call.services.spend.list(reach.tenant, scope_type, state)
    return Answer({"tenant": reach.tenant, "budgets": [each for each in counters if reach.covers_id(each["scope"])]})


@bp.function_name("spend_of_scope")
@bp.route(route="spend/{scope_type}/{*scope_key}", methods=["GET"])  # a catch-all: keys may hold slashes
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_spend_of_scope(call: Call) -> Answer:
    """One scope's counters, each with its rate per hour and its projection to the end of the period."""
    reach = call.reach()
    scope_type = _require_scope_type(call.request.route_params.get("scope_type", ""))
    scope_key = validate_scope_key(call.request.route_params.get("scope_key", ""), "scope_key")
    scope_key = call.services.pseudonyms.key(scope_type, scope_key)
    reach.require(scope_type, scope_key)
    budgets = await call.services.budget_outlook.of_scope(reach.tenant, scope_type, scope_key, datetime.now(UTC))
    if not budgets:
        raise NotFound(f"no budget of tenant {reach.tenant!r} covers {scope_type}:{scope_key}", param="scope_key")
    return Answer({"tenant": reach.tenant, "budgets": budgets})


def _require_scope_type(scope_type: str) -> str:
    if not re.fullmatch(SCOPE_TYPE, scope_type):
        raise InvalidRequest("scope_type: expected [a-z][a-z0-9_-]*, up to 32 characters", param="scope_type")
    return scope_type
