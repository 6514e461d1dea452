"""Rollover: what budgets that carry over bring into their current period."""

from __future__ import annotations

import time

from shared.budgets.cells import cell_at
from shared.budgets.matching import limit_nano_usd
from shared.budgets.periods import previous_period
from shared.budgets.plan import carry_field
from shared.budgets.snapshot import Snapshot
from shared.budgets.store import BudgetStore
from shared.config.model import Budget


async def carry_over(store: BudgetStore, snapshot: Snapshot, tenant: str) -> None:
    """Write what each rollover budget carries into its current period.

    Recomputed at each run, because late events still change the previous period. A scope without a counter in the
    previous period carries nothing.
    """
    if not any(budget.rollover for budget in snapshot.index.of_tenant(tenant)):
        return
    now_s = time.time()
    for cell in await store.cells(tenant, int(now_s * 1000)):
        if not cell.period.contains(now_s):
            continue
        for budget in snapshot.index.of_cell(tenant, cell):
            before = previous_period(cell.period)
            if not budget.rollover or before is None:
                continue
            old, field = cell_at(cell.family, cell.scope_key, before), carry_field(budget)
            spent, _, carries = await store.figures(tenant, old)
            known = await store.exists(tenant, old)
            limit = limit_nano_usd(budget, before.start_s, snapshot.config)
            carry = carry_nano_usd(budget, limit, carries.get(field, 0), spent) if known else 0
            asserted = snapshot.index.idle_ms(tenant, cell) > 0
            await store.set_carry(tenant, cell, field, carry, asserted=asserted)


def carry_nano_usd(budget: Budget, limit: int, carried: int, spent: int) -> int:
    """What is left of a period's limit and of what was carried into it, between 0 and the cap; all in nano-USD."""
    cap = limit if budget.rollover_cap_nano is None else budget.rollover_cap_nano
    return max(0, min(cap, limit + carried - spent))
