"""The reconciliation door: the last published comparison of the Azure invoice with the ledger."""

from __future__ import annotations

from datetime import UTC, datetime

from functions.auth import CHARGEBACK_ADMIN, CHARGEBACK_READ
from functions.blueprints import new_blueprint
from functions.http import Answer, Call, door
from shared.errors import Forbidden
from shared.months import month_of

bp = new_blueprint()


@bp.function_name("reconciliation")
@bp.route(route="reconciliation", methods=["GET"])
@door(CHARGEBACK_READ, CHARGEBACK_ADMIN)
async def get_reconciliation(call: Call) -> Answer:
    """A month's comparison: of a tenant's own accounts for who reads all of it, of everything for admins."""
    period = call.query("period") or month_of(datetime.now(UTC))
    if call.query("tenant") is None:
        if not call.principal.has_any((CHARGEBACK_ADMIN,)):
            message = "tenant: name one: the comparison of all accounts is for admins"
            raise Forbidden(message, code="scope_not_allowed", param="tenant")
        return Answer(await call.services.reconciliation.latest(None, period))
    reach = call.reach()
    if not reach.tenant_wide:
        message = f"the invoice knows no teams: its comparison is for readers of all of tenant {reach.tenant!r}"
        raise Forbidden(message, code="scope_not_allowed", param="tenant")
    return Answer(await call.services.reconciliation.latest(reach.tenant, period))
