"""What the figures of a statement themselves say is not known yet. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.money import decimal_from_nano

if TYPE_CHECKING:
    from shared.reports.statement import Statement


def incomplete(statement: Statement) -> tuple[str, ...]:
    """What a statement's own figures say is not known, in sentences."""
    notes = []
    totals = statement.totals
    calls = sum(missing.calls for missing in statement.unpriced)
    if calls > 0:
        models = ", ".join(sorted({missing.model for missing in statement.unpriced})[:5])
        notes.append(f"{calls} calls have no price yet and cost nothing here: {models}.")
    waiting, missing = totals.coverage.requests.estimated, totals.coverage.requests.missing
    if waiting:
        amount = decimal_from_nano(totals.coverage.costs_nano_usd.estimated)
        notes.append(f"{waiting} streamed calls are estimated at {amount} USD and may still be measured.")
    if missing:
        amount = decimal_from_nano(totals.coverage.costs_nano_usd.missing)
        notes.append(f"{missing} streamed calls were never measured; their estimate of {amount} USD stands.")
    return tuple(notes)
