"""Repair: watches over every tenant's counters, and mends those that vanished, lost writes or were marked dirty."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from shared.budgets.rollover import carry_over
from shared.budgets.snapshot import Snapshot
from shared.budgets.store import BudgetStore, TenantState
from shared.ledger.reconcile import MARKS_LOST, SCHEDULED, Reconciler, RepairReport, why_reconcile
from shared.ledger.row import Position
from shared.ledger.state import ProcessingState
from shared.ledger.watermark import find_watermark_ms
from shared.notify.outbox import Outbox
from shared.usage.hub import PartitionState

log = logging.getLogger("tollkeeper.repair")

_LAG_EVERY_MS = 60_000  # the timer runs six times as often, for the holds' sake


class RepairService:
    """Runs on a timer; also on demand. Several at once are harmless."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        store: BudgetStore,
        reconciler: Reconciler,
        state: ProcessingState,
        outbox: Outbox,
        partitions: Callable[[], Awaitable[Sequence[PartitionState]]],
        hub: str,
    ) -> None:
        self._snapshot = snapshot
        self._store = store
        self._state = state
        self._outbox = outbox
        self._partitions = partitions
        self._hub = hub
        self._reconciler = reconciler
        self._expired_seen: dict[str, int] = {}
        self._marks_seen: dict[str, dict[str, Position]] = {}
        self._policy_known = False
        self._lag_logged_ms = 0

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
        _raise_all(failed)
        return reports

    async def _look_after(
        self, snapshot: Snapshot, tenant: str, marked: str | None, watermark_ms: int | None
    ) -> list[RepairReport]:
        state = await self._store.state(tenant)
        marks = (await self._store.cut(tenant, [])).marks
        reports = []
        reason = "marked dirty" if marked else why_reconcile(state, snapshot, tenant)
        if reason := reason or self._marks_lost(tenant, marks):
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
        await carry_over(self._store, snapshot, tenant)
        return reports

    async def reconcile_all(self) -> list[RepairReport]:
        """Compare every tenant's counters with its ledger, however well they look; drift is logged, noticed and mended.

        What fails for one tenant keeps no other from its turn; it is raised in the end, several errors as an
        ExceptionGroup.
        """
        reports: list[RepairReport] = []
        failed: list[Exception] = []
        for tenant in self._snapshot().config.tenants:
            try:
                reports.append(await self.reconcile(tenant))
            except Exception as error:
                log.exception("reconcile_failed", extra={"tenant": tenant})
                failed.append(error)
        _raise_all(failed)
        return reports

    async def reconcile(self, tenant: str, reason: str = SCHEDULED) -> RepairReport:
        """See Reconciler.run."""
        return await self._reconciler.run(tenant, reason)

    def _marks_lost(self, tenant: str, marks: Mapping[str, Position]) -> str | None:
        """Whether a mark is behind where it was: a failover lost the newest writes, and a quiet tenant's next event,
        which would tell, may be long in coming."""
        for stream, seen in self._marks_seen.get(tenant, {}).items():
            if stream not in marks or not seen.at_or_before(marks[stream]):
                log.error("redis_lost_marks", extra={"tenant": tenant, "stream": stream})
                return MARKS_LOST
        return None

    async def _watermark_ms(self) -> int | None:
        now_ms = await self._store.now_ms()
        progress = await self._state.progress()  # before the ends are read: what is enqueued in between is behind
        watermark_ms = await find_watermark_ms(self._hub, await self._partitions(), progress, now_ms, self._outbox)
        if watermark_ms is not None and now_ms - self._lag_logged_ms >= _LAG_EVERY_MS:
            log.info("ingest_lag", extra={"lag_seconds": (now_ms - watermark_ms) / 1000})
            self._lag_logged_ms = now_ms
        return watermark_ms

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


def _raise_all(failed: Sequence[Exception]) -> None:
    if failed:
        raise failed[0] if len(failed) == 1 else ExceptionGroup("repair was incomplete", failed)
