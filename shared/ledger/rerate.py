"""Rates calls again: those that had no price and have one now, and those whose price was corrected.

It only asks. The events that it publishes are applied by ingest like everything that moves counters, and change nothing
where there is nothing to change; so asking twice, or two workers at once, is harmless.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import msgspec

from shared.budgets.snapshot import Snapshot
from shared.errors import InvalidRequest
from shared.ledger.adjustments import rerated
from shared.ledger.hours import HourIndex
from shared.ledger.keys import ONE_HOUR, hour_end_key, hour_key, hour_start
from shared.ledger.reading import HourReader
from shared.ledger.rollup import RollupCell
from shared.ledger.row import LedgerRow, Position
from shared.ledger.standing_rows import StandingRows
from shared.money import decimal_from_nano
from shared.scopes import CONTROL_CHARACTER
from shared.usage.build import Publish, partition_key, re_rate_event_bytes

log = logging.getLogger("tollkeeper.rerate")

WHO, WHY = "tollkeeper", "a price for the model landed"
PUBLISHED_AT_ONCE = 500
MAX_TEXT = 1024
_QUARTER = timedelta(minutes=15)


class RerateReport(msgspec.Struct, kw_only=True):
    """What a run found. Differences are of the new rating to the old, in nano-USD."""

    calls: int = 0  # looked at
    changed: int = 0
    newly_priced: int = 0  # of the changed ones: their cost was unknown
    still_unpriced: int = 0
    cost_difference_nano_usd: int = 0
    charge_difference_nano_usd: int = 0  # what budgets will count more, or less
    dry_run: bool = False

    def add(self, row: LedgerRow, again: LedgerRow | None) -> None:
        """Count one call, as it is billed and as it would be."""
        self.calls += 1
        if again is None:
            self.still_unpriced += row.pricing_status == "unpriced"
            return
        self.changed += 1
        self.newly_priced += row.pricing_status == "unpriced"
        self.cost_difference_nano_usd += (again.cost_nano_usd or 0) - (row.cost_nano_usd or 0)
        self.charge_difference_nano_usd += again.charge_nano_usd - row.charge_nano_usd

    def as_json(self) -> dict[str, Any]:
        """For logs and answers: money as decimal strings in USD."""
        return {
            "calls": self.calls,
            "changed": self.changed,
            "newly_priced": self.newly_priced,
            "still_unpriced": self.still_unpriced,
            "cost_difference": decimal_from_nano(self.cost_difference_nano_usd),
            "charge_difference": decimal_from_nano(self.charge_difference_nano_usd),
            "dry_run": self.dry_run,
        }


class RerateService:
    """Finds the calls and publishes their re-rates."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        hours: HourIndex,
        reader: HourReader,
        rows: StandingRows,
        publish: Publish,
    ) -> None:
        """`publish` puts events onto the usage hub."""
        self._snapshot = snapshot
        self._hours = hours
        self._reader = reader
        self._rows = rows
        self._publish = publish

    async def run(self, now_utc: datetime | None = None) -> RerateReport:
        """Re-rate what had no price and has one now, in all of the ledger. Raises storage and hub errors."""
        report = RerateReport()
        snapshot = self._snapshot()
        run = _run(snapshot, WHO, WHY, hour_key(now_utc or datetime.now(UTC)))
        for hour in await self._hours.unpriced():
            for tenant in sorted(await self._tenants_with_prices(snapshot, hour.key)):
                rows = self._rows.of_hour(hour.key, tenant, unpriced=True)
                await self._ask(snapshot, rows, report, run, WHO, WHY)
        if report.changed:
            log.info("re_rated", extra=report.as_json())
        return report

    async def re_rate(
        self,
        tenant: str,
        start_utc: datetime,
        end_utc: datetime,
        who: str,
        why: str,
        *,
        key: str | None = None,
        model: str | None = None,
        dry_run: bool = False,
    ) -> RerateReport:
        """Re-rate a tenant's calls admitted in [start, end), of one model or of all, by the prices in force.

        `dry_run` only says what would change. `key` names the request: sent again it changes nothing more. Raises
        InvalidRequest, storage and hub errors; then ask again.
        """
        snapshot = self._snapshot()
        _check(snapshot, tenant, start_utc, end_utc, why)
        report = RerateReport(dry_run=dry_run)
        run = _run(snapshot, who, why, key or uuid.uuid4().hex)
        async for hour in self._hours.scan(hour_key(start_utc), hour_end_key(end_utc)):
            rows = self._rows.of_hour(hour.key, tenant, model=model)
            inside = (row async for row in rows if start_utc <= row.time_utc < end_utc)
            await self._ask(snapshot, inside, report, run, who, why)
        log.info("re_rated", extra={"tenant": tenant, **report.as_json()})
        return report

    async def _ask(
        self,
        snapshot: Snapshot,
        rows: AsyncIterator[LedgerRow],
        report: RerateReport,
        run: str,
        who: str,
        why: str,
    ) -> None:
        events: list[tuple[str, bytes]] = []
        async for row in rows:
            again = rerated(row, snapshot)
            report.add(row, again)
            if again is None or report.dry_run:
                continue
            call_id = row.call_id or row.id
            body = re_rate_event_bytes(
                row.source,
                call_id,
                row.time_utc,
                tenant=row.tenant,
                run=run,
                config_version=snapshot.config.version,
                who=who,
                why=why,
            )
            events.append((partition_key(row.source, call_id), body))
            if len(events) == PUBLISHED_AT_ONCE:
                await self._publish(events)
                events = []
        if events:
            await self._publish(events)

    async def _tenants_with_prices(self, snapshot: Snapshot, hour: str) -> set[str]:
        """The tenants with calls of the hour that have a price now, judged by the hour's sums: reading the rows of a
        model that has none yet, every hour anew, would be in vain."""
        start_utc = hour_start(hour)
        net: dict[tuple[str, ...], tuple[int, RollupCell]] = {}
        async for cell in self._reader.cells(None, start_utc, start_utc + ONE_HOUR):
            if cell.pricing_status != "unpriced" or cell.tenant not in snapshot.config.tenants:
                continue
            quarter = cell.quarter_utc.isoformat()
            kind = (cell.tenant, quarter, cell.provider, cell.model, cell.deployment, cell.region)
            count, known = net.get(kind, (0, cell))
            net[kind] = count + cell.unpriced, known if known.unpriced > 0 else cell
        return {cell.tenant for count, cell in net.values() if count > 0 and _has_price(snapshot, cell)}


