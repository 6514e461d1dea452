"""Whether the ledger has everything of a month yet: how far ingest is, and which hours still get rows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from shared.errors import TollkeeperError
from shared.instants import rfc3339
from shared.ledger.hours import HourIndex
from shared.ledger.keys import hour_end_key, hour_key
from shared.months import month_span

log = logging.getLogger("tollkeeper.reports")

HOUR_SETTLES_WITHIN = timedelta(hours=2)  # an hour with late rows is summed again within minutes
INGEST_MAY_LAG = timedelta(minutes=10)
REMEMBER_SECONDS = 15.0
HUB_SECONDS = 5.0


class Freshness(Protocol):
    """What statements need to know of the way to the ledger."""

    async def watermark_utc(self) -> datetime | None:
        """Up to when every event on the hub has been processed; None when it cannot be told."""
        ...

    async def notes(self, period: str, as_of_utc: datetime) -> tuple[str, ...]:
        """What of a month may be missing, in sentences."""
        ...


class LedgerFreshness:
    """Freshness by the hour index and by the hub."""

    def __init__(self, hours: HourIndex, watermark_ms: Callable[[], Awaitable[int | None]]) -> None:
        """`watermark_ms` asks the hub how far ingest is."""
        self._hours = hours
        self._watermark_ms = watermark_ms
        self._known: tuple[float, datetime | None] = (float("-inf"), None)

    async def watermark_utc(self) -> datetime | None:
        """See Freshness. A hub that does not answer makes it unknown, never an error: statements go on without.

        Asking the hub takes half a second, so an answer is remembered for a while; it only ever moves on.
        """
        asked_at, known = self._known
        if time.monotonic() - asked_at < REMEMBER_SECONDS:
            return known
        self._known = time.monotonic(), await self._ask()
        return self._known[1]

    async def _ask(self) -> datetime | None:
        try:
            async with asyncio.timeout(HUB_SECONDS):
                watermark_ms = await self._watermark_ms()
        except (TollkeeperError, OSError, TimeoutError):
            log.warning("watermark_unknown", exc_info=True)
            return None
        return None if watermark_ms is None else _instant(watermark_ms)

    async def notes(self, period: str, as_of_utc: datetime) -> tuple[str, ...]:
        """See Freshness."""
        start_utc, end_utc = month_span(period)
        needed_utc = min(end_utc, as_of_utc - INGEST_MAY_LAG)
        notes = []
        watermark_utc = await self.watermark_utc()
        if watermark_utc is None:
            notes.append("How far ingest has come is unknown: calls may be missing.")
        elif watermark_utc < needed_utc:
            notes.append(f"Ingest is behind: calls reported after {rfc3339(watermark_utc, 'seconds')} may be missing.")
        unsettled = await self._unsettled(start_utc, min(end_utc, as_of_utc - HOUR_SETTLES_WITHIN))
        if unsettled:
            notes.append(f"{unsettled} hours of it still get rows.")
        return tuple(notes)

    async def _unsettled(self, start_utc: datetime, end_utc: datetime) -> int:
        if end_utc <= start_utc:
            return 0
        hours = self._hours.scan(hour_key(start_utc), hour_end_key(end_utc), dirty_only=True)
        return len([hour async for hour in hours])


def _instant(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms // 1000, UTC)
