"""Reconciling a tenant: its counters are made equal to its ledger while traffic goes on.

Always by a cut: read counters and marks at one instant, sum the ledger at or before those marks, add the difference if
nothing has moved under it. Setting counters, or adding without a cut, loses or doubles what settles meanwhile.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from shared.budgets.cells import Applied, Cell
from shared.budgets.matching import BudgetIndex
from shared.budgets.periods import period_at, previous_period
from shared.budgets.snapshot import Snapshot
from shared.budgets.store import BudgetStore, Charge, Cut, TenantState
from shared.ledger.settlement import TenantSettler, charged_cells
from shared.ledger.store import LedgerStore
from shared.money import decimal_from_nano
from shared.notify.outbox import Outbox
from shared.notify.thresholds import add_crossed

log = logging.getLogger("tollkeeper.repair")

SCHEDULED = "scheduled"
MARKS_LOST = "marks went back"

_ATTEMPTS = 20
_CELLS_PER_CUT = 5_000  # one script reads them at one instant, and blocks the tenant's slot while it does
_EVERY_WORKER_HAS_CONFIG_SECONDS = 60


class RepairReport(NamedTuple):
    """What a reconciliation found: counters compared, counters that were off, and by how much in all."""

    tenant: str
    reason: str
    cells: int
    off: int
    drift_nano_usd: int  # sum of absolute differences
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For logs and answers."""
        drift = decimal_from_nano(self.drift_nano_usd)
        return {**self._asdict(), "drift": drift, "seconds": round(self.seconds, 3)}


