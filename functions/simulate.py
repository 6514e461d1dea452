"""The what-if door: what another budget would have done in a past month."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import DEFAULT_TENANT, Answer, Call, door
from functions.reach import reach
from shared.errors import Forbidden, InvalidRequest

bp = new_blueprint()

MAX_QUESTION_BYTES = 16 * 1024  # one budget; reading it takes longer than its size suggests


class Question(msgspec.Struct):
    """The body: a month, and a budget in the vocabulary of budgets.yaml or as an id with what is to change."""

    period: str
    budget: msgspec.Raw
    tenant: str = DEFAULT_TENANT


@bp.function_name("budget_simulate")
@bp.route(route="budgets/simulate", methods=["POST"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def post_budget_simulate(call: Call) -> Answer:
    """Replay a month of the ledger against a changed budget and against the one in force."""
    question = call.json(Question, MAX_QUESTION_BYTES)
    found = reach(call.principal, call.services.config.current, question.tenant)
    # Numbers stay the text that was sent: 0.1 must reach the budget's reader as 0.1.
    content = json.loads(bytes(question.budget), parse_float=str, parse_int=str)
    if not isinstance(content, dict):
        raise InvalidRequest("budget: expected the fields of a budget", param="budget")
    budget = call.services.simulations.budget(question.tenant, content)
    if budget.scope_key == "*" and not found.tenant_wide:
        message = "budget.scope: a budget of any key is for readers of the whole tenant; name a scope of your own"
        raise Forbidden(message, code="scope_not_allowed", param="budget.scope")
    found.require(budget.scope_type, budget.scope_key)
    now_utc = datetime.now(UTC)
    return Answer(await call.services.simulations.run(question.tenant, question.period, budget, now_utc))
