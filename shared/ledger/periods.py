"""Which statement carries a row: the month of its time, or the first open month after it when that one is frozen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from shared.months import month_after, month_of

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

_LONG_AGO = "1970-01-01T00:00:00+00:00"  # of a month frozen by hand
_CLOCK_BEHIND = timedelta(minutes=5)  # by which a worker's may be: to it, a month that was just closed still runs
REMEMBER_SECONDS = 15.0  # a close waits longer than this before it scans, so that no worker books into a frozen month


class Closing(NamedTuple):
    """How far the close of a month has come. Its bookings went on to the next open month from `fenced_at_utc` on."""

    state: Literal["closing", "closed"]
    fenced_at_utc: datetime
    who: str  # asked for it first
    digest: str = ""  # of the published files; closed months only


class Periods:
    """The table of frozen months: PartitionKey tenant, RowKey `yyyy-mm`, `frozen` true, and how far the close is."""

    def __init__(self, table: TableClient):
        self._table = table
        self._known: dict[tuple[str, str], tuple[float, bool]] = {}

    async def booked(self, tenant: str, time_utc: datetime) -> str:
        """The month that books a row of this time, inserted now. The running month is never frozen."""
        month = month_of(time_utc)
        this_month = month_of(datetime.now(UTC) + _CLOCK_BEHIND)
        while month < this_month and await self.is_frozen(tenant, month):
            month = month_after(month)
        return month

    async def is_frozen(self, tenant: str, month: str) -> bool:
        """Whether the tenant's month takes no more rows; remembered for `REMEMBER_SECONDS`."""
        now = time.monotonic()
        read_at, frozen = self._known.get((tenant, month), (float("-inf"), False))
        if now - read_at > REMEMBER_SECONDS:
            frozen = bool((await self._get(tenant, month)).get("frozen"))
            self._known[tenant, month] = (now, frozen)
        return frozen

    async def freeze(self, tenant: str, month: str, who: str = "", now_utc: datetime | None = None) -> Closing:
        """Let a month take no more rows: from now on (after `REMEMBER_SECONDS`) late rows are booked into the next
        open one. Whoever asks first fixes the time; asking again changes nothing. Returns how far its close is."""
        from azure.core.exceptions import ResourceExistsError

        entity: Mapping[str, Any] = {
            "PartitionKey": tenant,
            "RowKey": month,
            "frozen": True,
            "state": "closing",
            "fenced_at": (now_utc or datetime.now(UTC)).isoformat(),
            "who": who,
        }
        try:
            await self._table.create_entity(dict(entity))
        except ResourceExistsError:
            entity = await self._get(tenant, month)
        self._known.pop((tenant, month), None)
        return _closing(entity)

    async def closing(self, tenant: str, month: str) -> Closing | None:
        """How far the close of a month has come, read now; None when nobody has begun it."""
        entity = await self._get(tenant, month)
        return _closing(entity) if entity.get("frozen") else None

    async def closings(self, tenant: str) -> dict[str, Closing]:
        """Every month of a tenant whose close was begun."""
        query = self._table.query_entities("PartitionKey eq @tenant", parameters={"tenant": tenant})
        return {entity["RowKey"]: _closing(entity) async for entity in query if entity.get("frozen")}

    async def close(self, tenant: str, month: str, digest: str) -> None:
        """Record that a frozen month is closed and which files say so. Doing it twice is harmless."""
        entity = {"PartitionKey": tenant, "RowKey": month, "state": "closed", "digest": digest}
        await self._table.update_entity(entity, mode="merge")

    async def _get(self, tenant: str, month: str) -> Mapping[str, Any]:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return await self._table.get_entity(tenant, month)
        except ResourceNotFoundError:
            return {}


def _closing(entity: Mapping[str, Any]) -> Closing:
    closed = entity.get("state") == "closed"
    return Closing(
        state="closed" if closed else "closing",
        fenced_at_utc=datetime.fromisoformat(entity.get("fenced_at", _LONG_AGO)),
        who=entity.get("who", ""),
        digest=entity.get("digest", ""),
    )
