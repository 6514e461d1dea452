"""Statements on demand, and drafts on schedule."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Protocol

import msgspec

from shared.config.model import Config
from shared.ledger.periods import Closing
from shared.months import month_before, month_of, month_span
from shared.reports.basis import Basis, PinnedBasis, Previous, basis_of
from shared.reports.bill import Bill
from shared.reports.building import StatementBuilder, status_of
from shared.reports.freshness import Freshness
from shared.reports.manifest import BASIS, MANIFEST, decode_manifest, month_folder
from shared.reports.publishing import Publisher
from shared.reports.statement import Forecast, Statement

if TYPE_CHECKING:
    from shared.reports.formats import Format

log = logging.getLogger("tollkeeper.reports")

# Of each process, which answers checks too: a reader who asks for a hundred at once waits, and nobody else does.
WRITTEN_AT_ONCE = 2
_decode_basis = msgspec.json.Decoder(PinnedBasis).decode

Forecaster = Callable[[str, datetime], Awaitable[Forecast | None]]


class Months(Protocol):
    """What reports need to know of closed months."""

    async def is_frozen(self, tenant: str, month: str) -> bool: ...
    async def closing(self, tenant: str, month: str) -> Closing | None: ...


class StoredFiles(Protocol):
    """Where statements are kept."""

    async def get(self, name: str) -> tuple[bytes, str] | None: ...


class Reports:
    """Every statement: of a closed month as it was closed, of another one as the ledger stands."""

    def __init__(
        self,
        config: Callable[[], Config],
        builder: StatementBuilder,
        months: Months,
        files: StoredFiles,
        publisher: Publisher,
        freshness: Freshness,
        forecast: Forecaster | None = None,
    ) -> None:
        """`forecast(tenant, now)` tells where the running month leads."""
        self._config = config
        self._builder = builder
        self._months = months
        self._files = files
        self._publisher = publisher
        self._freshness = freshness
        self._forecast = forecast
        self._turns = asyncio.Semaphore(WRITTEN_AT_ONCE)

    async def statement(self, tenant: str, period: str, teams: Sequence[str] | None, now_utc: datetime) -> Statement:
        """A tenant's statement for a month, of some teams or (None) of all. Raises InvalidRequest for a bad month."""
        bill = await self.bill(tenant, period, now_utc, with_charges=False)
        return bill.statement if teams is None else bill.statement.of_teams(teams)

    async def bill(self, tenant: str, period: str, now_utc: datetime, *, with_charges: bool = True) -> Bill:
        """The whole tenant's bill for a month, with its charges on disk until it is closed. Raises InvalidRequest."""
        end_utc = month_span(period)[1]
        closing = await self._months.closing(tenant, period)
        closed = closing is not None and closing.state == "closed"
        pinned = await self.pinned_basis(tenant, period) if closed else None
        if closed and pinned is not None and pinned.as_of_utc is not None:
            return await self._builder.build(pinned, "final", pinned.as_of_utc, with_charges=with_charges)
        basis = await self.basis(tenant, period)
        bill = await self._builder.build(
            basis,
            status_of(period, now_utc, closed=closed),
            now_utc,
            notes=await self._freshness.notes(period, now_utc),
            with_charges=with_charges,
        )
        if self._forecast is not None and month_of(now_utc) == period and now_utc < end_utc:
            statement = msgspec.structs.replace(bill.statement, forecast=await self._forecast(tenant, now_utc))
            bill = msgspec.structs.replace(bill, statement=statement)
        return bill

    async def write(
        self,
        tenant: str,
        period: str,
        teams: Sequence[str] | None,
        form: Format,
        out: BinaryIO,
        now_utc: datetime | None = None,
    ) -> Statement:
        """Write a month's statement, of some teams or (None) of all, to a file in one of the forms. Returns what was
        written. Raises InvalidRequest for a bad month."""
        async with self._turns:
            bill = await self.bill(tenant, period, now_utc or datetime.now(UTC), with_charges=form.reads_charges)
            try:
                statement = bill.statement if teams is None else bill.statement.of_teams(teams)
                charges = bill.charges(teams) if form.reads_charges else iter(())
                await asyncio.to_thread(form.write, statement, charges, out)
            finally:
                bill.close()
        return statement

    async def publish_statements(self, now_utc: datetime | None = None) -> list[str]:
        """Publish every tenant's statements of the open month and of the one before, unless that one is closed or being
        closed; returns the names of their manifests.

        Running again is harmless. A tenant whose statement fails keeps no other from its own; what failed is raised in
        the end, several errors as an ExceptionGroup.
        """
        now_utc = now_utc or datetime.now(UTC)
        open_month = month_of(now_utc)
        written: list[str] = []
        failed: list[Exception] = []
        for tenant in self._config().tenants:
            for period in (month_before(open_month), open_month):
                try:
                    if await self._months.closing(tenant, period) is None:
                        written.append(await self._publish(tenant, period, now_utc))
                except Exception as error:
                    log.exception("statement_failed", extra={"tenant": tenant, "period": period})
                    failed.append(error)
        log.info("statements_written", extra={"files": len(written)})
        if len(failed) == 1:
            raise failed[0]
        if failed:
            raise ExceptionGroup("some statements could not be written", failed)
        return written

    async def basis(self, tenant: str, period: str) -> Basis:
        """What a statement is built on under the configuration in force."""
        return basis_of(self._config(), tenant, period, await self._previous(tenant, period))

    async def pinned_basis(self, tenant: str, period: str) -> PinnedBasis | None:
        """What a closer wrote down; None when none has yet."""
        found = await self._files.get(month_folder(tenant, period) + BASIS)
        return None if found is None else _decode_basis(found[0])

    async def _publish(self, tenant: str, period: str, now_utc: datetime) -> str:
        bill = await self.bill(tenant, period, now_utc)
        try:
            await self._publisher.publish(bill)
        finally:
            bill.close()
        return month_folder(tenant, period) + MANIFEST

    async def _previous(self, tenant: str, period: str) -> Previous | None:
        found = await self._files.get(month_folder(tenant, month_before(period)) + MANIFEST)
        return None if found is None else decode_manifest(found[0]).previous
