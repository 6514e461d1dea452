"""When a call was first heard of, kept for sources that tell us no time and may tell us twice."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any


class FirstHeard:
    """Rows in a table, one per call. `table` is an azure.data.tables.aio.TableClient."""

    def __init__(self, table: Any) -> None:
        self._table = table

    async def time(self, source: str, id: str, now_utc: datetime) -> datetime:  # noqa: A002
        """`now_utc` at the first call for this source and id, and that same instant at every later one.

        A retry stamped with its own time would land in another ledger hour and be billed twice. Raises the SDK's
        errors when the table cannot be reached.
        """
        from azure.core.exceptions import ResourceExistsError

        partition, row = "first-heard", blake2b(f"{source}\n{id}".encode(), digest_size=16).hexdigest()
        entity = {"PartitionKey": partition, "RowKey": row, "heard_utc": now_utc.astimezone(UTC).isoformat()}
        try:
            await self._table.create_entity(entity)
        except ResourceExistsError:
            entity = await self._table.get_entity(partition, row)
        return datetime.fromisoformat(entity["heard_utc"])
