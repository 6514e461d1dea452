"""What every budget has spent, read from the live counters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

from shared.budgets.answer import budget_view
from shared.budgets.cells import Cell
from shared.budgets.matching import cell_of, limit_nano_usd
from shared.budgets.plan import carry_field
from shared.budgets.request import known_tenant
from shared.budgets.rules import STATES, BudgetFigures
from shared.budgets.snapshot import Snapshot
from shared.budgets.store import BudgetStore
from shared.errors import InvalidRequest, StateUnavailable

Rows = list[dict[str, Any]]
"""Budgets as `budget_view` shows them, with `state`, `tenant` and the counter's `cell` id."""

Figures = tuple[int, int, dict[str, int]]  # spent and held in nano-USD, carries by field
_ASKED_AT_ONCE = 256


class SpendService:
    """Reads budgets beside their counters. Raises StateUnavailable while the counters are not ready."""

    def __init__(self, snapshot: Callable[[], Snapshot], store: BudgetStore) -> None:
        self._snapshot = snapshot
        self._store = store

    async def list(self, tenant: str, scope_type: str | None = None, state: str | None = None) -> Rows:
        """Every budget of the tenant in its open period, one entry per scope key that is in use.

        A budget on a named scope is listed even before it was used. Raises InvalidRequest for an unknown state and
        Forbidden for an unknown tenant.
        """
        if state is not None:
            require_state(state)
        snapshot = self._snapshot()
        known_tenant(snapshot.config, tenant)
        now_s = time.time()
        cells = {cell.id: cell for cell in self._named_cells(snapshot, tenant, now_s)}
        cells |= {
            cell.id: cell for cell in await self._store.cells(tenant, int(now_s * 1000)) if cell.period.contains(now_s)
        }
        wanted = (cell for cell in cells.values() if scope_type in (None, cell.family.scope_type))
        rows = await self._rows(snapshot, tenant, sorted(wanted, key=lambda cell: cell.id))
        return [row for row in rows if state in (None, row["state"])]

    async def one(self, tenant: str, scope_type: str, scope_key: str) -> Rows:
        """The budgets of one scope in their open periods; empty when no budget matches it."""
        snapshot = self._snapshot()
        known_tenant(snapshot.config, tenant)
        now_s = time.time()
        cells = {
            cell.id: cell
            for budget in snapshot.index.matching(tenant, scope_type, scope_key)
            for cell in [cell_of(budget, scope_key, now_s)]
        }
        return await self._rows(snapshot, tenant, cells.values())

    def _named_cells(self, snapshot: Snapshot, tenant: str, now_s: float) -> Iterable[Cell]:
        for budget in snapshot.index.of_tenant(tenant):
            if budget.scope_key != "*":
                yield cell_of(budget, budget.scope_key, now_s)

    async def _rows(self, snapshot: Snapshot, tenant: str, cells: Iterable[Cell]) -> Rows:
        if not (await self._store.state(tenant)).ready:
            raise StateUnavailable("The budget counters are being rebuilt. Retry shortly.", retry_after_seconds=2)
        rows = []
        async for cell, (spent, held, carries) in self._figures(tenant, list(cells)):
            for budget in snapshot.index.of_cell(tenant, cell):
                limit = limit_nano_usd(budget, cell.period.start_s, snapshot.config)
                figures = BudgetFigures(budget, limit, spent, held, carries.get(carry_field(budget), 0))
                rows.append({**budget_view(cell, figures), "state": figures.state, "tenant": tenant, "cell": cell.id})
        return rows

    async def _figures(self, tenant: str, cells: Sequence[Cell]) -> AsyncIterator[tuple[Cell, Figures]]:
        """Every counter with what it shows, many asked for at once: one at a time a thousand users take a second."""
        for start in range(0, len(cells), _ASKED_AT_ONCE):
            some = cells[start : start + _ASKED_AT_ONCE]
            for found in zip(
                some, await asyncio.gather(*(self._store.figures(tenant, cell) for cell in some)), strict=True
            ):
                yield found


def require_state(state: str) -> None:
    """Raise InvalidRequest for what is no state of a budget."""
    if state not in STATES:
        raise InvalidRequest(f"state: expected one of {', '.join(STATES)}, got {state[:20]!r}", param="state")
