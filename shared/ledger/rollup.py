"""Rollups: a pure function from an hour's rows to sums per quarter hour and everything reports group by.

Recomputable at any time; nothing here knows where rows come from or cells go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

from shared.ledger.keys import quarter_start
from shared.ledger.row import LedgerRow, Position, PricingStatus

# What a row counts as. A true-up is the call that its accrual was, a re-rate the call that it rates again, and the
# reversal takes either back; grants and corrections are no calls, and refusals are counted apart.
CALLS = {"usage": 1, "accrual": 1, "true_up": 1, "re_rate": 1, "reversal": -1}

# Why a row stands on another month's statement than its own: "" it does not; `negative` takes back what a closed month
# billed, `new` bills what it did not; `adjustment` is an amount that belongs to no call.
CorrectionKind = Literal["", "negative", "new", "adjustment"]


class CellLine(msgspec.Struct, array_like=True):
    """The lines of one token kind at one price: what tokens x price makes a row of a statement."""

    kind: str
    price_id: str
    unit_pico: int  # contracted pico-USD per token; 0 with a cost: the row is from before its price was kept
    list_pico: int  # the list's; the contracted one where the list has none
    tier: str  # processing tier, empty for the standard one
    tokens: int = 0
    cost_nano_usd: int = 0  # sum of the calls' lines, each rounded on its own


class RollupCell(msgspec.Struct, kw_only=True):
    """The sums of all rows that agree in every dimension. Only rows of one tenant and quarter hour share a cell."""

    tenant: str
    quarter_utc: datetime
    scopes: dict[str, str]
    provider: str = ""
    model: str = ""
    requested_model: str = ""
    deployment: str = ""
    region: str = ""
    operation: str = ""
    decision: str = ""
    measured: bool = True
    pricing_status: PricingStatus = "priced"
    booked_period: str = ""
    correction: CorrectionKind = ""
    remark: str = ""  # of corrections without tokens: what they say they are
    cell: str | None = None  # the one counter that the cell's grants move

    requests: int = 0
    tokens: dict[str, int] = msgspec.field(default_factory=dict)
    lines: list[CellLine] = msgspec.field(default_factory=list)  # costs sum to the cost, but for rows without tokens
    cost_nano_usd: int = 0  # of the rows whose cost is known
    charge_nano_usd: int = 0
    unpriced: int = 0  # rows whose cost is unknown
    saved_nano_usd: int = 0  # by downgrades and refusals, as far as it is known
    refused: int = 0  # calls that never reached a model


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


class _Open(NamedTuple):
    """A cell in the making, and its lines by what they agree in."""

    cell: RollupCell
    lines: dict[tuple[str, str | None, int, int, str], CellLine]


class Roller:
    """Sums rows as they come, so that an hour need not fit into memory as rows."""

    def __init__(self) -> None:
        self._cells: dict[tuple[object, ...], _Open] = {}
        self.reaches: dict[str, dict[str, Through]] = {}  # tenant -> stream -> how far

    @property
    def cells(self) -> list[RollupCell]:
        """The sums so far, in the order in which their first row came."""
        return [opened.cell for opened in self._cells.values()]

    def add(self, row: LedgerRow) -> None:
        """Add one row to its cell."""
        quarter_utc = quarter_start(row.time_utc)
        correction = correction_of(row)
        remark = _remark_of(row)
        key = (
            row.tenant,
            quarter_utc,
            tuple(sorted(row.scopes.items())),
            row.provider,
            row.model,
            row.requested_model,
            row.deployment,
            row.region,
            row.operation,
            row.decision,
            row.measured,
            row.pricing_status,
            row.booked_period,
            correction,
            remark,
            row.cell,
        )
        opened = self._cells.get(key)
        if opened is None:
            opened = self._cells[key] = _Open(_empty_cell(row, quarter_utc, correction, remark), {})
        _add(opened, row)
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


def correction_of(row: LedgerRow) -> CorrectionKind:
    """Why the row stands on another month's statement than its own, empty when it does not."""
    if row.kind == "correction":
        return "adjustment"
    if not row.booked_period or row.booked_period == f"{row.time_utc.astimezone(UTC):%Y-%m}":
        return ""
    return "negative" if row.kind == "reversal" else "new"


def _remark_of(row: LedgerRow) -> str:
    return row.why or "" if row.kind == "correction" else ""


def _empty_cell(row: LedgerRow, quarter_utc: datetime, correction: CorrectionKind, remark: str) -> RollupCell:
    return RollupCell(
        tenant=row.tenant,
        quarter_utc=quarter_utc,
        scopes=row.scopes,
        provider=row.provider,
        model=row.model,
        requested_model=row.requested_model,
        deployment=row.deployment,
        region=row.region,
        operation=row.operation,
        decision=row.decision,
        measured=row.measured,
        pricing_status=row.pricing_status,
        booked_period=row.booked_period,
        correction=correction,
        remark=remark,
        cell=row.cell,
    )


def _add(opened: _Open, row: LedgerRow) -> None:
    cell = opened.cell
    cell.requests += CALLS.get(row.kind, 0)
    cell.charge_nano_usd += row.charge_nano_usd
    if row.cost_nano_usd is None:
        cell.unpriced += -1 if row.kind == "reversal" else 1
    else:
        cell.cost_nano_usd += row.cost_nano_usd
    for kind, tokens in row.tokens.items():
        cell.tokens[kind] = cell.tokens.get(kind, 0) + tokens
    cell.saved_nano_usd += row.saved_nano_usd or 0
    cell.refused += row.refused
    for kind, cost_nano_usd in row.lines_nano_usd.items():
        unit_pico = row.unit_pico.get(kind, 0)
        price = (kind, row.price_id, unit_pico, row.list_pico.get(kind, unit_pico), row.processing_tier)
        line = opened.lines.get(price)
        if line is None:
            line = opened.lines[price] = CellLine(kind, row.price_id or "", *price[2:])
            cell.lines.append(line)
        line.tokens += row.tokens.get(kind, 0)
        line.cost_nano_usd += cost_nano_usd
