"""Where monthly budgets stood in their own month, from the ledger alone: counters of a closed month are long gone.

A budget's month begins and ends in its own time zone, so it covers other hours than the statement's. What a call counts
for a budget is its charge, which for a model without a price is the guard price.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime

from shared.budgets.cells import parse_cell
from shared.budgets.matching import family_of, with_implicit_scopes
from shared.budgets.rollover import carry_nano_usd
from shared.ledger.rollup import RollupCell
from shared.reports.basis import Basis, BudgetMonth
from shared.reports.statement import BudgetStanding
from shared.scopes import scope_id


class Standings:
    """Sums charges by budget and key. Takes the cells of [start_utc, end_utc) in any order."""

    def __init__(self, basis: Basis) -> None:
        self._basis = basis
        self._spent: defaultdict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])  # before, in the month
        self._known_before: set[tuple[int, str]] = set()
        self._index: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for index, month in enumerate(basis.budgets):
            self._index[month.budget.scope_type, month.budget.scope_key].append(index)

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """The stretch whose cells are needed; None when no budget is on the statement."""
        months = self._basis.budgets
        if not months:
            return None
        start_s = min(month.before_s if month.budget.rollover else month.start_s for month in months)
        end_s = max(month.end_s for month in months)
        return datetime.fromtimestamp(start_s, UTC), datetime.fromtimestamp(end_s, UTC)

    def add(self, cell: RollupCell) -> None:
        """Add what a cell counts for each budget; a grant counts for the one counter it names."""
        if cell.cell is not None:
            granted = parse_cell(cell.cell)
            for index in self._of(granted.family.scope_type, granted.scope_key):
                if family_of(self._basis.budgets[index].budget) == granted.family:
                    self._count(index, granted.scope_key, cell)
        elif cell.charge_nano_usd or cell.requests:
            for scope_type, key in with_implicit_scopes(cell.tenant, cell.scopes, cell.model).items():
                for index in self._of(scope_type, key):
                    self._count(index, key, cell)

    def _of(self, scope_type: str, key: str) -> list[int]:
        return self._index.get((scope_type, key), []) + self._index.get((scope_type, "*"), [])

    def _count(self, index: int, key: str, cell: RollupCell) -> None:
        month, instant_s = self._basis.budgets[index], cell.quarter_utc.timestamp()
        if month.before_s <= instant_s < month.end_s:
            self._spent[index, key][instant_s >= month.start_s] += cell.charge_nano_usd
            if instant_s < month.start_s:
                self._known_before.add((index, key))

    def result(self) -> tuple[BudgetStanding, ...]:
        """Every budget with its keys, sorted; a budget on one exact scope stands there even when nothing was spent."""
        for index, month in enumerate(self._basis.budgets):
            if month.budget.scope_key != "*":
                self._spent.setdefault((index, month.budget.scope_key), [0, 0])
        return tuple(self._standing(index, key, *spent) for (index, key), spent in sorted(self._spent.items()))

    def _standing(self, index: int, key: str, before: int, spent: int) -> BudgetStanding:
        month = self._basis.budgets[index]
        budget, scope = month.budget, scope_id(month.budget.scope_type, key)
        carried = 0
        if budget.rollover and (index, key) in self._known_before:
            carried = carry_nano_usd(budget, month.limit_before_nano_usd, self._carried_before(month, scope), before)
        return BudgetStanding(
            team=key if budget.scope_type == "team" else "",
            id=budget.id,
            scope=scope,
            period=month.label,
            timezone=budget.timezone,
            currency=budget.currency,
            limit_nano=budget.limit_nano,
            warn_ppm=budget.warn_ppm,
            degrade_ppm=budget.degrade_ppm,
            stop_ppm=budget.stop_ppm,
            carried_nano_usd=carried,
            limit_nano_usd=month.limit_nano_usd + carried,
            spent_nano_usd=spent,
        )

    def _carried_before(self, month: BudgetMonth, scope: str) -> int:
        """What the month before had been carried, as its statement says; nothing when it has none."""
        previous = self._basis.previous
        return 0 if previous is None else previous.carried_nano_usd.get(f"{month.budget.id}|{scope}", 0)
