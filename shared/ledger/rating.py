"""From a decoded event to the ledger row it becomes: tokens counted or estimated, priced at the event's own instant."""

from __future__ import annotations

from shared.budgets.cells import parse_cell
from shared.budgets.reservation import Reservation, ReservationSigner
from shared.budgets.snapshot import Snapshot
from shared.ledger.row import LedgerRow, Position
from shared.usage.correcting_events import CorrectionEvent
from shared.usage.estimate import estimate_input_tokens
from shared.usage.events import GrantEvent, TrueUpEvent, UsageData, UsageEvent
from shared.usage.rejected import EventRejected
from shared.usage.tokens import Tokens, count_tokens, processing_tier

_OUTPUT_KINDS = ("output", "output_audio", "output_image", "reasoning")


def usage_row(
    event: UsageEvent, position: Position, snapshot: Snapshot, held: Reservation | None, default_output_tokens: int
) -> LedgerRow:
    """The row of a usage event. A call whose tokens nobody measured is accrued at its estimate and says so; an answer
    that broke off is billed by what its gateway saw of it, which is all that anybody will ever know.

    Raises EventRejected when the usage object contradicts itself or the tenant is unknown.
    """
    data = event.data
    require_tenant(snapshot, data.tenant)
    tokens: Tokens | None = count_tokens(data.usage, data.provider)
    measured, waits = True, False
    if data.output_tokens_estimate is not None and _was_served(data.status):
        tokens, measured = _seen_tokens(data, data.output_tokens_estimate, tokens, held), False
    elif tokens is None:
        if _was_served(data.status):
            tokens, measured, waits = _estimated_tokens(event, held, default_output_tokens), False, True
        else:
            tokens = {}
    tier = processing_tier(data.processing_tier, data.usage)
    rated = snapshot.pricer.rate(
        data.tenant, data.provider, data.model, data.deployment, data.region, event.time_utc, tokens, tier
    )
    row = LedgerRow(
        tenant=data.tenant,
        source=event.source,
        id=event.identity_id,
        kind="accrual" if waits else "usage",
        time_utc=event.time_utc,
        scopes=data.scopes,
        position=position,
        content_digest=event.content_digest,
        charge_nano_usd=rated.charge_nano_usd,
        cost_nano_usd=rated.cost_nano_usd,
        tokens=tokens,
        lines_nano_usd=rated.lines_nano_usd,
        unit_pico=rated.unit_pico,
        list_pico=rated.list_pico,
        pricing_status=rated.pricing_status,
        price_id=rated.price_id,
        provider=data.provider,
        operation=data.operation,
        requested_model=data.requested_model,
        model=data.model,
        deployment=data.deployment,
        region=data.region,
        processing_tier=tier or "",
        streamed=data.streamed,
        status=data.status,
        measured=measured,
        decision=data.decision,
        latency_ms=None if data.latency_ms is None else int(data.latency_ms),
        attempt=data.attempt,
    )
    if row.decision == "downgrade":
        row.saved_nano_usd = saved_by_downgrade(row, snapshot)
    return row


def grant_row(event: GrantEvent, position: Position, snapshot: Snapshot) -> LedgerRow:
    """The row of a reset or an opening balance: cost 0, one counter, who and why. It never changes the bill."""
    data = event.data
    require_tenant(snapshot, data.tenant)
    try:
        cell = parse_cell(data.cell)
    except (ValueError, KeyError) as error:
        raise EventRejected(f"data.cell: {error}", param="data.cell") from None
    return LedgerRow(
        tenant=data.tenant,
        source=event.source,
        id=event.identity_id,
        kind="grant",
        time_utc=event.time_utc,
        scopes={cell.family.scope_type: cell.scope_key},
        position=position,
        content_digest=event.content_digest,
        charge_nano_usd=data.amount_nano_usd,
        cost_nano_usd=0,
        pricing_status="none",
        cell=data.cell,
        who=data.who,
        why=data.why,
    )


