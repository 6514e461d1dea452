"""Reports: statements on demand and on schedule."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from shared.config.model import Config
from shared.ledger.coverage import DEFAULT_WAIT, Coverage, coverage_of
from shared.ledger.rollup import RollupCell
from shared.months import month_before, month_of, month_span
from shared.reports.chargeback import LineKey, Statement, Usage, make_lines, status_of
from shared.reports.render import FORMATS, render

log = logging.getLogger("tollkeeper.reports")

_FROZEN_MONTHS_SEARCHED = 12


class Ledger(Protocol):
    """What reports need of the ledger: its sums per quarter hour, open hours included."""

    def cells(self, tenant: str, start_utc: datetime, end_utc: datetime) -> AsyncIterator[RollupCell]: ...


class StatementFiles(Protocol):
    """Where statements are kept; a file appears whole or not at all."""

    async def put(self, name: str, body: bytes, media_type: str) -> None: ...


class Reports:
    """Builds every report from the ledger's sums; holds no state."""

    def __init__(
        self,
        config: Callable[[], Config],
        ledger: Ledger,
        files: StatementFiles,
        is_frozen: Callable[[str, str], Awaitable[bool]],
        stream_wait: timedelta = DEFAULT_WAIT,
    ) -> None:
        """`is_frozen(tenant, month)` tells whether a month such as `2026-11` is closed; `stream_wait` is how long an
        estimate may still be replaced by a measurement."""
        self._config = config
        self._ledger = ledger
        self._files = files
        self._is_frozen = is_frozen
        self._stream_wait = stream_wait

    async def statement(self, tenant: str, period: str, teams: Sequence[str] | None, now_utc: datetime) -> Statement:
        """A tenant's statement for a month, of some teams or (None) of all. Raises InvalidRequest for a bad month."""
        end_utc = month_span(period)[1]
        frozen = await self._is_frozen(tenant, period)
        sums: dict[LineKey, Usage] = {}
        async for cell in self._ledger.cells(tenant, await self._first_instant(tenant, period), end_utc):
            key = LineKey(cell.scopes.get("team", ""), cell.scopes.get("app", ""), cell.provider, cell.model)
            if cell.booked_period == period and cell.cell is None and (teams is None or key.team in teams):
                sums[key] = sums.get(key, Usage()) + _usage(cell, coverage_of(cell, now_utc, self._stream_wait))
        return Statement(
            tenant=tenant,
            period=period,
            status=status_of(period, now_utc, frozen=frozen),
            as_of_utc=now_utc,
            teams=None if teams is None else tuple(teams),
            lines=make_lines(sums, self._config().teams),
        )

    async def publish_statements(self, now_utc: datetime | None = None) -> list[str]:
        """Write every tenant's statements of the open month and the one before; returns the names written.

        Names are fixed by tenant and month and each file is replaced in one request, so running again is harmless.
        """
        now_utc = now_utc or datetime.now(UTC)
        open_month = month_of(now_utc)
        written = []
        for tenant in self._config().tenants:
            for period in (month_before(open_month), open_month):
                statement = await self.statement(tenant, period, None, now_utc)
                for wanted in FORMATS:
                    rendering = render(statement, wanted)
                    name = f"{tenant}/{period}/statement.{rendering.extension}"
                    await self._files.put(name, rendering.body, rendering.media_type)
                    written.append(name)
        log.info("statements_written", extra={"files": len(written)})
        return written

    async def _first_instant(self, tenant: str, period: str) -> datetime:
        """Where to look for rows that a month's statement carries: frozen months before it hand it their late rows."""
        first = period
        for _ in range(_FROZEN_MONTHS_SEARCHED):
            before = month_before(first)
            if not await self._is_frozen(tenant, before):
                break
            first = before
        return month_span(first)[0]


def _usage(cell: RollupCell, coverage: Coverage) -> Usage:
    return Usage(
        requests=cell.requests,
        tokens=cell.tokens,
        cost_nano_usd=cell.cost_nano_usd,
        coverage=coverage,
        unpriced_requests=cell.unpriced,
    )
