"""Where every budget stands, as log records: Azure Monitor cannot ask Redis, so the workbook reads these."""

from __future__ import annotations

import logging
from collections.abc import Callable

from shared.budgets.snapshot import Snapshot
from shared.budgets.spend import SpendService
from shared.errors import StateUnavailable
from shared.scopes import ORGANISATIONAL

log = logging.getLogger("tollkeeper.budgets")


class StandingLog:
    """Runs on a timer. Budgets of users, sessions and other scopes that may name a person are left out."""

    def __init__(self, snapshot: Callable[[], Snapshot], spend: SpendService) -> None:
        self._snapshot = snapshot
        self._spend = spend

    async def run(self) -> int:
        """Log one record per budget and scope that is in use; returns how many."""
        snapshot, written = self._snapshot(), 0
        for tenant in snapshot.config.tenants:
            types = {budget.scope_type for budget in snapshot.index.of_tenant(tenant)}
            for scope_type in sorted(types.intersection(ORGANISATIONAL)):
                try:
                    rows = await self._spend.list(tenant, scope_type)
                except StateUnavailable:  # being rebuilt, which has log entries of its own; other tenants may be ready
                    break
                for row in rows:
                    fields = ("tenant", "scope", "period", "state", "limit", "spent", "reserved", "remaining")
                    log.info("budget_standing", extra={"budget": row["id"], **{name: row[name] for name in fields}})
                written += len(rows)
        return written
