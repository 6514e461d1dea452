"""Repair: rebuild counters that vanished and reconcile counters that drifted, while traffic goes on.

Always by a cut: read counters and marks at one instant, sum the ledger at or before those marks, add the difference if
nothing has moved under it. Setting counters, or adding without a cut, loses or doubles what settles meanwhile.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

from shared.budgets.cells import Cell, cell_at
from shared.budgets.matching import BudgetIndex, limit_nano_usd
from shared.budgets.periods import period_at, previous_period
from shared.budgets.plan import carry_field
from shared.budgets.snapshot import Snapshot
from shared.budgets.store import BudgetStore, Charge, Cut, TenantState
from shared.ledger.row import Position
from shared.ledger.settlement import Applied, TenantSettler, granted_cells, idle_ms
from shared.money import decimal_from_nano
from shared.notify.recreated_hub import notice_recreated_hub
from shared.notify.thresholds import crossed_thresholds

log = logging.getLogger("tollkeeper.repair")

_ATTEMPTS = 20
_CELLS_PER_CUT = 5_000  # one script reads them at one instant, and blocks the tenant's slot while it does
_EVERY_WORKER_HAS_CONFIG_SECONDS = 60
_MARKS_LOST = "marks went back"


class LedgerCharge(Protocol):
    """What the ledger says of one row, or of one rolled-up quarter-hour."""

    @property
    def scopes(self) -> Mapping[str, str]: ...
    @property
    def model(self) -> str: ...
    @property
    def time_utc(self) -> datetime: ...
    @property
    def charge_nano_usd(self) -> int: ...
    @property
    def cell(self) -> str | None: ...


class Ledger(Protocol):
    """What repair needs of the ledger."""

    def charges(
        self, tenant: str, start_utc: datetime, end_utc: datetime, marks: Mapping[str, Position] | None
    ) -> AsyncIterator[LedgerCharge]: ...
    async def high_positions(self, tenant: str) -> Mapping[str, Position]: ...
    async def earliest_hour(self) -> datetime | None: ...


class StateStore(Protocol):
    """What repair needs of the processing state."""

    async def progress(self) -> dict[str, Position]: ...
    async def dirty_tenants(self) -> dict[str, str]: ...
    async def clear_dirty(self, tenant: str, version: str) -> None: ...


class OutboxStore(Protocol):
    """What repair needs of the notification outbox."""

    async def add_once(self, key: str, kind: str, payload: dict[str, Any]) -> bool: ...


class HubPartition(Protocol):
    """The end of one hub partition."""

    @property
    def partition(self) -> str: ...
    @property
    def last_sequence(self) -> int: ...
    @property
    def last_enqueued_ms(self) -> int: ...
    @property
    def empty(self) -> bool: ...


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


class RepairService:
    """Runs on a timer; also on demand. Several at once are harmless: a fence lets only one adjustment through."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        store: BudgetStore,
        ledger: Ledger,
        settler: TenantSettler,
        state: StateStore,
        outbox: OutboxStore,
        partitions: Callable[[], Awaitable[Sequence[HubPartition]]],
        hub: str,
    ) -> None:
        self._snapshot = snapshot
        self._store = store
        self._ledger = ledger
        self._settler = settler
        self._state = state
        self._outbox = outbox
        self._partitions = partitions
        self._hub = hub
        self._expired_seen: dict[str, int] = {}
        self._marks_seen: dict[str, dict[str, Position]] = {}
        self._policy_known = False

    async def run(self) -> list[RepairReport]:
        """One look at every tenant; repairs those that need it.

        What fails for one tenant, or because the hub does not answer, keeps no other from being repaired; it is raised
        in the end, several errors as an ExceptionGroup.
        """
        snapshot = self._snapshot()
        reports: list[RepairReport] = []
        failed: list[Exception] = []
        if not self._policy_known:
            await self._alert_eviction()
        durable = await self._state.dirty_tenants()
        watermark_ms = None
        try:
            watermark_ms = await self._watermark_ms()
        except Exception as error:
            log.exception("watermark_unknown")
            failed.append(error)
        for tenant in snapshot.config.tenants:
            try:
                reports += await self._look_after(snapshot, tenant, durable.get(tenant), watermark_ms)
            except Exception as error:
                log.exception("repair_failed", extra={"tenant": tenant})
                failed.append(error)
                if isinstance(error, TimeoutError):  # of the store; the others would wait as long, one after the other
                    break
        if failed:
            raise failed[0] if len(failed) == 1 else ExceptionGroup("repair was incomplete", failed)
        return reports

    async def _look_after(
        self, snapshot: Snapshot, tenant: str, marked: str | None, watermark_ms: int | None
    ) -> list[RepairReport]:
        state = await self._store.state(tenant)
        marks = (await self._store.cut(tenant, [])).marks
        reports = []
        if reason := "marked dirty" if marked else _why(state, snapshot, tenant) or self._marks_lost(tenant, marks):
            reports.append(await self.reconcile(tenant, reason))
            if marked:
                await self._state.clear_dirty(tenant, marked)
        self._marks_seen[tenant] = marks
        # Nothing is charged for a family whose last budget is gone. Should one come back, it must be seeded again.
        gone = state.families - {family.id for family in snapshot.index.families(tenant)}
        if gone:
            await self._store.forget_families(tenant, gone)
        if watermark_ms is not None:
            await self._store.set_watermark(tenant, watermark_ms)
        await self._alert_expired_holds(tenant, state)
        await self._carry_over(snapshot, tenant)
        return reports

    async def reconcile_all(self) -> list[RepairReport]:
        """Compare every tenant's counters with its ledger, however well they look; drift is logged, noticed and mended.

        What fails for one tenant keeps no other from its turn; the first error is raised in the end.
        """
        reports: list[RepairReport] = []
        failed: list[Exception] = []
        for tenant in self._snapshot().config.tenants:
            try:
                reports.append(await self.reconcile(tenant))
            except Exception as error:
                log.exception("reconcile_failed", extra={"tenant": tenant})
                failed.append(error)
        if failed:
            raise failed[0]
        return reports

    async def reconcile(self, tenant: str, reason: str = "scheduled") -> RepairReport:
        """Make the tenant's counters equal to its ledger, and say by how much they were off.

        Raises RuntimeError when they kept moving for all attempts; nothing is lost then, the next run tries again.
        """
        started = time.monotonic()
        snapshot = self._snapshot()
        before = await self._store.state(tenant)
        if not before.ready or reason == _MARKS_LOST:
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
            for notice in crossed_thresholds(snapshot.index, tenant, applied):
                await self._outbox.add_once(notice.key, "threshold", notice.payload)
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
        elif reason != "scheduled":
            log.warning("counters_reconciled", extra=report.as_json())
        return report

    def _marks_lost(self, tenant: str, marks: Mapping[str, Position]) -> str | None:
        """Whether a mark is behind where it was: a failover lost the newest writes, and a quiet tenant's next event,
        which would tell, may be long in coming."""
        for stream, seen in self._marks_seen.get(tenant, {}).items():
            if stream not in marks or not seen.at_or_before(marks[stream]):
                log.error("redis_lost_marks", extra={"tenant": tenant, "stream": stream})
                return _MARKS_LOST
        return None

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
                differences.append(Charge(cell, truth - spent, idle_ms(snapshot.index, tenant, cell)))
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
            for cell in _cells_of_charge(index, tenant, charge):
                if cell.id in wanted or _is_alive(index, tenant, cell, now_s):
                    cells[cell.id] = cell
                    amounts[cell.id] += charge.charge_nano_usd
                    last_used_s[cell.id] = max(at_s, last_used_s.get(cell.id, at_s))

        def is_kept(cell: Cell) -> bool:
            """Not a client-asserted counter forgotten for its silence: invented keys would come back for ever."""
            silence_ms = idle_ms(index, tenant, cell)
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

    async def _watermark_ms(self) -> int | None:
        """The instant up to which every event on the hub has been processed; None when it cannot be told."""
        now_ms = await self._store.now_ms()
        progress = await self._state.progress()
        behind = []
        for end in await self._partitions():
            suffix = f"/{self._hub}/{end.partition}"
            reached = max(
                (position for stream, position in progress.items() if stream.endswith(suffix)),
                key=lambda position: position.enqueued_ms,
                default=None,
            )
            if end.empty:
                continue
            if reached is None:
                return None
            last = Position(reached.stream, end.last_enqueued_ms, end.last_sequence)
            await notice_recreated_hub(self._outbox, reached, last)
            if not last.at_or_before(reached):
                behind.append(reached.enqueued_ms)
        return min(behind, default=now_ms)

    async def _alert_eviction(self) -> None:
        """Alert once when Redis would evict under pressure: what it forgets looks like a budget nobody has used."""
        policy = await self._store.eviction_policy()
        self._policy_known = True
        if policy not in ("", "noeviction"):
            log.error("redis_evicts", extra={"policy": policy})
            await self._outbox.add_once(f"redis_evicts|{policy}", "redis_evicts", {"policy": policy})

    async def _alert_expired_holds(self, tenant: str, state: TenantState) -> None:
        """Count holds that expired without a usage event: calls that crashed, or events that were lost."""
        seen = self._expired_seen.get(tenant, 0)
        self._expired_seen[tenant] = state.expired_holds
        if state.expired_holds > seen:
            new = state.expired_holds - seen
            log.warning("holds_expired_unsettled", extra={"tenant": tenant, "holds": new})
            key = f"expired|{tenant}|{state.generation}|{state.expired_holds}"
            await self._outbox.add_once(key, "holds_expired", {"tenant": tenant, "holds": new})

    async def _carry_over(self, snapshot: Snapshot, tenant: str) -> None:
        """Write what each rollover budget carries into its current period.

        carry = limit + previous carry - previous spend, between 0 and the cap; recomputed at each run, because late
        events still change the previous period. A scope without a counter in the previous period carries nothing.
        """
        if not any(budget.rollover for budget in snapshot.config.budgets if budget.tenant in (None, tenant)):
            return
        now_s = time.time()
        for cell in await self._store.cells(tenant, int(now_s * 1000)):
            if not cell.period.start_s <= now_s < cell.period.end_s:
                continue
            for budget in snapshot.index.of_cell(tenant, cell):
                before = previous_period(cell.period)
                if not budget.rollover or before is None:
                    continue
                old = cell_at(cell.family, cell.scope_key, before)
                spent, _, carries = await self._store.figures(tenant, old)
                known = await self._store.exists(tenant, old)
                limit = limit_nano_usd(budget, before.start_s, snapshot.config)
                cap = budget.rollover_cap_nano if budget.rollover_cap_nano is not None else limit
                carry = max(0, min(cap, limit + carries.get(carry_field(budget), 0) - spent)) if known else 0
                asserted = idle_ms(snapshot.index, tenant, cell) > 0
                await self._store.set_carry(tenant, cell, carry_field(budget), carry, asserted=asserted)


def _why(state: TenantState, snapshot: Snapshot, tenant: str) -> str | None:
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


def _cells_of_charge(index: BudgetIndex, tenant: str, charge: LedgerCharge) -> Sequence[Cell]:
    if charge.cell is not None:
        return granted_cells(charge.cell)
    return index.cells_of_call(tenant, charge.scopes, charge.model, charge.time_utc.timestamp())


def _is_alive(index: BudgetIndex, tenant: str, cell: Cell, now_s: float) -> bool:
    """Whether a counter must exist: its period is open, or it is the one before and a rollover budget reads it."""
    if cell.period.start_s <= now_s < cell.period.end_s:
        return True
    if not any(budget.rollover for budget in index.of_cell(tenant, cell)):
        return False
    before = previous_period(period_at(cell.family.period, cell.family.zone, now_s))
    return before is not None and before.start_s == cell.period.start_s
