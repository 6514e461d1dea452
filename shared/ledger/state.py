"""Small durable facts about processing: how far each hub partition was read, and which tenants to reconcile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from shared.ledger.row import Position

_PROGRESS, _DIRTY = "progress", "dirty"


class ProcessingState:
    """Rows in the `state` table. `table` is an azure.data.tables.aio.TableClient."""

    def __init__(self, table: Any) -> None:
        self._table = table

    async def record_progress(self, positions: Iterable[Position]) -> None:
        """Everything on these streams up to the positions is in the ledger or the dead-letter store, and settled."""
        for position in positions:
            await self._table.upsert_entity(
                {
                    "PartitionKey": _PROGRESS,
                    "RowKey": quote(position.stream, safe=""),
                    "stream": position.stream,
                    "enqueued_ms": str(position.enqueued_ms),
                    "sequence": str(position.sequence),
                }
            )

    async def progress(self) -> dict[str, Position]:
        """How far each stream was processed."""
        query = self._table.query_entities(f"PartitionKey eq '{_PROGRESS}'")
        return {
            row["stream"]: Position(row["stream"], int(row["enqueued_ms"]), int(row["sequence"])) async for row in query
        }

    async def mark_dirty(self, tenant: str, why: str) -> None:
        """Remember that a tenant's counters missed something, when Redis could not be told."""
        await self._table.upsert_entity({"PartitionKey": _DIRTY, "RowKey": tenant, "why": why})

    async def dirty_tenants(self) -> dict[str, str]:
        """Tenants marked dirty and not reconciled since, each with the version of its mark."""
        query = self._table.query_entities(f"PartitionKey eq '{_DIRTY}'")
        return {row["RowKey"]: row.metadata["etag"] async for row in query}

    async def clear_dirty(self, tenant: str, version: str) -> None:
        """The tenant was reconciled after it was marked; a mark made meanwhile has another version and stays."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

        entity = {"PartitionKey": _DIRTY, "RowKey": tenant}
        with contextlib.suppress(ResourceModifiedError, ResourceNotFoundError):
            await self._table.delete_entity(entity, etag=version, match_condition=MatchConditions.IfNotModified)
