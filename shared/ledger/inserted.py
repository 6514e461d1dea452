"""What leads to a row, and what the store says became of one."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from shared.ledger.row import LedgerRow

Outcome = Literal["new", "redelivered", "duplicate", "conflict"]


class RowRef(NamedTuple):
    """What leads to the row of an event: its identity and its time."""

    source: str
    id: str
    time_utc: datetime


class Inserted(NamedTuple):
    """What became of one row. `row` is the STORED row: its amounts count, whatever the row handed in says."""

    row: LedgerRow
    outcome: Outcome


def compare(row: LedgerRow, stored: LedgerRow) -> Outcome:
    """What a row is to the one that was stored before under its identity."""
    if row.content_digest != stored.content_digest:
        return "conflict"
    return "redelivered" if row.position == stored.position else "duplicate"
