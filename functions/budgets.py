"""Doors on definitions of budgets: what is in force, where it comes from, changing it beside git, and its history."""

from __future__ import annotations

from typing import Annotated

import msgspec

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from functions.reach import Reach
from shared.config.edits import budget_definition, budget_of
from shared.config.model import Budget, Config
from shared.errors import Forbidden, InvalidRequest

bp = new_blueprint()

MAX_HISTORY = 200
DEFAULT_HISTORY = 50
_HISTORY = "/history"
_Figure = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
_Version = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class BudgetChange(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PUT /budgets/{id}`. A figure that is absent is as in git."""

    why: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    version: _Version  # of the budget, as it was read
    limit: _Figure | None = None
    warn: _Figure | None = None
    degrade: _Figure | None = None
    stop: _Figure | None = None


@bp.function_name("budgets")
@bp.route(route="budgets", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_budgets(call: Call) -> Answer:
    """The budgets that apply to what the caller may see, each with its origin (git or an edit) and its version."""
    reach, config = call.reach(), call.services.config.current
    shown = [
        budget_definition(config, budget, with_reason=_shows_reason(call, reach, budget))
        for budget in config.budgets
        if budget.tenant in (None, reach.tenant) and _touches(reach, config, budget)
    ]
    head = {"tenant": reach.tenant, "config_version": config.version}
    return Answer({**head, "dashboard_edits": config.billing.dashboard_edits, "budgets": shown})


@bp.function_name("budget_history")
@bp.route(route="budgets/{*budget_id}", methods=["GET"])  # a catch-all: ids hold slashes
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_budget_history(call: Call) -> Answer:
    """`/budgets/{id}/history`: who changed the budget's figures, when, why, from what to what."""
    reach, config = call.reach(), call.services.config.current
    path = call.request.route_params.get("budget_id", "")
    budget = budget_of(config, reach.tenant, path.removesuffix(_HISTORY))
    if not (_touches(reach, config, budget) and _shows_reason(call, reach, budget)):
        raise Forbidden(f"budget {budget.id!r} covers more than you may read", code="scope_not_allowed")
    if not path.endswith(_HISTORY):
        return Answer(budget_definition(config, budget))
    changes = await call.services.config_edits.history(budget.id, _limit(call))
    if not _is_admin(call):  # a publication is of every tenant, and so is its reason
        changes = [change | {"why": None} if change["kind"] == "publish" else change for change in changes]
    return Answer({"tenant": reach.tenant, "budget": budget.id, "changes": changes})


@bp.function_name("budget_change")
@bp.route(route="budgets/{*budget_id}", methods=["PUT"])
@door(CHARGEBACK_ADMIN)
async def put_budget(call: Call) -> Answer:
    """Give a budget other figures than git does, by whom and why; in force everywhere within 30 seconds."""
    reach, wanted = call.reach(), call.json(BudgetChange)
    budget_id = call.request.route_params.get("budget_id", "")
    figures = {"limit": wanted.limit, "warn": wanted.warn, "degrade": wanted.degrade, "stop": wanted.stop}
    config = await call.services.config_edits.change(
        reach.tenant, budget_id, figures, version=wanted.version, who=call.principal.identity(), why=wanted.why
    )
    return _changed(call, config, reach, budget_id)


@bp.function_name("budget_revert")
@bp.route(route="budgets/{*budget_id}", methods=["DELETE"])
@door(CHARGEBACK_ADMIN)
async def delete_budget_edit(call: Call) -> Answer:
    """End the edit of a budget: its figures are git's again."""
    reach, budget_id = call.reach(), call.request.route_params.get("budget_id", "")
    version, why = call.query("version"), call.query("why")
    if version is None:
        raise InvalidRequest("version: is required, as GET /budgets shows it", param="version")
    if why is None:
        raise InvalidRequest("why: is required", param="why")
    config = await call.services.config_edits.revert(
        reach.tenant, budget_id, version=version, who=call.principal.identity(), why=why
    )
    return _changed(call, config, reach, budget_id)


def _changed(call: Call, written: Config, reach: Reach, budget_id: str) -> Answer:
    """What was written, as this worker reads it by now; as it was written where somebody else wrote after."""
    current = call.services.config.current
    config = current if current.version == written.version else written
    budget = budget_of(config, reach.tenant, budget_id)
    return Answer({"budget": budget_definition(config, budget), "config_version": config.version})


def _touches(reach: Reach, config: Config, budget: Budget) -> bool:
    """Whether the budget can bind a call of what the caller may see."""
    if budget.scope_key != "*":
        return reach.covers(budget.scope_type, budget.scope_key)
    named_by_callers = config.tenants[reach.tenant].client_asserted_scopes
    return reach.tenant_wide or bool(reach.scopes.get(budget.scope_type)) or budget.scope_type in named_by_callers


def _shows_reason(call: Call, reach: Reach, budget: Budget) -> bool:
    """Why a budget that many share was changed may speak of another team, and where tenants share it, of a tenant."""
    if _is_admin(call) or budget.scope_key != "*":
        return True
    one_tenant = budget.tenant is not None or len(call.services.config.current.tenants) == 1
    return reach.tenant_wide and one_tenant


def _is_admin(call: Call) -> bool:
    return call.principal.has_any((CHARGEBACK_ADMIN,))


def _limit(call: Call) -> int:
    text = call.query("limit")
    if text is None:
        return DEFAULT_HISTORY
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= MAX_HISTORY):
        raise InvalidRequest(f"limit: expected a whole number from 1 to {MAX_HISTORY}", param="limit")
    return int(text)
