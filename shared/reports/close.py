"""Closing a month: its bookings go on to the next one, its statement becomes final and never changes again.

Every step may be repeated, by the same closer after a crash or by another one at the same time, and leads to the same
bytes: the first to fence fixes the time, the first to write the basis fixes everything else, files are named after
their content, and a final manifest is never replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from shared.config.model import Config
from shared.errors import Conflict, Forbidden, InvalidRequest
from shared.instants import rfc3339
from shared.ledger.hours import COVER_SECONDS, GRACE_SECONDS
from shared.ledger.periods import REMEMBER_SECONDS, Closing
from shared.months import month_before, month_of, month_span
from shared.reports.basis import PinnedBasis
from shared.reports.building import StatementBuilder
from shared.reports.freshness import INGEST_MAY_LAG, Freshness
from shared.reports.manifest import BASIS, Manifest, month_folder
from shared.reports.publishing import Publisher
from shared.reports.service import Reports

log = logging.getLogger("tollkeeper.reports")

# A worker books into the month for as long as it remembers it open, and an insert begun then may take this long.
FENCE_SECONDS = REMEMBER_SECONDS + COVER_SECONDS + GRACE_SECONDS + 15.0
TIMER = "month close"


class Months(Protocol):
    """Where it is kept how far a close is."""

    async def freeze(self, tenant: str, month: str, who: str = "", now_utc: datetime | None = None) -> Closing: ...
    async def closing(self, tenant: str, month: str) -> Closing | None: ...
    async def closings(self, tenant: str) -> dict[str, Closing]: ...
    async def close(self, tenant: str, month: str, digest: str) -> None: ...


class NewFiles(Protocol):
    """Where the basis is written down, once."""

    async def put_new(self, name: str, body: bytes, media_type: str) -> bool: ...


class CloseService:
    """Closes months of tenants."""

    def __init__(
        self,
        config: Callable[[], Config],
        reports: Reports,
        builder: StatementBuilder,
        months: Months,
        files: NewFiles,
        publisher: Publisher,
        freshness: Freshness,
        *,
        fence_seconds: float = FENCE_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`fence_seconds` is how long after the fence a row may still be booked into the month."""
        self._config = config
        self._reports = reports
        self._builder = builder
        self._months = months
        self._files = files
        self._publisher = publisher
        self._freshness = freshness
        self._fence_seconds = fence_seconds
        self._sleep = sleep

    async def close(
        self, tenant: str, period: str, who: str, *, force: bool = False, now_utc: datetime | None = None
    ) -> Manifest:
        """Close a tenant's month and return the manifest of its final statement; a closed month just returns its own.

        Takes as long as rows may still be booked, some two minutes from the first attempt on. `force` closes although
        ingest is behind: what comes later is on the next statement. Raises Forbidden `tenant_unknown`,
        InvalidRequest for a bad month, and Conflict `period_open` or `ingest_behind`.
        """
        await self.begin(tenant, period, who, force=force, now_utc=now_utc)
        return await self._finish(tenant, period)

    async def begin(
        self, tenant: str, period: str, who: str, *, force: bool = False, now_utc: datetime | None = None
    ) -> Closing:
        """The first step alone: from now on late rows of the month go to the next open one. Raises as `close`."""
        now_utc = now_utc or datetime.now(UTC)
        end_utc = month_span(period)[1]
        if tenant not in self._config().tenants:
            raise Forbidden(f"tenant: {tenant[:63]!r} is not configured", code="tenant_unknown", param="tenant")
        known = await self._months.closing(tenant, period)
        if known is not None:
            return known
        if now_utc < end_utc:
            message = f"period: {period} runs until {rfc3339(end_utc, 'seconds')}; a month is closed after its end"
            raise Conflict(message, code="period_open", param="period")
        if not force:
            await self._require_ingested(period, end_utc)
        log.info("month_closing", extra={"tenant": tenant, "period": period, "who": who})
        return await self._months.freeze(tenant, period, who, now_utc)

    async def run(self, now_utc: datetime | None = None) -> list[Manifest]:
        """Go on with every close that was begun, and from the configured day on close the month before, with those
        between it and a closed one: late rows of a month that never closes are on no statement that anybody gets.

        What fails for one tenant keeps no other from its turn; it is raised in the end, several errors as an
        ExceptionGroup.
        """
        now_utc = now_utc or datetime.now(UTC)
        before = month_before(month_of(now_utc))
        due: list[tuple[str, str]] = []
        failed: list[Exception] = []
        for tenant in self._config().tenants:
            try:
                closings = await self._months.closings(tenant)
                if now_utc.day >= self._config().billing.close_day:
                    for month in _unclosed(closings, before):
                        closings[month] = await self.begin(tenant, month, TIMER, now_utc=now_utc)
            except Exception as error:
                log.exception("close_failed", extra={"tenant": tenant})
                failed.append(error)
                continue
            due += [(tenant, month) for month, each in sorted(closings.items()) if each.state == "closing"]
        closed = []
        for tenant, month in due:  # all fences stand by now, so only the first waits
            try:
                closed.append(await self._finish(tenant, month))
            except Exception as error:
                log.exception("close_failed", extra={"tenant": tenant, "period": month})
                failed.append(error)
        if len(failed) == 1:
            raise failed[0]
        if failed:
            raise ExceptionGroup("some months could not be closed", failed)
        return closed

    async def _finish(self, tenant: str, period: str) -> Manifest:
        """From the fence to the final statement. Everything from here on may be done by several closers at once."""
        closing = await self._months.closing(tenant, period)
        if closing is None:
            raise InvalidRequest(f"period: the close of {period} was not begun", param="period")
        pinned = await self._reports.pinned_basis(tenant, period)
        if pinned is None:
            await self._wait_for_bookings(closing)
            pinned = await self._pin(tenant, period, closing)
        as_of_utc = pinned.as_of_utc or closing.fenced_at_utc
        bill = await self._builder.build(pinned, "final", as_of_utc)
        try:
            manifest = await self._publisher.publish(bill)
        finally:
            bill.close()
        await self._months.close(tenant, period, manifest.digest)
        if closing.state != "closed":
            log.info("month_closed", extra={"tenant": tenant, "period": period, "digest": manifest.digest})
        return manifest

    async def _require_ingested(self, period: str, end_utc: datetime) -> None:
        watermark_utc = await self._freshness.watermark_utc()
        if watermark_utc is not None and watermark_utc >= end_utc + INGEST_MAY_LAG:
            return
        reached = "an unknown point" if watermark_utc is None else rfc3339(watermark_utc, "seconds")
        message = (
            f"period: ingest has come to {reached} and {period} ends at {rfc3339(end_utc, 'seconds')}: calls may be "
            "missing; close it when ingest has caught up, or with force"
        )
        raise Conflict(message, code="ingest_behind", param="period")

    async def _wait_for_bookings(self, closing: Closing) -> None:
        until = closing.fenced_at_utc + timedelta(seconds=self._fence_seconds)
        left = (until - datetime.now(UTC)).total_seconds()
        if left > 0:
            await self._sleep(min(left, self._fence_seconds))  # the clock of whoever fenced may be ahead

    async def _pin(self, tenant: str, period: str, closing: Closing) -> PinnedBasis:
        """Write down what the statement is built on; whoever is first decides for all."""
        basis = await self._reports.basis(tenant, period)
        standings = await self._builder.standings(basis)
        mine = PinnedBasis(basis=basis, standings=standings, as_of_utc=closing.fenced_at_utc)
        body = msgspec.json.format(msgspec.json.encode(mine), indent=1)
        if await self._files.put_new(month_folder(tenant, period) + BASIS, body, "application/json"):
            return mine
        theirs = await self._reports.pinned_basis(tenant, period)
        if theirs is None:
            raise Conflict(f"period: the basis of {period} was taken away while it was closed", code="close_disturbed")
        return theirs


def _unclosed(closings: Iterable[str], before: str) -> list[str]:
    """The months to close, oldest first: the last one that is over, and the gaps since the first that was closed."""
    known = set(closings)
    months = [before]
    while months[-1] > min(known, default=before):
        months.append(month_before(months[-1]))
    return [month for month in reversed(months) if month not in known]
