"""Rollups: a pure function from an hour's rows to sums per quarter hour and everything reports group by.

Recomputable at any time; nothing here knows where rows come from or cells go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from shared.ledger.keys import quarter_start
from shared.ledger.row import LedgerRow, Position, PricingStatus

# What a row counts as. A true-up is the call that its accrual was, and the reversal takes the accrual back; grants and
# corrections are no calls.
CALLS = {"usage": 1, "accrual": 1, "true_up": 1, "reversal": -1}


class RollupCell(msgspec.Struct, kw_only=True):
    """The sums of all rows that agree in every dimension. Only rows of one tenant and quarter hour share a cell."""

    tenant: str
    quarter_utc: datetime
    scopes: dict[str, str]
    provider: str = ""
    model: str = ""
    requested_model: str = ""
    deployment: str = ""
    operation: str = ""
    decision: str = ""
    measured: bool = True
    pricing_status: PricingStatus = "priced"
    booked_period: str = ""
    cell: str | None = None  # the one counter that the cell's grants move

    requests: int = 0
    tokens: dict[str, int] = msgspec.field(default_factory=dict)
    cost_nano_usd: int = 0  # of the rows whose cost is known
    charge_nano_usd: int = 0
    unpriced: int = 0  # rows whose cost is unknown


class Through(msgspec.Struct):
    """How far a set of rows of one stream reaches."""

    highest: Position  # a row's own position: nothing in the set is after it
    enqueued_ms: int  # largest of any row
    sequence: int  # largest of any row; with a re-created hub not the one of `highest`

    def add(self, position: Position) -> None:
        """Reach as far as this position too."""
        if self.highest.at_or_before(position):
            self.highest = position
        self.enqueued_ms = max(self.enqueued_ms, position.enqueued_ms)
        self.sequence = max(self.sequence, position.sequence)

    def within(self, mark: Position) -> bool:
        """Whether every row is at or before the mark. May say no when it is so, never yes when it is not.

        Position order is not transitive around its slack, so comparing the highest row alone could say yes for a set
        with a row beyond the mark. The largest time and the largest sequence together cannot.
        """
        return Position(mark.stream, self.enqueued_ms, self.sequence).at_or_before(mark)


class Roller:
    """Sums rows as they come, so that an hour need not fit into memory as rows."""

    def __init__(self) -> None:
        self._cells: dict[tuple[object, ...], RollupCell] = {}
        self.reaches: dict[str, dict[str, Through]] = {}  # tenant -> stream -> how far

    @property
    def cells(self) -> list[RollupCell]:
        """The sums so far, in the order in which their first row came."""
        return list(self._cells.values())

    def add(self, row: LedgerRow) -> None:
        """Add one row to its cell."""
        quarter_utc = quarter_start(row.time_utc)
        key = (
            row.tenant,
            quarter_utc,
            tuple(sorted(row.scopes.items())),
            row.provider,
            row.model,
            row.requested_model,
            row.deployment,
            row.operation,
            row.decision,
            row.measured,
            row.pricing_status,
            row.booked_period,
            row.cell,
        )
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _empty_cell(row, quarter_utc)
        _add(cell, row)
        extend(self.reaches.setdefault(row.tenant, {}), row.position)


def roll(rows: Iterable[LedgerRow]) -> list[RollupCell]:
    """Sum rows into cells."""
    roller = Roller()
    for row in rows:
        roller.add(row)
    return roller.cells


def extend(reach: dict[str, Through], position: Position) -> None:
    """Let a tenant's reach, by stream, include one more position."""
    known = reach.get(position.stream)
    if known is None:
        reach[position.stream] = Through(position, position.enqueued_ms, position.sequence)
    else:
        known.add(position)


def all_within(reach: Mapping[str, Through], marks: Mapping[str, Position]) -> bool:
    """Whether every row behind `reach` is at or before its stream's mark; a stream without a mark has none."""
    return all(stream in marks and stop.within(marks[stream]) for stream, stop in reach.items())


def _empty_cell(row: LedgerRow, quarter_utc: datetime) -> RollupCell:
    return RollupCell(
        tenant=row.tenant,
        quarter_utc=quarter_utc,
        scopes=row.scopes,
        provider=row.provider,
        model=row.model,
        requested_model=row.requested_model,
        deployment=row.deployment,
        operation=row.operation,
        decision=row.decision,
        measured=row.measured,
        pricing_status=row.pricing_status,
        booked_period=row.booked_period,
        cell=row.cell,
    )


def _add(cell: RollupCell, row: LedgerRow) -> None:
    cell.requests += CALLS.get(row.kind, 0)
    cell.charge_nano_usd += row.charge_nano_usd
    if row.cost_nano_usd is None:
        cell.unpriced += -1 if row.kind == "reversal" else 1
    else:
        cell.cost_nano_usd += row.cost_nano_usd
    for kind, tokens in row.tokens.items():
        cell.tokens[kind] = cell.tokens.get(kind, 0) + tokens
