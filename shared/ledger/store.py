"""The ledger's store: inserts rows exactly once and reads them back for counters and reports.

Every insert says what became of each row: `new` (we inserted it), `redelivered` (the stored row came from the same hub
position), `duplicate` (same content from another position) or `conflict` (same identity, other content).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from shared.ledger.codec import Entity, decode, encode
from shared.ledger.hours import HourIndex
from shared.ledger.insert import PartitionWriter
from shared.ledger.inserted import Inserted, Outcome, RowRef
from shared.ledger.keys import adjustment_key, hour_key, hour_start, partition_key, row_key
from shared.ledger.pairs import PairStore
from shared.ledger.periods import Periods
from shared.ledger.reading import HourReader, LedgerCharge
from shared.ledger.row import LedgerRow, Position
from shared.ledger.tables import TRANSACTION_ROWS, Tables
from shared.usage.events import TRUE_UP_SUFFIX

MAX_REQUESTS_IN_FLIGHT = 16


class LedgerStore:
    """Reads and writes the ledger. One per process; `close()` closes its connections."""

    def __init__(self, tables: Tables, hours: HourIndex | None = None, periods: Periods | None = None):
        self._tables = tables
        self.hours = hours or HourIndex(tables.hours)
        self.periods = periods or Periods(tables.periods)
        self.reader = HourReader(tables, self.hours)
        self._writer = PartitionWriter(tables.ledger, asyncio.Semaphore(MAX_REQUESTS_IN_FLIGHT))
        self.pairs = PairStore(self._writer, self.hours, self.periods)

    async def insert(self, rows: Sequence[LedgerRow]) -> list[Inserted]:
        """Insert rows that are absent; the answers are in the rows' order.

        Sets `booked_period` where it is empty. When it raises, any part may be stored: insert the same rows again, and
        those that are there come back as `redelivered`. Raises RowTooLarge before anything is written.
        """
        # Months are booked under the mark's time limit too: a close waits no longer than that for what began before it.
        covered_until = await self.hours.mark({hour_key(row.time_utc) for row in rows})
        async with asyncio.timeout(covered_until - time.monotonic()):
            groups = await self._group(rows)
            written = await asyncio.gather(
                *(self._writer.insert(chunk) for chunk in _transactions([group.entity for group in groups])),
                return_exceptions=True,  # let the others finish: less is left for the next delivery
            )
        existing: dict[str, Entity] = {}
        for result in written:
            if isinstance(result, BaseException):
                raise result
            existing |= result
        answers: list[Inserted | None] = [None] * len(rows)
        for group in groups:
            found = existing.get(group.entity["RowKey"])
            for index, answer in group.answers(rows, None if found is None else decode(found)):
                answers[index] = answer
        return [answer for answer in answers if answer is not None]

    async def is_trued_up(self, accrual: RowRef) -> bool:
        """Whether the ledger holds what this accrued call really used."""
        key = row_key(accrual.source, accrual.id)
        wanted = adjustment_key(key, TRUE_UP_SUFFIX)
        return bool(await self._writer.find(partition_key(accrual.time_utc, key), [wanted]))

    async def charges(
        self, tenant: str, start_utc: datetime, end_utc: datetime, marks: Mapping[str, Position] | None
    ) -> AsyncIterator[LedgerCharge]:
        """What budgets count in [start, end), exactly the rows at or before their stream's mark.

        Rows of a stream without a mark are left out; `marks` None takes every row. Clean hours whose rows are all at
        or before the marks come as sums per quarter hour (position None), all others row by row.
        """
        async for charge in self.reader.charges(tenant, start_utc, end_utc, marks):
            yield charge

    async def high_positions(self, tenant: str) -> dict[str, Position]:
        """The highest stored position of each stream, derived from the rows themselves, so no crash can lose it."""
        return await self.reader.high_positions(tenant)

    async def rows(self, tenant: str | None, start_utc: datetime, end_utc: datetime) -> AsyncIterator[LedgerRow]:
        """All rows of a tenant (None: of all tenants) in [start, end), hour by hour, in no order inside an hour."""
        async for row in self.reader.rows(tenant, start_utc, end_utc):
            yield row

    async def earliest_hour(self) -> datetime | None:
        """The start of the first hour that holds rows; None while the ledger is empty."""
        async for hour in self.hours.scan():
            return hour_start(hour.key)
        return None

    async def close(self) -> None:
        """Close every connection."""
        await self._tables.close()

    async def _group(self, rows: Sequence[LedgerRow]) -> list[_Group]:
        """One group per identity, led by the row with the lowest position: that is the one to be stored."""
        groups: dict[tuple[str, str], _Group] = {}
        for index, row in enumerate(rows):
            if not row.booked_period:
                row = msgspec.structs.replace(row, booked_period=await self.periods.booked(row.tenant, row.time_utc))
            entity = encode(row)
            group = groups.get((entity["PartitionKey"], entity["RowKey"]))
            if group is None:
                groups[entity["PartitionKey"], entity["RowKey"]] = _Group(entity, row, [index])
                continue
            group.indexes.append(index)
            if row.position.at_or_before(group.row.position):
                group.entity, group.row = entity, row
        return list(groups.values())


class _Group(msgspec.Struct):
    """The rows of one call of insert() that share an identity."""

    entity: Entity
    row: LedgerRow
    indexes: list[int]

    def answers(self, rows: Sequence[LedgerRow], found: LedgerRow | None) -> Iterator[tuple[int, Inserted]]:
        """Each row's index and outcome. `found` is the row that was there already, None when ours was inserted.

        Of several rows from the stored row's own position only one is answered `new` or `redelivered`: the caller sums
        those, and a second one would be counted twice.
        """
        stored = self.row if found is None else found
        own: Outcome = "new" if found is None else "redelivered"
        for index in self.indexes:
            row = rows[index]
            outcome: Outcome
            if row.content_digest != stored.content_digest:
                outcome = "conflict"
            elif own != "duplicate" and row.position == stored.position:
                outcome, own = own, "duplicate"
            else:
                outcome = "duplicate"
            yield index, Inserted(stored, outcome)


def _transactions(entities: Sequence[Entity]) -> Iterator[list[Entity]]:
    """Entities in chunks of one partition each. Sorted by key, so that the range read after a conflict is narrow."""
    partitions: defaultdict[str, list[Entity]] = defaultdict(list)
    for entity in entities:
        partitions[entity["PartitionKey"]].append(entity)
    for rows in partitions.values():
        rows.sort(key=lambda entity: entity["RowKey"])
        for start in range(0, len(rows), TRANSACTION_ROWS):
            yield rows[start : start + TRANSACTION_ROWS]
