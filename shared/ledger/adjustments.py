"""What corrects a call that is billed already: its true-up, or a new rating. Pure: the stored rows come in.

Either takes back the row that bills the call now, as it is STORED, and puts another in its place.
"""

from __future__ import annotations

from msgspec.structs import replace

from shared.budgets.snapshot import Snapshot
from shared.ledger.family import Family, Pair
from shared.ledger.rating import require_tenant, saved_by_downgrade
from shared.ledger.row import REVERSAL_SUFFIX, LedgerRow, Position
from shared.pricing.pricer import Rated
from shared.usage.correcting_events import ReRateEvent, re_rate_id
from shared.usage.events import TrueUpEvent
from shared.usage.rejected import EventRejected
from shared.usage.tokens import Tokens, count_tokens, processing_tier

AdjustingEvent = TrueUpEvent | ReRateEvent


def call_id_of(event: AdjustingEvent) -> str:
    """The id under which the call stands in the ledger."""
    return event.data.accrual if isinstance(event, TrueUpEvent) else event.data.call


def adjust(event: AdjustingEvent, family: Family, position: Position, snapshot: Snapshot) -> Pair | None:
    """The rows that the event adds to a call; None when it has nothing to change.

    An event whose rows are stored already gets them again, with its own digest and position, for the store to compare.
    Raises EventRejected when there is no such call, its tenant is not configured, or the usage contradicts itself.
    """
    call = family.call
    if call is None or (isinstance(event, TrueUpEvent) and call.kind != "accrual"):
        raise _unknown(event)
    stored = family.stored(event.id.removeprefix(call.id))
    if stored is not None:
        return Pair(*(replace(row, position=position, content_digest=event.content_digest) for row in stored))
    require_tenant(snapshot, call.tenant)
    head = family.head
    replacement = (
        _true_up(event, head, snapshot) if isinstance(event, TrueUpEvent) else _re_rate(event, call, head, snapshot)
    )
    if replacement is None:
        return None
    # booked_period stays with neither: a row that comes after its month was closed is booked into the open one.
    common = {
        "position": position,
        "content_digest": event.content_digest,
        "booked_period": "",
        "call_id": call.id,
        "who": replacement.who,
        "why": replacement.why,
    }
    reversal = replace(
        head,
        **common,
        id=head.id + REVERSAL_SUFFIX,
        kind="reversal",
        charge_nano_usd=-head.charge_nano_usd,
        cost_nano_usd=None if head.cost_nano_usd is None else -head.cost_nano_usd,
        tokens={kind: -count for kind, count in head.tokens.items()},
        lines_nano_usd={kind: -amount for kind, amount in head.lines_nano_usd.items()},
        saved_nano_usd=None if head.saved_nano_usd is None else -head.saved_nano_usd,
    )
    return Pair(reversal, replace(replacement, **common))


def rerated(head: LedgerRow, snapshot: Snapshot) -> LedgerRow | None:
    """The row that bills a call now, rated by the configuration in force; None when nothing changes.

    Never from a price to none: that would turn a known cost into an unknown one.
    """
    if head.pricing_status == "none":
        return None
    row = _resolved(head, snapshot) if head.pricing_status == "unpriced" else head
    rated = _rate(row, row.tokens, row.processing_tier or None, snapshot)
    if rated.pricing_status != "priced":
        return None
    if (rated.cost_nano_usd, rated.lines_nano_usd) == (head.cost_nano_usd, head.lines_nano_usd):
        return None
    return _with_rate(row, rated, snapshot)


def _true_up(event: TrueUpEvent, head: LedgerRow, snapshot: Snapshot) -> LedgerRow:
    tokens = count_tokens(event.data.usage, head.provider)
    if tokens is None:
        raise EventRejected("data.usage: holds no tokens", code="usage_unreadable", param="data.usage")
    tier = processing_tier(event.data.processing_tier, event.data.usage)
    row = replace(
        head,
        id=event.id,
        kind="true_up",
        tokens=tokens,
        processing_tier=tier or "",
        measured=True,
        who=None,
        why=None,
    )
    return _with_rate(row, _rate(row, tokens, tier, snapshot), snapshot)


def _re_rate(event: ReRateEvent, call: LedgerRow, head: LedgerRow, snapshot: Snapshot) -> LedgerRow | None:
    row = rerated(head, snapshot)
    if row is None:
        return None
    id_ = re_rate_id(call.id, event.data.run)
    return replace(row, id=id_, kind="re_rate", who=event.data.who, why=event.data.why)


def _resolved(row: LedgerRow, snapshot: Snapshot) -> LedgerRow:
    """The row with the model's configured id, where a model that was not configured then is known now by its name."""
    served = snapshot.deployments.named(row.model, row.provider)
    if served is None:
        return row
    deployment = snapshot.deployments.spelled(row.deployment)
    if not deployment and served.deployment.lower() == row.model.lower():
        deployment = served.deployment
    return replace(
        row,
        model=served.model,
        provider=row.provider or served.provider,
        deployment=deployment,
        requested_model=served.model if row.requested_model == row.model else row.requested_model,
    )


def _rate(row: LedgerRow, tokens: Tokens, tier: str | None, snapshot: Snapshot) -> Rated:
    return snapshot.pricer.rate(
        row.tenant, row.provider, row.model, row.deployment, row.region, row.time_utc, tokens, tier
    )


def _with_rate(row: LedgerRow, rated: Rated, snapshot: Snapshot) -> LedgerRow:
    priced = replace(
        row,
        charge_nano_usd=rated.charge_nano_usd,
        cost_nano_usd=rated.cost_nano_usd,
        lines_nano_usd=dict(rated.lines_nano_usd),
        unit_pico=dict(rated.unit_pico),
        list_pico=dict(rated.list_pico),
        pricing_status=rated.pricing_status,
        price_id=rated.price_id,
        saved_nano_usd=None,
    )
    if priced.decision == "downgrade":
        priced.saved_nano_usd = saved_by_downgrade(priced, snapshot)
    return priced


def _unknown(event: AdjustingEvent) -> EventRejected:
    if isinstance(event, TrueUpEvent):
        message = f"data.accrual: {event.source} {event.data.accrual} is no accrual of the ledger"
        return EventRejected(message, code="accrual_unknown", param="data.accrual")
    message = f"data.call: {event.source} {event.data.call} is no call of the ledger"
    return EventRejected(message, code="call_unknown", param="data.call")
