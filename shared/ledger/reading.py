"""Reads the ledger: rollups where they are complete, rows where they are not, never a mixture inside one hour."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from shared.ledger.codec import CHARGE_COLUMNS, decode, decode_position, integer, literal, scopes_of
from shared.ledger.hours import Hour, HourIndex
from shared.ledger.keys import ONE_HOUR, hour_end_key, hour_key, hour_start, partitions_of, quarter_start
from shared.ledger.rollup import RollupCell, Through, all_within, extend, roll
from shared.ledger.rollup_codec import (
    TenantHour,
    cell_partition,
    decode_cell,
    decode_tenant_hour,
    tenant_partition,
    tenant_range,
)
from shared.ledger.row import LedgerRow, Position
from shared.ledger.tables import Tables

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

HOURS_AT_ONCE = 6
_POSITION_COLUMNS = ("stream", "enqueued_ms", "sequence")

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Marks = Mapping[str, Position]


class LedgerCharge(NamedTuple):
    """What budgets count: one row, or the sum of a quarter hour's rows with the same scopes."""

    scopes: dict[str, str]
    time_utc: datetime  # of the row, or the start of the quarter hour
    charge_nano_usd: int
    cell: str | None  # grants only: the one counter they move
    position: Position | None  # None: a sum of rows, all at or before the marks asked for
    model: str  # that served; a budget may count one model