def correction_row(event: CorrectionEvent, position: Position, snapshot: Snapshot) -> LedgerRow:
    """The row of an amount that no call explains: on the bill, on no counter, and no call itself."""
    data = event.data
    require_tenant(snapshot, data.tenant)
    return LedgerRow(
        tenant=data.tenant,
        source=event.source,
        id=event.id,
        kind="correction",
        time_utc=event.time_utc,
        scopes=data.scopes,
        position=position,
        content_digest=event.content_digest,
        charge_nano_usd=0,
        cost_nano_usd=data.amount_nano_usd,
        provider=data.provider,
        deployment=data.deployment,
        region=data.region,
        who=data.who,
        why=data.why,
    )


def saved_by_downgrade(row: LedgerRow, snapshot: Snapshot) -> int | None:
    """What the row's tokens would have cost on the model that was asked for, less what they did cost, in nano-USD.

    None when either is not known. Negative when the cheaper model turned out dearer for these tokens.
    """
    if row.cost_nano_usd is None:
        return None
    _, provider, deployment = snapshot.deployments.serving(row.requested_model)
    asked = snapshot.pricer.rate(
        row.tenant,
        provider,
        row.requested_model,
        deployment,
        row.region,
        row.time_utc,
        row.tokens,
        row.processing_tier or None,
    ).cost_nano_usd
    return None if asked is None else asked - row.cost_nano_usd


def read_reservation(event: UsageEvent, signer: ReservationSigner) -> Reservation | None:
    """The reservation an event carries; None when there is none, it is forged, or it belongs to another tenant."""
    if not event.data.reservation:
        return None
    held = signer.read(event.data.reservation)
    return held if held is not None and held.tenant == event.data.tenant else None


def output_tokens_sample(row: LedgerRow) -> int | None:
    """The output tokens that teach the estimates, or None when the row teaches nothing."""
    if row.kind not in ("usage", "true_up") or not row.measured or row.operation == "embeddings":
        return None
    return _output_tokens(row) if _was_served(row.status) else None


def is_cut_short(
    event: UsageEvent | TrueUpEvent, row: LedgerRow, snapshot: Snapshot, default_output_tokens: int
) -> bool:
    """Whether the call's own `max_output_tokens` ended its answer before the length that its model usually has.

    Such an answer says nothing of calls without that cap: classifying with one token a few dozen times would teach that
    the next essay costs next to nothing, and a burst of them would pass the budget many times over.
    """
    cap = event.data.max_output_tokens
    if cap is None:
        return False
    return cap <= _output_tokens(row) < snapshot.typical_output_tokens(row.model, default_output_tokens)


def _was_served(status: int) -> bool:
    """Whether a model answered: a call that failed, or that a backend only sent elsewhere, used nothing."""
    return 0 < status < 300


def _output_tokens(row: LedgerRow) -> int:
    return row.tokens.get("output", 0) + row.tokens.get("output_audio", 0)


def require_tenant(snapshot: Snapshot, tenant: str) -> None:
    """EventRejected unless the tenant is configured."""
    if tenant not in snapshot.config.tenants:
        raise EventRejected(f"data.tenant: {tenant!r} is not configured", code="tenant_unknown", param="data.tenant")


def _estimated_tokens(event: UsageEvent, held: Reservation | None, default_output_tokens: int) -> Tokens:
    """What a call without measured tokens probably used: the mean its reservation carried, not the quantile it held."""
    data = event.data
    input_tokens = held.input_tokens if held else estimate_input_tokens(data.input_tokens_estimate, None)
    return _capped(data, input_tokens, held.output_tokens_mean if held else default_output_tokens)


def _seen_tokens(data: UsageData, output_tokens: int, counted: Tokens | None, held: Reservation | None) -> Tokens:
    """What a broken answer used: its whole prompt, as the provider counted it where it had, and what went by of it."""
    if counted is not None:
        prompt = {kind: count for kind, count in counted.items() if kind not in _OUTPUT_KINDS}
        return prompt | _capped(data, 0, output_tokens)
    known = data.input_tokens_estimate
    if known is None and held is not None:
        known = held.input_tokens
    return _capped(data, estimate_input_tokens(known, None), output_tokens)


def _capped(data: UsageData, input_tokens: int, output_tokens: int) -> Tokens:
    """Estimates within what the call allowed."""
    if data.max_output_tokens is not None:
        output_tokens = min(output_tokens, data.max_output_tokens)
    if data.operation == "embeddings":
        output_tokens = 0
    return {kind: count for kind, count in (("input", input_tokens), ("output", output_tokens)) if count}
