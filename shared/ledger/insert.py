"""Insert-if-absent of many rows into one partition: 100-row transactions that survive rows already there.

Table Storage fails a whole transaction when one of its rows exists. Then the existing rows are found by one range read
(not by 100 round trips), dropped, and the rest is submitted again until all rows are stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from shared.errors import TollkeeperError
from shared.ledger.codec import Entity
from shared.ledger.keys import call_key_of, family_range

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

RANGE_ROWS = 1_000  # one page of the service
FRUITLESS_ROUNDS = 5
_NO_PARTNERS: Mapping[str, str] = {}


class InsertStuck(TollkeeperError):
    """The store says that a row exists and then does not show it, again and again. Retrying later is right."""

    code, http_status = "ledger_insert_stuck", 503


class PartitionWriter:
    """Writes entities of one partition at a time; the semaphore bounds the requests in flight over all partitions."""

    def __init__(self, table: TableClient, in_flight: asyncio.Semaphore):
        self._table = table
        self._in_flight = in_flight

    async def insert(self, entities: Sequence[Entity], partners: Mapping[str, str] = _NO_PARTNERS) -> dict[str, Entity]:
        """Insert at most 100 entities with one PartitionKey and distinct RowKeys.

        Returns the stored entities that were already there, by RowKey; all others were inserted by this call, except
        that an entity whose partner (by RowKey, both ways) was there already is not inserted either.
        Transient errors of the service are raised; calling again with the same entities is always safe.
        """
        pending = {entity["RowKey"]: entity for entity in entities}
        existing: dict[str, Entity] = {}
        fruitless = 0
        while pending and not await self._submit(pending.values()):
            found = await self.find(entities[0]["PartitionKey"], sorted(pending))
            existing |= found
            gone = found.keys() | {partners[key] for key in found if key in partners}
            pending = {key: entity for key, entity in pending.items() if key not in gone}
            fruitless = 0 if found else fruitless + 1
            if fruitless >= FRUITLESS_ROUNDS:
                raise InsertStuck(f"partition {entities[0]['PartitionKey']} reports rows that it does not return")
        return existing

    async def _submit(self, entities: Iterable[Entity]) -> bool:
        """One transaction; False when a row exists and nothing was written."""
        from azure.data.tables import TableErrorCode, TableTransactionError

        try:
            async with self._in_flight:
                await self._table.submit_transaction([("create", entity) for entity in entities])
        except TableTransactionError as error:
            if getattr(error, "error_code", None) == TableErrorCode.ENTITY_ALREADY_EXISTS:
                return False
            raise
        return True

    async def families(self, partition: str, call_keys: Sequence[str]) -> dict[str, Entity]:
        """The entities of the calls with these sorted keys and of all that corrects them, by RowKey.

        As `find`: one page of their range, and a read of its own for each call beyond it.
        """
        found, last = await self._page(partition, *family_range(call_keys[0], call_keys[-1]))
        rest = [] if last is None else [key for key in call_keys if last < family_range(key, key)[1]]
        for each in await asyncio.gather(*(self._page(partition, *family_range(key, key)) for key in rest)):
            found |= each[0]
        wanted = set(call_keys)
        return {key: entity for key, entity in found.items() if call_key_of(key) in wanted}

    async def _page(self, partition: str, low: str, high: str) -> tuple[dict[str, Entity], str | None]:
        """The first page of a range; the last key on it when there are more."""
        condition = f"PartitionKey eq '{partition}' and RowKey ge '{low}' and RowKey lt '{high}'"
        async with self._in_flight:
            pages = self._table.query_entities(condition, results_per_page=RANGE_ROWS).by_page()
            rows = [row async for row in await anext(pages)]
            more = pages.continuation_token is not None  # type: ignore[attr-defined]  # the SDK types it too loosely
        last = (rows[-1]["RowKey"] if rows else low) if more else None
        return {row["RowKey"]: dict(row) for row in rows}, last

    async def find(self, partition: str, keys: Sequence[str]) -> dict[str, Entity]:
        """Which of the sorted keys are stored: their entities by key.

        One page of the range from the first to the last key settles it in all but the busiest hours. Keys are hashes,
        so in an hour with very many rows the range holds thousands of strangers: what lies beyond the first page is
        then read by key, which bounds the work by the batch instead of the hour.
        """
        condition = f"PartitionKey eq '{partition}' and RowKey ge '{keys[0]}' and RowKey le '{keys[-1]}'"
        wanted = set(keys)
        async with self._in_flight:
            pages = self._table.query_entities(condition, results_per_page=RANGE_ROWS).by_page()
            rows = [row async for row in await anext(pages)]
            more = pages.continuation_token is not None  # type: ignore[attr-defined]  # the SDK types it too loosely
        found = {row["RowKey"]: dict(row) for row in rows if row["RowKey"] in wanted}
        if more:
            seen = rows[-1]["RowKey"] if rows else ""
            single = await asyncio.gather(*(self._get(partition, key) for key in keys if key > seen))
            found |= {row["RowKey"]: row for row in single if row is not None}
        return found

    async def _get(self, partition: str, key: str) -> Entity | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            async with self._in_flight:
                return dict(await self._table.get_entity(partition, key))
        except ResourceNotFoundError:
            return None