def _has_price(snapshot: Snapshot, cell: RollupCell) -> bool:
    """Whether some instant of the cell's quarter hour has a price for its tokens."""
    at = cell.quarter_utc
    return any(
        rerated(_row_like(cell, instant), snapshot) for instant in (at, at + _QUARTER - timedelta(microseconds=1))
    )


def _row_like(cell: RollupCell, at_utc: datetime) -> LedgerRow:
    return LedgerRow(
        tenant=cell.tenant,
        source="",
        id="",
        kind="usage",
        time_utc=at_utc,
        scopes=cell.scopes,
        position=Position("", 0, 0),
        content_digest="",
        charge_nano_usd=0,
        tokens=cell.tokens,
        pricing_status="unpriced",
        provider=cell.provider,
        model=cell.model,
        deployment=cell.deployment,
        region=cell.region,
    )


def _run(snapshot: Snapshot, who: str, why: str, key: str) -> str:
    """What names a run: equal for a request that is sent again, so that its events are the same bytes."""
    text = "\n".join((snapshot.config.version, who, why, key))
    return blake2b(text.encode(), digest_size=6).hexdigest()


def _check(snapshot: Snapshot, tenant: str, start_utc: datetime, end_utc: datetime, why: str) -> None:
    if tenant not in snapshot.config.tenants:
        raise InvalidRequest(f"tenant: {tenant!r} is not configured", param="tenant")
    if start_utc >= end_utc:
        raise InvalidRequest("to: must be after `from`", param="to")
    if not why.strip() or len(why) > MAX_TEXT or CONTROL_CHARACTER.search(why):
        message = (
            f"why: say the reason in 1 to {MAX_TEXT} characters without control characters; it stands in the ledger"
        )
        raise InvalidRequest(message, param="why")
