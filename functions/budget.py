"""Budget doors: may this call run, give a reservation back, correct a counter."""

from __future__ import annotations

from typing import Annotated

import msgspec

from functions.auth import BUDGET_CHECK, CHARGEBACK_ADMIN
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from shared.budgets.request import CheckRequest
from shared.config.model import PeriodKind

bp = new_blueprint()


class ReleaseRequest(msgspec.Struct):
    """The body of `POST /budget/release`."""

    reservation: Annotated[str, msgspec.Meta(min_length=1, max_length=65_536)]


class ResetRequest(msgspec.Struct):
    """The body of `POST /budget/reset`."""

    tenant: str
    scope: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]  # `type:key`, as answers spell it
    why: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    period: PeriodKind | None = None  # only the counters of this kind; all of the scope's when absent
    spent: Annotated[str, msgspec.Meta(max_length=32)] = "0.00"  # what the counter shall show as spent, in USD


@bp.function_name("budget_check")
@bp.route(route="budget/check", methods=["POST"])
@door(BUDGET_CHECK)
async def budget_check(call: Call) -> Answer:
    """Decide on one call and hold its estimated cost: 200 allow or downgrade, 402 spent, 429 held, 403, 503."""
    request = call.json(CheckRequest, call.services.settings.max_check_body_bytes)
    answer = await call.services.budget.check(request)
    return Answer(answer.body, answer.status, answer.headers)


@bp.function_name("budget_release")
@bp.route(route="budget/release", methods=["POST"])
@door(BUDGET_CHECK)
async def budget_release(call: Call) -> Answer:
    """Give a reservation back at once. False `released`: the token is not ours. Giving back twice is harmless."""
    released = await call.services.budget.release(call.json(ReleaseRequest).reservation)
    return Answer({"released": released})


@bp.function_name("budget_reset")
@bp.route(route="budget/reset", methods=["POST"])
@door(CHARGEBACK_ADMIN)
async def budget_reset(call: Call) -> Answer:
    """Set what a scope shows as spent by a correcting row that names who and why; the bill does not change."""
    wanted = call.json(ResetRequest)
    done = await call.services.reset.reset(
        wanted.tenant,
        call.services.pseudonyms.scope(wanted.scope),
        call.principal.identity(),
        wanted.why,
        spent=wanted.spent,
        period=wanted.period,
        key=call.idempotency_key(),
    )
    return Answer(done, 202)