class Reconciler:
    """Compares counters with the ledger. Several at once are harmless: a fence lets only one adjustment through."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        store: BudgetStore,
        ledger: LedgerStore,
        settler: TenantSettler,
        outbox: Outbox,
    ) -> None:
        self._snapshot = snapshot
        self._store = store
        self._ledger = ledger
        self._settler = settler
        self._outbox = outbox

    async def run(self, tenant: str, reason: str = SCHEDULED) -> RepairReport:
        """Make the tenant's counters equal to its ledger, and say by how much they were off.

        Raises RuntimeError when they kept moving for all attempts; nothing is lost then, the next run tries again.
        """
        started = time.monotonic()
        snapshot = self._snapshot()
        before = await self._store.state(tenant)
        if not before.ready or reason == MARKS_LOST:
            await self._store.begin(tenant, uuid.uuid4().hex, (await self._ledger.high_positions(tenant)).values())
            self._settler.forget(tenant)
        compared, off, drift = 0, 0, 0
        wanted: dict[str, Cell] = {}
        for _ in range(_ATTEMPTS):
            now_s = time.time()
            living = await self._store.cells(tenant, int(now_s * 1000))
            # A counter whose budgets are gone is not charged any more; that is no drift.
            wanted |= {cell.id: cell for cell in living if snapshot.index.of_cell(tenant, cell)}
            outcome = await self._adjust_all(snapshot, tenant, wanted, now_s)
            if outcome is None:
                continue
            compared, applied = outcome
            off = sum(1 for change in applied if change.after_nano_usd != change.before_nano_usd)
            drift = sum(abs(change.after_nano_usd - change.before_nano_usd) for change in applied)
            await add_crossed(self._outbox, snapshot.index, tenant, applied)
            break
        else:
            raise RuntimeError(f"tenant {tenant}: counters kept moving during {_ATTEMPTS} reconciliations")
        if not _every_worker_has(snapshot) and (before.dirty or _unseeded(before, snapshot, tenant)):
            # All families are seeded now, but workers on the old configuration do not charge a new one yet: stay dirty
            # until they do, so that a last reconciliation finds what they left out.
            await self._store.mark_dirty(tenant)
        report = RepairReport(tenant, reason, compared, off, drift, time.monotonic() - started)
        if before.ready and drift:
            log.error("counters_drifted", extra=report.as_json())
            await self._outbox.add_once(f"drift|{tenant}|{int(time.time())}", "drift", report.as_json())
        elif reason != SCHEDULED:
            log.warning("counters_reconciled", extra=report.as_json())
        return report

    async def _adjust_all(
        self, snapshot: Snapshot, tenant: str, wanted: dict[str, Cell], now_s: float
    ) -> tuple[int, list[Applied]] | None:
        """One pass over all counters; None when something moved or counters were found that the cut did not read."""
        cells = list(wanted.values())
        chunks = [cells[i : i + _CELLS_PER_CUT] for i in range(0, len(cells), _CELLS_PER_CUT)] or [[]]
        changes: list[Applied] = []
        dirty_seen: str | None = None
        for number, chunk in enumerate(chunks, start=1):
            cut = await self._store.cut(tenant, chunk)
            dirty_seen = cut.dirty if dirty_seen is None else dirty_seen
            cut = cut._replace(dirty=dirty_seen)  # what got dirty after the first chunk was read stays dirty
            sums = await self._ledger_sums(snapshot.index, tenant, wanted, cut, now_s)
            unread = {cell_id: cell for cell_id, cell in sums.items() if cell_id not in wanted}
            if unread:
                wanted |= {cell_id: cell for cell_id, (cell, _) in unread.items()}
                return None
            differences = []
            for cell, spent in zip(chunk, cut.spent_nano_usd, strict=True):
                truth = sums[cell.id][1] if cell.id in sums else 0
                changes.append(Applied(cell, spent, truth))
                differences.append(Charge(cell, truth - spent, snapshot.index.idle_ms(tenant, cell)))
            last = number == len(chunks)
            families = [family.id for family in snapshot.index.families(tenant)] if last else []
            if not await self._store.adjust(tenant, cut, differences, families, ready=last):
                return None
        return len(cells), changes

    async def _ledger_sums(
        self, index: BudgetIndex, tenant: str, wanted: Mapping[str, Cell], cut: Cut, now_s: float
    ) -> dict[str, tuple[Cell, int]]:
        """What the ledger says each living counter should show at the cut."""
        sums: dict[str, tuple[Cell, int]] = {}
        start = await self._scan_start(index, tenant, wanted.values(), now_s)
        if start is None:
            return sums
        end = datetime.now(UTC) + timedelta(hours=2)
        amounts: dict[str, int] = defaultdict(int)
        cells: dict[str, Cell] = {}
        last_used_s: dict[str, float] = {}
        async for charge in self._ledger.charges(tenant, start, end, cut.marks):
            if not charge.charge_nano_usd:
                continue
            at_s = charge.time_utc.timestamp()
            for cell in charged_cells(index, tenant, charge):
                if cell.id in wanted or _is_alive(index, tenant, cell, now_s):
                    cells[cell.id] = cell
                    amounts[cell.id] += charge.charge_nano_usd
                    last_used_s[cell.id] = max(at_s, last_used_s.get(cell.id, at_s))

        def is_kept(cell: Cell) -> bool:
            """Not a client-asserted counter forgotten for its silence: invented keys would come back for ever."""
            silence_ms = index.idle_ms(tenant, cell)
            return cell.id in wanted or not silence_ms or (now_s - last_used_s[cell.id]) * 1000 < silence_ms

        return {cell_id: (cell, amounts[cell_id]) for cell_id, cell in cells.items() if is_kept(cell)}

    async def _scan_start(
        self, index: BudgetIndex, tenant: str, cells: Iterable[Cell], now_s: float
    ) -> datetime | None:
        """The first instant whose rows any living counter counts; None when the ledger is empty."""
        earliest = await self._ledger.earliest_hour()
        if earliest is None:
            return None
        starts = [cell.period.start_s for cell in cells]
        for family in index.families(tenant):
            current = period_at(family.period, family.zone, now_s)
            before = previous_period(current)
            starts.append((before or current).start_s)
        return max(earliest, datetime.fromtimestamp(min(starts, default=now_s), UTC))


def why_reconcile(state: TenantState, snapshot: Snapshot, tenant: str) -> str | None:
    """Why the tenant needs a reconciliation now, or None."""
    if not state.generation:
        return "counters are empty"
    if not state.ready:
        return "counters are not ready"
    if state.dirty:
        return "counters are dirty"
    # Workers on the old configuration do not charge a new family yet; seeding it before they do would lose their part.
    if _every_worker_has(snapshot) and _unseeded(state, snapshot, tenant):
        return "new budgets are to be seeded"
    return None


def _unseeded(state: TenantState, snapshot: Snapshot, tenant: str) -> set[str]:
    """Families that budgets need and the ledger has not been consulted for."""
    return {family.id for family in snapshot.index.families(tenant)} - state.families


def _every_worker_has(snapshot: Snapshot) -> bool:
    """Whether the configuration is old enough for every worker to have loaded it."""
    loaded_at = snapshot.config.loaded_at_utc
    return loaded_at is None or (datetime.now(UTC) - loaded_at).total_seconds() >= _EVERY_WORKER_HAS_CONFIG_SECONDS


def _is_alive(index: BudgetIndex, tenant: str, cell: Cell, now_s: float) -> bool:
    """Whether a counter must exist: its period is open, or it is the one before and a rollover budget reads it."""
    if cell.period.contains(now_s):
        return True
    if not any(budget.rollover for budget in index.of_cell(tenant, cell)):
        return False
    before = previous_period(period_at(cell.family.period, cell.family.zone, now_s))
    return before is not None and before.start_s == cell.period.start_s
