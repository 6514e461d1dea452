"""How much of a sum was measured, how much may still be, and how much never will. Pure.

A call whose tokens nobody has told yet is billed at its estimate. Its stream's log record may come within the wait and
replace the estimate; after that the measurement is missing, and the estimate is what stays on the bill.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from shared.ledger.rollup import RollupCell
from shared.money import decimal_from_nano, split_largest_remainder

DEFAULT_WAIT = timedelta(minutes=30)
QUARTER = timedelta(minutes=15)
_UNITS = 10_000  # shares have four decimals
_PARTS = ("measured", "estimated", "missing")


class Parts(NamedTuple):
    """One sum in three; a reversal in another month than its accrual can make a part negative."""

    measured: int = 0
    estimated: int = 0  # may still be measured
    missing: int = 0  # the wait is over


class Coverage(NamedTuple):
    """The costs, in nano-USD, and the requests of a sum, by how well they are known."""

    costs_nano_usd: Parts = Parts()
    requests: Parts = Parts()

    def plus(self, other: Coverage) -> Coverage:
        """Both together."""
        return Coverage(_sum(self.costs_nano_usd, other.costs_nano_usd), _sum(self.requests, other.requests))

    def body(self) -> dict[str, str]:
        """As every report shows it: costs that sum to the cost, shares of four decimals that sum to exactly 1."""
        costs = {f"{part}_cost": decimal_from_nano(c) for part, c in zip(_PARTS, self.costs_nano_usd, strict=True)}
        return costs | {f"{part}_share": share for part, share in zip(_PARTS, self.shares(), strict=True)}

    def shares(self) -> tuple[str, ...]:
        """The parts of the cost; of the requests where costs cannot be divided, being zero or partly negative.

        Nothing at all was measured in full: there is nothing that anybody would have to ask about.
        """
        weights = next((parts for parts in (self.costs_nano_usd, self.requests) if _divides(parts)), Parts(measured=1))
        return tuple(f"{units // _UNITS}.{units % _UNITS:04d}" for units in split_largest_remainder(_UNITS, weights))


def coverage_of(cell: RollupCell, as_of_utc: datetime, wait: timedelta) -> Coverage:
    """How well a cell's sums are known at an instant; an estimate waits from the end of the cell's quarter hour."""
    return Coverage(_placed(cell, cell.cost_nano_usd, as_of_utc, wait), _placed(cell, cell.requests, as_of_utc, wait))


def known_as(cell: RollupCell, as_of_utc: datetime, wait: timedelta) -> int:
    """Which of `Parts` a cell belongs to, by its index."""
    if cell.measured:
        return 0
    return 1 if as_of_utc < cell.quarter_utc + QUARTER + wait else 2


def _placed(cell: RollupCell, amount: int, as_of_utc: datetime, wait: timedelta) -> Parts:
    part = known_as(cell, as_of_utc, wait)
    return Parts(*(amount if index == part else 0 for index in range(3)))


def _sum(one: Parts, other: Parts) -> Parts:
    return Parts(*(a + b for a, b in zip(one, other, strict=True)))


def _divides(parts: Parts) -> bool:
    return min(parts) >= 0 and sum(parts) > 0
