"""The row of calls that a budget refused: no cost, no charge, only how many there were and what they spared."""

from __future__ import annotations

from shared.budgets.snapshot import Snapshot
from shared.errors import BudgetReserved
from shared.ledger.rating import require_tenant
from shared.ledger.row import LedgerRow, Position
from shared.usage.refusal_events import RefusalEvent


def refusal_row(event: RefusalEvent, position: Position, snapshot: Snapshot) -> LedgerRow:
    """One row for all calls of the event, under the model they asked for. Raises EventRejected.

    What was only held by calls in flight is refused with the word to try again shortly. Such a call is made a moment
    later, so it spared nothing; counting each of its tries would invent savings.
    """
    data = event.data
    require_tenant(snapshot, data.tenant)
    return LedgerRow(
        tenant=data.tenant,
        source=event.source,
        id=event.id,
        kind="refusal",
        time_utc=event.time_utc,
        scopes=data.scopes,
        position=position,
        content_digest=event.content_digest,
        charge_nano_usd=0,
        cost_nano_usd=0,
        pricing_status="none",
        provider=data.provider,
        operation=data.operation,
        requested_model=data.requested_model,
        model=data.requested_model,
        region=data.region,
        status=data.status,
        decision="refuse",
        saved_nano_usd=None if data.reason == BudgetReserved.code else data.estimate_nano_usd,
        refused=data.calls,
        why=data.reason,
    )
