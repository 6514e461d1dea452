"""Reads the ledger for a statement: the cells of a month, and of closed months before it that hand it late rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

from shared.ledger.coverage import DEFAULT_WAIT
from shared.ledger.rollup import RollupCell
from shared.months import month_before, month_of, month_span
from shared.reports.basis import Basis, PinnedBasis
from shared.reports.bill import Bill, make_bill
from shared.reports.incomplete import incomplete
from shared.reports.spool import Spool
from shared.reports.standings import Standings
from shared.reports.statement import BudgetStanding, Status
from shared.reports.tally import Tally

_CELLS_BETWEEN_BREATHS = 2_000  # a worker that builds a statement answers checks too


class Ledger(Protocol):
    """What reports need of the ledger: its sums per quarter hour, open hours included."""

    def cells(
        self, tenant: str, start_utc: datetime, end_utc: datetime, *, booked_later: bool = False
    ) -> AsyncIterator[RollupCell]: ...


class StatementBuilder:
    """Builds bills from the ledger's cells; holds no state."""

    def __init__(
        self,
        ledger: Ledger,
        is_frozen: Callable[[str, str], Awaitable[bool]],
        stream_wait: timedelta = DEFAULT_WAIT,
    ) -> None:
        """`is_frozen(tenant, month)` tells whether a month such as `2026-11` takes no more rows; `stream_wait` is how
        long an estimate may still be replaced by a measurement."""
        self._ledger = ledger
        self._is_frozen = is_frozen
        self._stream_wait = stream_wait

    async def build(
        self,
        basis: Basis | PinnedBasis,
        status: Status,
        as_of_utc: datetime,
        *,
        notes: tuple[str, ...] = (),
        with_charges: bool = True,
    ) -> Bill:
        """The bill of a month; whoever gets it closes it.

        Of a pinned basis, where budgets stood is taken over. `notes` say what the caller knows to be incomplete; what
        the figures themselves tell is added. Without charges it has its statement only.
        """
        pinned = basis if isinstance(basis, PinnedBasis) else None
        basis = basis.basis if isinstance(basis, PinnedBasis) else basis
        spool = Spool() if with_charges else None
        try:
            tally = Tally(basis, as_of_utc, self._stream_wait, spool)
            standings = Standings(basis) if pinned is None else None
            await self._read(basis, tally, standings)
            tally.finish()
            budgets = standings.result() if standings is not None else pinned.standings if pinned is not None else ()
            bill = make_bill(tally, spool, status=status, as_of_utc=as_of_utc, budgets=budgets)
        except BaseException:
            if spool is not None:
                spool.close()
            raise
        return bill.noting((*notes, *incomplete(bill.statement)))

    async def standings(self, basis: Basis) -> tuple[BudgetStanding, ...]:
        """Where the budgets of a month stand by the ledger as it is now."""
        standings = Standings(basis)
        if standings.span is not None:
            async for cell in self._ledger.cells(basis.tenant, *standings.span):
                standings.add(cell)
        return standings.result()

    async def _read(self, basis: Basis, tally: Tally, standings: Standings | None) -> None:
        """One pass for the month and for its budgets, whose own months lie a little beside it."""
        start_utc, end_utc = basis.span
        first_utc = month_span(await self._first_month(basis.tenant, basis.period))[0]
        billed = first_utc, end_utc
        counted = standings.span if standings is not None else None
        if counted is not None:
            start_utc, end_utc = min(start_utc, counted[0]), max(end_utc, counted[1])
        seen = 0
        async for cell in self._cells(basis.tenant, first_utc, start_utc, end_utc):
            if billed[0] <= cell.quarter_utc < billed[1]:
                tally.add(cell)
            if standings is not None and counted is not None and counted[0] <= cell.quarter_utc < counted[1]:
                standings.add(cell)
            seen += 1
            if seen % _CELLS_BETWEEN_BREATHS == 0:
                await asyncio.sleep(0)

    async def _first_month(self, tenant: str, period: str) -> str:
        """Where to look for rows that a month's statement carries: frozen months before it hand it their late rows."""
        first = period
        while await self._is_frozen(tenant, before := month_before(first)):
            first = before
        return first

    async def _cells(
        self, tenant: str, first_utc: datetime, start_utc: datetime, end_utc: datetime
    ) -> AsyncIterator[RollupCell]:
        """All cells of [start, end), after those of [first, start) that another month carries: years, but few hours."""
        if first_utc < start_utc:
            async for cell in self._ledger.cells(tenant, first_utc, start_utc, booked_later=True):
                yield cell
        async for cell in self._ledger.cells(tenant, start_utc, end_utc):
            yield cell


def status_of(period: str, now_utc: datetime, *, closed: bool) -> Status:
    """The status of a month's statement. Only closing makes it final: the calendar alone cannot stop a late event."""
    if closed:
        return "final"
    return "draft" if month_of(now_utc) <= period else "provisional"
