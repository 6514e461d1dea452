"""The hour index: which hours hold rows, and whether each hour's published rollup still covers all of them.

The protocol, so that a rollup never misses a row:

1. A writer marks the hour dirty BEFORE it inserts. A mark covers only inserts that end within `cover_seconds` of the
   moment the mark was begun; within half of that a worker reuses its mark, later it writes a new one, and an insert
   that would outlast its mark is given up (its events are delivered again).
2. A rollup takes a dirty hour only when its last mark is older than `cover_seconds` plus a grace. Marking before
   inserting is not enough without this wait: a rollup could read the rows between the mark and the insert, find the
   ETag unchanged, and clear the flag over a row it never saw.
3. It reads the rows, writes its cells under a new generation, and only then sets dirty = false and generation = its
   own, on the unchanged ETag. Any mark in between has changed the ETag: the rollup is discarded, the hour stays dirty.

Ages are taken on the storage service's clock alone (the entity's Timestamp), because workers' clocks disagree.
A crash leaves an hour dirty (read row by row until the next rollup) or cells that no hour points to (swept later).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.ledger.codec import integer

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

COVER_SECONDS = 60.0
GRACE_SECONDS = 30.0  # above the 20 s a storage request may linger after its caller gave up

_PARTITION = "hour"
_CLOCK = {"PartitionKey": "clock", "RowKey": "clock"}  # written only to read the service's clock


class Hour(NamedTuple):
    """One hour of the index as it was read."""

    key: str
    dirty: bool
    generation: str | None  # of the published rollup; None: never rolled up
    cells: int  # how many cells that rollup has, over all tenants
    etag: str
    written_at_utc: datetime  # the storage service's clock
    booked_later: bool = True  # that rollup may have rows which another month than their own carries


class HourIndex:
    """The table of hours. One per process: it remembers the marks that this worker wrote."""

    def __init__(self, table: TableClient, cover_seconds: float = COVER_SECONDS, grace_seconds: float = GRACE_SECONDS):
        self._table = table
        self._cover_seconds = cover_seconds
        self._settle_seconds = cover_seconds + grace_seconds
        self._marked: dict[str, float] = {}  # hour -> monotonic time at which its last mark was begun

    async def mark(self, hours: Iterable[str]) -> float:
        """Mark hours dirty; returns the monotonic time by which the inserts they cover must have ended."""
        now = time.monotonic()
        fresh_after = now - self._cover_seconds / 2
        wanted = set(hours)
        stale = [hour for hour in wanted if self._marked.get(hour, float("-inf")) < fresh_after]
        await asyncio.gather(*(self._write_mark(hour) for hour in stale))
        self._marked = {hour: begun for hour, begun in self._marked.items() if begun >= fresh_after}
        self._marked.update(dict.fromkeys(stale, now))
        return min((self._marked[hour] for hour in wanted), default=now) + self._cover_seconds

    async def scan(self, start: str = "0", end: str = "9", *, dirty_only: bool = False) -> AsyncIterator[Hour]:
        """The hours that hold rows, oldest first, with start <= key < end."""
        condition = f"PartitionKey eq '{_PARTITION}' and RowKey ge '{start}' and RowKey lt '{end}'"
        if dirty_only:
            condition += " and dirty eq true"
        async for entity in self._table.query_entities(condition):
            yield _hour(entity)

    async def get(self, hour: str) -> Hour | None:
        """One hour as it stands now; None when it holds no rows."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return _hour(await self._table.get_entity(_PARTITION, hour))
        except ResourceNotFoundError:
            return None

    async def settled(self) -> list[Hour]:
        """The dirty hours whose last mark covers no insert any more: those a rollup may take."""
        now_utc = await self._service_now_utc()
        hours = [hour async for hour in self.scan(dirty_only=True)]
        return [hour for hour in hours if (now_utc - hour.written_at_utc).total_seconds() >= self._settle_seconds]

    async def unpriced(self) -> list[Hour]:
        """The hours whose newest rollup has calls without a price, whether or not rows came since."""
        condition = f"PartitionKey eq '{_PARTITION}' and unpriced gt 0"
        return [_hour(entity) async for entity in self._table.query_entities(condition)]

    async def publish(
        self, hour: Hour, generation: str, cells: int, unpriced: int = 0, *, booked_later: bool = True
    ) -> bool:
        """Make a rollup the hour's current one; False when the hour was marked since it was read.

        `unpriced`: how many of the hour's calls have no price. `booked_later`: whether another month than the hour's
        own carries some of its rows, so that that month's statement has to read it.
        """
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

        entity = _entity(hour.key) | {"dirty": False, "generation": generation, "cells": cells}
        entity["booked_later"] = booked_later
        if unpriced:
            entity["unpriced"] = unpriced
        try:
            await self._table.update_entity(
                entity, mode="replace", etag=hour.etag, match_condition=MatchConditions.IfNotModified
            )
        except (ResourceModifiedError, ResourceNotFoundError):
            return False
        return True

    async def remove(self, hour: Hour) -> bool:
        """Forget an hour whose rows were deleted; False when it was marked since it was read."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError

        entity = _entity(hour.key)
        try:
            await self._table.delete_entity(entity, etag=hour.etag, match_condition=MatchConditions.IfNotModified)
        except ResourceModifiedError:
            return False
        return True

    async def _write_mark(self, hour: str) -> None:
        await self._table.upsert_entity(_entity(hour) | {"dirty": True}, mode="merge")

    async def _service_now_utc(self) -> datetime:
        await self._table.upsert_entity(_CLOCK)
        clock = await self._table.get_entity("clock", "clock")
        return _timestamp(clock)


def _entity(hour: str) -> dict[str, Any]:
    return {"PartitionKey": _PARTITION, "RowKey": hour}


def _hour(entity: Any) -> Hour:
    return Hour(
        key=entity["RowKey"],
        dirty=entity["dirty"],
        generation=entity.get("generation"),
        cells=integer(entity.get("cells", 0)),
        etag=entity.metadata["etag"],
        written_at_utc=_timestamp(entity),
        booked_later=entity.get("booked_later", True),  # rolled up before this was kept: nobody knows
    )


def _timestamp(entity: Any) -> datetime:
    written: datetime = entity.metadata["timestamp"]
    return written
