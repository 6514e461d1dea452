"""Which budgets apply to a call. Every budget whose scope matches applies; the most restrictive answer wins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache

import msgspec

from shared.budgets.cells import Cell, CellFamily, cell_at
from shared.budgets.periods import QUARTER_HOUR_SECONDS, period_at
from shared.config.model import Budget, Config, PeriodKind
from shared.scopes import scope_id

_ASSERTED_IDLE_MS = 24 * 3_600_000  # a session nobody used for a day is forgotten, or invented keys fill memory
_KEEP_AFTER_END_MS = 2 * 24 * 3_600_000
_LONGEST_KEEP_MS = 366 * 24 * 3_600_000


class BudgetFamily(msgspec.Struct, frozen=True):
    """What budgets on one scope (`team:search`, or `team:*` for any team), period and zone count.

    Only matching budgets are charged for, so a new family knows nothing of what was spent before; it counts once it was
    seeded from the ledger.
    """

    scope_type: str
    scope_key: str
    period: PeriodKind
    zone: str

    @property
    def id(self) -> str:
        """The spelling inside stores."""
        return f"{scope_id(self.scope_type, self.scope_key)}|{self.period}|{self.zone}"


class BudgetIndex:
    """The budgets of one configuration, found by tenant, scope type and key in constant time."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._exact: dict[tuple[str | None, str, str], list[Budget]] = defaultdict(list)
        for budget in config.budgets:
            self._exact[budget.tenant, budget.scope_type, budget.scope_key].append(budget)
        self._cached_cells = lru_cache(maxsize=65_536)(self._charge_cells)

    def matching(self, tenant: str, scope_type: str, scope_key: str) -> Iterator[Budget]:
        """Budgets on this scope: of the tenant and of every tenant, for this key and for any key."""
        for owner in (tenant, None):
            for key in (scope_key, "*") if scope_key != "*" else ("*",):
                yield from self._exact.get((owner, scope_type, key), ())

    def names(self, tenant: str, scope_type: str, scope_key: str) -> bool:
        """Whether some budget is on this very scope; if none is, the key decides nothing but the counter's name."""
        return any((owner, scope_type, scope_key) in self._exact for owner in (tenant, None))

    def of_cell(self, tenant: str, cell: Cell) -> list[Budget]:
        """The budgets whose spending this cell counts."""
        family = cell.family
        return [
            budget
            for budget in self.matching(tenant, family.scope_type, cell.scope_key)
            if budget.period == family.period and budget.timezone == family.zone
        ]

    def families(self, tenant: str) -> set[BudgetFamily]:
        """Every family that some budget of the tenant needs."""
        return {budget_family(budget) for budget in self.of_tenant(tenant)}

    def of_tenant(self, tenant: str) -> list[Budget]:
        """The tenant's own budgets and those of every tenant."""
        return [budget for budget in self.config.budgets if budget.tenant in (None, tenant)]

    def is_asserted(self, tenant: str, scope_type: str) -> bool:
        """Whether clients may invent keys of this scope type."""
        known = self.config.tenants.get(tenant)
        return known is not None and scope_type in known.client_asserted_scopes

    def idle_ms(self, tenant: str, cell: Cell) -> int:
        """After how much silence a counter of a client-asserted scope is forgotten; 0 for all others."""
        return _ASSERTED_IDLE_MS if self.is_asserted(tenant, cell.family.scope_type) else 0

    def cells_of_call(self, tenant: str, scopes: Mapping[str, str], model: str, instant_s: float) -> tuple[Cell, ...]:
        """The counters that a call with these scopes, served by this model at this instant, is charged to."""
        return self._cached_cells(
            tenant, tuple(sorted(scopes.items())), model, int(instant_s // QUARTER_HOUR_SECONDS) * QUARTER_HOUR_SECONDS
        )

    def _charge_cells(
        self, tenant: str, scopes: tuple[tuple[str, str], ...], model: str, instant_s: int
    ) -> tuple[Cell, ...]:
        cells: dict[str, Cell] = {}
        for scope_type, scope_key in with_implicit_scopes(tenant, dict(scopes), model).items():
            for budget in self.matching(tenant, scope_type, scope_key):
                cell = cell_of(budget, scope_key, instant_s)
                cells[cell.id] = cell
        return tuple(cells.values())


def family_of(budget: Budget) -> CellFamily:
    """The family of counters a budget reads."""
    return CellFamily(budget.scope_type, budget.period, budget.timezone)


def cell_of(budget: Budget, scope_key: str, instant_s: float) -> Cell:
    """The counter that a budget reads for a scope key at a Unix instant."""
    return cell_at(family_of(budget), scope_key, period_at(budget.period, budget.timezone, instant_s))


def budget_family(budget: Budget) -> BudgetFamily:
    """What must have been seeded before the budget counts."""
    return BudgetFamily(budget.scope_type, budget.scope_key, budget.period, budget.timezone)


IMPLICIT_TYPES = ("tenant", "model")


def with_implicit_scopes(tenant: str, scopes: Mapping[str, str], model: str) -> dict[str, str]:
    """The scopes of a call plus the two nobody has to name and nobody can forge: its tenant and its model."""
    return {**scopes, "tenant": tenant, "model": model}


def expire_at_ms(cell: Cell) -> int:
    """When Redis may forget a cell, 0 = never: one more period, which rollover and late events need, and two days."""
    period = cell.period
    if period.kind == "total":
        return 0
    length_ms = (period.end_s - period.start_s) * 1000
    return period.end_s * 1000 + min(length_ms, _LONGEST_KEEP_MS) + _KEEP_AFTER_END_MS


def limit_nano_usd(budget: Budget, period_start_s: int, config: Config) -> int:
    """The limit in USD. A budget in another currency uses the rate in force when its period started, so that a moving
    rate cannot change a limit mid-period. Raises LookupError when no rate covers the start."""
    if budget.currency == "USD":
        return budget.limit_nano
    known = [rate for rate in config.rates if rate.currency == budget.currency]
    past = [rate for rate in known if rate.effective_from.timestamp() <= period_start_s]
    chosen = (
        max(past, key=lambda rate: rate.effective_from)
        if past
        else min(known, key=lambda r: r.effective_from, default=None)
    )
    if chosen is None:
        raise LookupError(f"no exchange rate for {budget.currency}")
    return (budget.limit_nano * chosen.usd_per_unit_nano + 500_000_000) // 1_000_000_000
