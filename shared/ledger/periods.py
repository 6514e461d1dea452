"""Which statement carries a row: the month of its time, or the first open month after it when that one is frozen."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.months import month_after, month_of

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

REMEMBER_SECONDS = 15.0  # a close waits longer than this before it scans, so that no worker books into a frozen month


class Periods:
    """The table of frozen months: PartitionKey tenant, RowKey `yyyy-mm`, `frozen` true."""

    def __init__(self, table: TableClient):
        self._table = table
        self._known: dict[tuple[str, str], tuple[float, bool]] = {}

    async def booked(self, tenant: str, time_utc: datetime) -> str:
        """The month that books a row of this time, inserted now. The running month is never frozen."""
        month = month_of(time_utc)
        this_month = month_of(datetime.now(UTC))
        while month < this_month and await self.is_frozen(tenant, month):
            month = month_after(month)
        return month

    async def is_frozen(self, tenant: str, month: str) -> bool:
        """Whether the tenant's month is closed; remembered for `REMEMBER_SECONDS`."""
        from azure.core.exceptions import ResourceNotFoundError

        now = time.monotonic()
        read_at, frozen = self._known.get((tenant, month), (float("-inf"), False))
        if now - read_at > REMEMBER_SECONDS:
            try:
                frozen = bool((await self._table.get_entity(tenant, month)).get("frozen"))
            except ResourceNotFoundError:
                frozen = False
            self._known[tenant, month] = (now, frozen)
        return frozen

    async def freeze(self, tenant: str, month: str) -> None:
        """Close a month: from now on (after `REMEMBER_SECONDS`) its late rows are booked into the next open one."""
        await self._table.upsert_entity({"PartitionKey": tenant, "RowKey": month, "frozen": True})
        self._known.pop((tenant, month), None)
