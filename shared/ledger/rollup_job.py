"""Publishes rollups: reads the rows of each hour that needs it, writes the sums, makes them the hour's current ones.

Any number of these may run at once and be killed anywhere: cells are written under a generation that nothing points
to until the single conditional write that publishes it. See hours.py for why no row is missed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from shared.ledger.codec import Entity
from shared.ledger.hours import Hour, HourIndex
from shared.ledger.reading import HourReader
from shared.ledger.rollup import Roller
from shared.ledger.rollup_codec import (
    TenantHour,
    cell_partition,
    encode_cell,
    encode_tenant_hour,
    storable,
    tenant_partition,
)
from shared.ledger.tables import TRANSACTION_ROWS, Tables, delete_rows

log = logging.getLogger("tollkeeper.rollup")

ORPHAN_AGE = timedelta(
    hours=1
)  # far above the longest run: a younger unpublished generation may still be in the making
WRITES_AT_ONCE = 8
_GENERATION_TIME = "%Y%m%dT%H%M%S%f"
_GENERATION_TIME_CHARS = 21


class RollupReport(NamedTuple):
    """What a run did."""

    published: int  # hours
    overtaken: int  # hours that got rows, or another worker's rollup, meanwhile
    swept: int  # cells of old generations deleted


class RollupJob:
    """Runs on a timer."""

    def __init__(self, tables: Tables, hours: HourIndex, reader: HourReader):
        self._tables = tables
        self._hours = hours
        self._reader = reader
        self._writes = asyncio.Semaphore(WRITES_AT_ONCE)

    async def run(self) -> RollupReport:
        """Roll up every hour whose rows changed and whose writers are done. Raises storage errors; then run again."""
        published = overtaken = swept = 0
        for hour in await self._hours.settled():
            if await self._roll_up(hour):
                published += 1
                swept += await self._sweep(hour.key)
            else:
                overtaken += 1
        if published or overtaken:
            log.info("rolled_up", extra={"published": published, "overtaken": overtaken, "swept": swept})
        return RollupReport(published, overtaken, swept)

    async def _roll_up(self, hour: Hour) -> bool:
        generation = f"{datetime.now(UTC).strftime(_GENERATION_TIME)}{secrets.token_hex(4)}"
        roller = Roller()
        async for row in self._reader.hour_rows(hour.key):
            roller.add(row)
        partition = cell_partition(hour.key, generation)
        cells = [encode_cell(cell, partition, ordinal) for ordinal, cell in enumerate(storable(roller.cells))]
        await self._write_cells(cells)
        counts = Counter(cell["tenant"] for cell in cells)
        await asyncio.gather(
            *(
                self._write_reach(tenant, TenantHour(hour.key, generation, counts[tenant], reach))
                for tenant, reach in roller.reaches.items()
            )
        )
        unpriced = sum(cell.unpriced for cell in roller.cells)
        own_month = f"{hour.key[:4]}-{hour.key[4:6]}"
        booked_later = any(cell.booked_period != own_month for cell in roller.cells)
        if await self._hours.publish(hour, generation, len(cells), unpriced, booked_later=booked_later):
            return True
        await self._delete_generation(hour.key, generation, [(cell["PartitionKey"], cell["RowKey"]) for cell in cells])
        return False

    async def _write_cells(self, cells: Sequence[Entity]) -> None:
        # Upserts: the SDK repeats a transaction whose reply was lost, and a second create would then fail.
        chunks = (cells[start : start + TRANSACTION_ROWS] for start in range(0, len(cells), TRANSACTION_ROWS))
        await asyncio.gather(*(self._submit([("upsert", cell) for cell in chunk]) for chunk in chunks))

    async def _write_reach(self, tenant: str, hour: TenantHour) -> None:
        async with self._writes:
            await self._tables.hours.upsert_entity(encode_tenant_hour(tenant, hour))

    async def _submit(self, operations: list[tuple[str, Entity]]) -> None:
        async with self._writes:
            await self._tables.rollups.submit_transaction(operations)

    async def _sweep(self, hour: str) -> int:
        """Delete the hour's superseded generations and those that a crash left behind.

        A reader that is just reading a superseded one finds too few cells and reads the rows instead.
        """
        generations: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        condition = f"PartitionKey ge '{hour}-' and PartitionKey lt '{hour}.'"
        async for entity in self._tables.rollups.query_entities(condition, select=["PartitionKey", "RowKey"]):
            generations[entity["PartitionKey"].partition("-")[2]].append((entity["PartitionKey"], entity["RowKey"]))
        current = await self._hours.get(hour)
        if current is None or current.generation is None:
            return 0
        swept = 0
        for generation, keys in generations.items():
            if generation != current.generation and _is_over(generation, current.generation):
                await self._delete_generation(hour, generation, keys)
                swept += len(keys)
        return swept

    async def _delete_generation(self, hour: str, generation: str, keys: Iterable[tuple[str, str]]) -> None:
        """Delete a generation that no hour points to: reaches first, because cells are what a later sweep finds."""
        keys = sorted(keys)
        tenants = {row_key.rpartition("|")[0] for _, row_key in keys}
        await asyncio.gather(
            *(
                self._tables.hours.delete_entity(tenant_partition(tenant), f"{hour}-{generation}")
                for tenant in sorted(tenants)
            )
        )
        await delete_rows(self._tables.rollups, keys)


def _is_over(generation: str, current: str) -> bool:
    """Whether an unpublished generation was superseded, or was begun too long ago to be in the making still."""
    begun = datetime.strptime(generation[:_GENERATION_TIME_CHARS], _GENERATION_TIME).replace(tzinfo=UTC)
    return generation < current or datetime.now(UTC) - begun > ORPHAN_AGE
