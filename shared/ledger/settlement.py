"""From inserted rows to counters: what a batch of one partition adds, gives back and teaches, tenant by tenant."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from shared.budgets.cells import Applied, Cell, parse_cell
from shared.budgets.estimates import learning_levels
from shared.budgets.matching import BudgetIndex
from shared.budgets.reservation import Reservation
from shared.budgets.store import BudgetStore, Charge, SettleBatch, Settled
from shared.ledger.rating import output_tokens_sample
from shared.ledger.reading import LedgerCharge
from shared.ledger.row import LedgerRow, Position

log = logging.getLogger("tollkeeper.ingest")


class Entry(NamedTuple):
    """One event of a tenant as settlement sees it, in hub order."""

    position: Position
    row: LedgerRow  # as STORED: a redelivery settles what was written first, not what today's prices would say
    counts: bool  # False: a duplicate; its money is counted already where its first copy stands
    fresh: bool  # newly inserted by this very run
    held: Reservation | None
    unsure: bool = False  # beyond what is known to be settled: whoever stored the row may have died before settling
    cut_short: bool = False  # its own cap ended the answer early, so its length must not teach the estimates


class TenantSettler:
    """Settles tenants and remembers the marks it saw, so that it notices when Redis lost some."""

    def __init__(self, store: BudgetStore) -> None:
        self._store = store
        self._last_seen: dict[tuple[str, str], Position] = {}

    def forget(self, tenant: str) -> None:
        """Drop the remembered marks of a tenant, after its counters were rebuilt."""
        for key in [key for key in self._last_seen if key[0] == tenant]:
            del self._last_seen[key]

    async def settle(self, index: BudgetIndex, tenant: str, entries: Sequence[Entry]) -> list[Applied]:
        """Apply the entries of one tenant from one stream, in hub order, exactly once.

        Compared per event: on overlap the applied part is cut off, the rest summed again. Client errors pass through.
        """
        stream, last = entries[0].position.stream, entries[-1].position
        releases = [entry.held for entry in entries if entry.held is not None]
        pending, below_mark = list(entries), False
        before: list[Entry] = []  # applied by an earlier run, which may have died before it could notify
        while pending:
            batch = self._batch(index, tenant, pending, releases, below_mark)
            settled = await self._store.settle(tenant, batch)
            if settled.overlap is None:
                if settled.went_back:
                    log.error("redis_lost_marks", extra={"tenant": tenant, "stream": stream})
                self._last_seen[tenant, stream] = last
                return [*await self._standing(index, tenant, before), *_applied(batch, settled)]
            mark = settled.overlap
            applied = [entry for entry in pending if entry.position.at_or_before(mark)]
            # A row that is new although the mark has passed it was skipped by an earlier run: a reconciliation must
            # find it, for no settlement will. One that is not new may have been stored after a rebuild had set the
            # mark past it, by a worker that died before it could say so.
            below_mark = below_mark or any(entry.counts and (entry.fresh or entry.unsure) for entry in applied)
            pending = [entry for entry in pending if not entry.position.at_or_before(mark)]
            before += applied
        if releases or below_mark:
            await self._store.settle(tenant, SettleBatch("", None, None, None, below_mark, (), releases, {}))
        return await self._standing(index, tenant, before)

    async def _standing(self, index: BudgetIndex, tenant: str, entries: Sequence[Entry]) -> list[Applied]:
        """What the counters of entries that were applied before show now, as if they had just got there from zero.

        A notice that a crash kept from the outbox is added then; all others are there already under the same key.
        """
        cells = {cell.id: cell for entry in entries if entry.counts for cell in charged_cells(index, tenant, entry.row)}
        return [Applied(cell, 0, (await self._store.figures(tenant, cell))[0]) for cell in cells.values()]

    def _batch(
        self,
        index: BudgetIndex,
        tenant: str,
        entries: Sequence[Entry],
        releases: Sequence[Reservation],
        below_mark: bool,
    ) -> SettleBatch:
        sums: dict[str, int] = defaultdict(int)
        cells: dict[str, Cell] = {}
        samples: dict[str, list[int]] = defaultdict(list)
        asserted = index.config.tenants[tenant].client_asserted_scopes
        for entry in entries:
            row = entry.row
            if entry.counts and row.charge_nano_usd:
                for cell in charged_cells(index, tenant, row):
                    cells[cell.id] = cell
                    sums[cell.id] += row.charge_nano_usd
            teaches = entry.fresh and entry.counts and not entry.cut_short
            if teaches and (sample := output_tokens_sample(row)) is not None:
                for level in learning_levels(tenant, row.scopes, asserted, row.model):
                    samples[level].append(sample)
        return SettleBatch(
            stream=entries[0].position.stream,
            first=entries[0].position,
            last=entries[-1].position,
            last_seen=self._last_seen.get((tenant, entries[0].position.stream)),
            row_below_mark=below_mark,
            charges=[
                Charge(cells[cell_id], amount, index.idle_ms(tenant, cells[cell_id]))
                for cell_id, amount in sums.items()
            ],
            releases=releases,
            samples=samples,
        )


def charged_cells(index: BudgetIndex, tenant: str, row: LedgerRow | LedgerCharge) -> Sequence[Cell]:
    """The counters that a row, or a sum of rows, is charged to. A grant moves the one it names."""
    if row.cell is not None:
        return _granted_cells(row.cell)
    return index.cells_of_call(tenant, row.scopes, row.model, row.time_utc.timestamp())


def _granted_cells(cell_id: str) -> tuple[Cell, ...]:
    """The counter that a grant in the ledger names, if there still is one.

    It was checked before it was stored. But a country may change its clocks, and then no period starts where one did.
    """
    try:
        return (parse_cell(cell_id),)
    except ValueError:
        log.exception("cell_unreadable", extra={"cell": cell_id})
        return ()


def _applied(batch: SettleBatch, settled: Settled) -> list[Applied]:
    return [
        Applied(charge.cell, after - charge.amount_nano_usd, after)
        for charge, after in zip(batch.charges, settled.spent_nano_usd, strict=True)
    ]
