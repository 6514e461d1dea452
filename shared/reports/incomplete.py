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
        have = "1 call has no price yet and costs" if calls == 1 else f"{calls} calls have no price yet and cost"
        notes.append(f"{have} nothing here: {models}.")
    waiting, missing = totals.coverage.requests.estimated, totals.coverage.requests.missing
    if waiting:
        amount = decimal_from_nano(totals.coverage.costs_nano_usd.estimated)
        are = "1 streamed call is" if waiting == 1 else f"{waiting} streamed calls are"
        notes.append(f"{are} estimated at {amount} USD and may still be measured.")
    if missing:
        amount = decimal_from_nano(totals.coverage.costs_nano_usd.missing)
        were = "1 streamed call was" if missing == 1 else f"{missing} streamed calls were"
        notes.append(f"{were} never measured; the estimate of {amount} USD stands.")
    return tuple(notes)
