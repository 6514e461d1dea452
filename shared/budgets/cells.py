"""Cells: the live counters. One cell is what one scope spent in one period; budgets are only limits laid over cells.

So two budgets on the same scope and period share a counter, and editing a limit loses nothing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec

from shared.budgets.periods import Period, period_at
from shared.config.model import PeriodKind
from shared.scopes import parse_scope_id, scope_id


class CellFamily(msgspec.Struct, frozen=True, gc=False):
    """All cells of one scope type, period kind and zone."""

    scope_type: str
    period: PeriodKind
    zone: str


class Cell(msgspec.Struct, frozen=True, gc=False):  # tens of thousands are kept; none is in a cycle
    """One counter. `id` is unique inside a tenant and can be parsed back."""

    family: CellFamily
    scope_key: str
    period: Period
    id: str

    @property
    def scope(self) -> str:
        """`type:key` as people write it."""
        return f"{self.family.scope_type}:{self.scope_key}"


class Applied(NamedTuple):
    """What a settlement or a reconciliation did to a counter: spent before and after, nano-USD."""

    cell: Cell
    before_nano_usd: int
    after_nano_usd: int


@lru_cache(maxsize=65_536)
def cell_at(family: CellFamily, scope_key: str, period: Period) -> Cell:
    """The cell of a scope key in a period."""
    scope = scope_id(family.scope_type, scope_key)
    return Cell(family, scope_key, period, f"{scope}|{family.period}|{family.zone}|{period.start_s}")


def parse_cell(cell_id: str) -> Cell:
    """The inverse of `Cell.id`. Raises ValueError when it is no cell id."""
    scope, kind, zone, start = cell_id.rsplit("|", 3)
    scope_type, scope_key = parse_scope_id(scope)
    if kind not in PeriodKind.__args__:  # type: ignore[attr-defined]
        raise ValueError(f"{cell_id!r} is not a cell id")
    family = CellFamily(scope_type, kind, zone)  # type: ignore[arg-type]
    try:
        period = period_at(family.period, zone, int(start))
    except (OverflowError, LookupError, OSError) as error:  # a start beyond the calendar; no such zone, or a folder
        raise ValueError(f"{cell_id!r} is not a cell id: {error}") from None
    cell = cell_at(family, scope_key, period)
    if cell.id != cell_id:
        raise ValueError(f"{cell_id!r} does not start a period")
    return cell
