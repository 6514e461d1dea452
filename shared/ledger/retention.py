"""Deletes ledger hours past the retention setting, and never anything unless it is set.

With the rows goes the knowledge that their events were billed, and budgets of the period `total` forget them: the
setting must be longer than any budget's period and than events are ever replayed.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.ledger.hours import Hour, HourIndex
from shared.ledger.keys import hour_key
from shared.ledger.rollup_codec import tenant_partition
from shared.ledger.tables import Tables, delete_rows

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

log = logging.getLogger("tollkeeper.retention")


class RetentionJob:
    """Runs on a timer."""

    def __init__(self, tables: Tables, hours: HourIndex, retention_days: int):
        """`retention_days` 0 keeps everything."""
        self._tables = tables
        self._hours = hours
        self._retention_days = retention_days

    async def run(self, now_utc: datetime | None = None) -> int:
        """Delete what is older; returns how many hours went. Killed anywhere, the next run finishes the hour."""
        if self._retention_days <= 0:
            return 0
        cutoff = (now_utc or datetime.now(UTC)) - timedelta(days=self._retention_days)
        hours = [hour async for hour in self._hours.scan(end=hour_key(cutoff))]
        removed = 0
        for hour in hours:
            removed += await self._delete(hour)
        if removed:
            log.info("retention", extra={"hours": removed, "older_than": cutoff.isoformat()})
        return removed

    async def _delete(self, hour: Hour) -> bool:
        """Reaches, then cells and rows, the hour's entry last: what goes later is what leads to what went before."""
        rows = await _keys(self._tables.ledger, f"PartitionKey ge '{hour.key}-' and PartitionKey lt '{hour.key}.'")
        cells = await _keys(self._tables.rollups, f"PartitionKey ge '{hour.key}-' and PartitionKey lt '{hour.key}.'")
        for tenant in sorted({tenant for _, _, tenant in rows + cells}):
            condition = f"PartitionKey eq '{tenant_partition(tenant)}' and RowKey ge '{hour.key}-'"
            reaches = await _keys(self._tables.hours, f"{condition} and RowKey lt '{hour.key}.'")
            await delete_rows(self._tables.hours, [key[:2] for key in reaches])
        await delete_rows(self._tables.rollups, [key[:2] for key in cells])
        await delete_rows(self._tables.ledger, [key[:2] for key in rows])
        return await self._hours.remove(hour)


async def _keys(table: TableClient, condition: str) -> list[tuple[str, str, str]]:
    """PartitionKey, RowKey and tenant (empty where there is no such column) of the rows a condition selects."""
    query = table.query_entities(condition, select=["PartitionKey", "RowKey", "tenant"])
    return [(row["PartitionKey"], row["RowKey"], row.get("tenant") or "") async for row in query]