class HourReader:
    """Reads hours of the ledger, each either as a rollup's cells or as rows."""

    def __init__(self, tables: Tables, hours: HourIndex):
        self._tables = tables
        self._hours = hours

    async def charges(
        self, tenant: str, start_utc: datetime, end_utc: datetime, marks: Marks | None
    ) -> AsyncIterator[LedgerCharge]:
        """See LedgerStore.charges."""
        # The index is read before the reaches: a generation that this index names can then only be missing among the
        # reaches when a newer one replaced it, which shows.
        hours = await self._range(start_utc, end_utc)
        reaches = await self._reaches(tenant, start_utc, end_utc)

        async def read(hour: Hour) -> list[LedgerCharge]:
            cells = None
            if _on_quarters(hour.key, start_utc, end_utc):
                cells = await self._tenant_cells(hour, tenant, reaches.get(hour.key, {}), marks)
            if cells is None:
                return await self._row_charges(hour.key, tenant, start_utc, end_utc, marks)
            return [
                LedgerCharge(cell.scopes, cell.quarter_utc, cell.charge_nano_usd, cell.cell, None, cell.model)
                for cell in cells
                if start_utc <= cell.quarter_utc < end_utc
            ]

        async for charges in _in_order(hours, read):
            for charge in charges:
                yield charge

    async def cells(
        self, tenant: str | None, start_utc: datetime, end_utc: datetime, *, booked_later: bool = False
    ) -> AsyncIterator[RollupCell]:
        """Rollup cells of [start, end), those of dirty hours rolled up in memory. None: of all tenants.

        `booked_later` leaves out hours all of whose rows are booked into their own month.
        """
        hours = await self._range(start_utc, end_utc)
        if booked_later:
            hours = [hour for hour in hours if hour.dirty or hour.booked_later]
        reaches = {} if tenant is None else await self._reaches(tenant, start_utc, end_utc)

        async def read(hour: Hour) -> list[RollupCell]:
            cells = None
            if _on_quarters(hour.key, start_utc, end_utc):
                if tenant is None:
                    cells = await self._all_cells(hour)
                else:
                    cells = await self._tenant_cells(hour, tenant, reaches.get(hour.key, {}), None)
            if cells is None:
                return roll(await self._hour_rows(hour.key, tenant, start_utc, end_utc))
            return [cell for cell in cells if start_utc <= cell.quarter_utc < end_utc]

        async for cells in _in_order(hours, read):
            for cell in cells:
                yield cell

    async def rows(self, tenant: str | None, start_utc: datetime, end_utc: datetime) -> AsyncIterator[LedgerRow]:
        """See LedgerStore.rows."""

        async def read(hour: Hour) -> list[LedgerRow]:
            return await self._hour_rows(hour.key, tenant, start_utc, end_utc)

        async for rows in _in_order(await self._range(start_utc, end_utc), read):
            for row in rows:
                yield row

    async def high_positions(self, tenant: str) -> dict[str, Position]:
        """See LedgerStore.high_positions."""
        hours = [hour async for hour in self._hours.scan()]
        reaches = await self._reaches(tenant)

        async def read(hour: Hour) -> list[Position]:
            known = reaches.get(hour.key, {})
            if not hour.dirty and not known:
                return []
            if not hour.dirty and hour.generation in known:
                return [stop.highest for stop in known[hour.generation].reach.values()]
            rows = await self._query_hour(hour.key, tenant, _POSITION_COLUMNS)
            return [decode_position(row) for row in rows]

        reach: dict[str, Through] = {}
        async for positions in _in_order(hours, read):
            for position in positions:
                extend(reach, position)
        return {stream: stop.highest for stream, stop in reach.items()}

    async def hour_rows(self, hour: str) -> AsyncIterator[LedgerRow]:
        """All rows of an hour, of every tenant, page by page."""
        for partition in partitions_of(hour):
            async for entity in self._tables.ledger.query_entities(f"PartitionKey eq '{partition}'"):
                yield decode(entity)

    async def _range(self, start_utc: datetime, end_utc: datetime) -> list[Hour]:
        return [hour async for hour in self._hours.scan(hour_key(start_utc), hour_end_key(end_utc))]

    async def _reaches(
        self, tenant: str, start_utc: datetime | None = None, end_utc: datetime | None = None
    ) -> dict[str, dict[str, TenantHour]]:
        """What rollups hold of a tenant: {hour: {generation: reach}}, unpublished generations included."""
        condition = f"PartitionKey eq {literal(tenant_partition(tenant))}"
        if start_utc is not None:
            condition += f" and RowKey ge '{hour_key(start_utc)}'"
        if end_utc is not None:
            condition += f" and RowKey lt '{hour_end_key(end_utc)}'"
        reaches: defaultdict[str, dict[str, TenantHour]] = defaultdict(dict)
        async for entity in self._tables.hours.query_entities(condition):
            found = decode_tenant_hour(entity)
            reaches[found.hour][found.generation] = found
        return reaches

    async def _tenant_cells(
        self, hour: Hour, tenant: str, known: Mapping[str, TenantHour], marks: Marks | None
    ) -> list[RollupCell] | None:
        """A clean hour's cells of a tenant; None when its rows must be read instead, which is always right."""
        if hour.dirty or hour.generation is None:
            return None
        if not known:
            return []  # the rollup was published without a reach of this tenant: it has no rows in this hour
        reach = known.get(hour.generation)
        if reach is None or (marks is not None and not all_within(reach.reach, marks)):
            return None
        low, high = tenant_range(tenant)
        partition = cell_partition(hour.key, hour.generation)
        cells = await self._query_cells(
            f"PartitionKey eq '{partition}' and RowKey ge {literal(low)} and RowKey lt {literal(high)}"
        )
        return cells if len(cells) == reach.cells else None

    async def _all_cells(self, hour: Hour) -> list[RollupCell] | None:
        if hour.dirty or hour.generation is None:
            return None
        cells = await self._query_cells(f"PartitionKey eq '{cell_partition(hour.key, hour.generation)}'")
        return cells if len(cells) == hour.cells else None

    async def _query_cells(self, condition: str) -> list[RollupCell]:
        return [decode_cell(entity) async for entity in self._tables.rollups.query_entities(condition)]

    async def _row_charges(
        self, hour: str, tenant: str, start_utc: datetime, end_utc: datetime, marks: Marks | None
    ) -> list[LedgerCharge]:
        charges = []
        for row in await self._query_hour(hour, tenant, CHARGE_COLUMNS):
            position, time_utc = decode_position(row), datetime.fromisoformat(row["time"])
            mark = None if marks is None else marks.get(position.stream)
            if marks is not None and (mark is None or not position.at_or_before(mark)):
                continue
            if start_utc <= time_utc < end_utc:
                amount_nano_usd = integer(row["charge_nano_usd"])
                scopes, model = scopes_of(row["scopes"]), row.get("model", "")
                charges.append(LedgerCharge(scopes, time_utc, amount_nano_usd, row.get("cell"), position, model))
        return charges

    async def _hour_rows(
        self, hour: str, tenant: str | None, start_utc: datetime, end_utc: datetime
    ) -> list[LedgerRow]:
        rows = [decode(row) for row in await self._query_hour(hour, tenant)]
        return [row for row in rows if start_utc <= row.time_utc < end_utc]

    async def _query_hour(
        self, hour: str, tenant: str | None, columns: Sequence[str] | None = None
    ) -> list[Mapping[str, Any]]:
        of_tenant = "" if tenant is None else f" and tenant eq {literal(tenant)}"
        shards = await asyncio.gather(
            *(
                _all(self._tables.ledger, f"PartitionKey eq '{partition}'{of_tenant}", columns)
                for partition in partitions_of(hour)
            )
        )
        return [row for shard in shards for row in shard]


def _on_quarters(hour: str, start_utc: datetime, end_utc: datetime) -> bool:
    """Whether [start, end) cuts the hour only where cells end; a cut inside a quarter hour needs rows."""
    begin = hour_start(hour)
    cuts = [at for at in (start_utc, end_utc) if begin < at < begin + ONE_HOUR]
    return all(at == quarter_start(at) for at in cuts)


async def _all(table: TableClient, condition: str, columns: Sequence[str] | None) -> list[Mapping[str, Any]]:
    select = None if columns is None else list(columns)
    return [entity async for entity in table.query_entities(condition, select=select)]


async def _in_order(items: Iterable[Item], work: Callable[[Item], Awaitable[Answer]]) -> AsyncIterator[Answer]:
    """The answers in the items' order, computed a few at a time; what was begun is cancelled when the reader stops."""
    waiting: list[asyncio.Future[Answer]] = []
    try:
        for item in items:
            waiting.append(asyncio.ensure_future(work(item)))
            if len(waiting) == HOURS_AT_ONCE:
                yield await waiting.pop(0)
        while waiting:
            yield await waiting.pop(0)
    finally:
        for future in waiting:
            future.cancel()
