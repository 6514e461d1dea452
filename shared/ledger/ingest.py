"""Ingest: a batch from one hub partition becomes ledger rows, then counters, then notifications, in this order.

The host moves its checkpoint even when we raise, so a run may only return when every event is in the ledger or the
dead-letter store and its tenant is settled, or durably marked for reconciliation; otherwise it raises and is retried.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from shared.budgets.redis_errors import is_passing, is_refusal
from shared.budgets.reservation import Reservation, ReservationSigner
from shared.budgets.snapshot import Snapshot
from shared.ledger.adjusting import Adjuster, Pairs
from shared.ledger.adjustments import AdjustingEvent
from shared.ledger.attribution import attribute
from shared.ledger.billed import billed
from shared.ledger.deadletters import DeadLetters
from shared.ledger.delivery import Delivery
from shared.ledger.inserted import Inserted
from shared.ledger.rating import correction_row, grant_row, is_cut_short, read_reservation, usage_row
from shared.ledger.recreated_hub import notice_recreated_hub
from shared.ledger.refusals import refusal_row
from shared.ledger.row import LedgerRow, Position
from shared.ledger.settlement import Entry, TenantSettler
from shared.ledger.state import ProcessingState
from shared.ledger.streams_store import StreamCall
from shared.notify.outbox import Outbox
from shared.notify.thresholds import add_crossed
from shared.pseudonyms import NO_PSEUDONYMS, Pseudonyms
from shared.usage.correcting_events import CorrectionEvent, ReRateEvent
from shared.usage.events import GrantEvent, TrueUpEvent, UsageEvent, decode_event
from shared.usage.refusal_events import RefusalEvent
from shared.usage.rejected import EventRejected

log = logging.getLogger("tollkeeper.ingest")

OwnRowEvent = UsageEvent | GrantEvent | CorrectionEvent | RefusalEvent  # the others change what is there already


class IngestReport(NamedTuple):
    """What became of a batch."""

    inserted: int
    redelivered: int
    duplicates: int
    dead_letters: int
    unpriced: int


class Ledger(Protocol):
    """What ingest needs of the ledger; the benchmark measures it over one without I/O."""

    @property
    def pairs(self) -> Pairs: ...
    async def insert(self, rows: Sequence[LedgerRow]) -> Sequence[Inserted]: ...


class Streams(Protocol):
    """What ingest needs of the streams: who waits there to be measured."""

    async def accrued(self, calls: Sequence[StreamCall]) -> None: ...


class _Decoded(NamedTuple):
    row: LedgerRow
    held: Reservation | None
    delivery: Delivery
    cut_short: bool = False
    event: UsageEvent | None = None  # None: no call of its own, as grants, reversals and true-ups


class _Batch(NamedTuple):
    """What a batch says, by what is to be done with it."""

    decoded: list[_Decoded]  # rows of their own
    adjusting: list[tuple[Delivery, AdjustingEvent]]  # to calls that are in the ledger
    rejected: list[tuple[Delivery, EventRejected]]


class IngestService:
    """Takes deliveries; safe to run twice on the same ones, in any order, killed at any point."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        ledger: Ledger,
        settler: TenantSettler,
        signer: ReservationSigner,
        dead_letters: DeadLetters,
        outbox: Outbox,
        state: ProcessingState,
        streams: Streams,
        *,
        default_output_tokens: int,
        refresh_config: Callable[[], Awaitable[object]] | None = None,
        pseudonyms: Pseudonyms = NO_PSEUDONYMS,
        on_billed: Callable[[Sequence[LedgerRow]], None] = lambda rows: None,
    ) -> None:
        self._snapshot = snapshot
        self._ledger = ledger
        self._settler = settler
        self._signer = signer
        self._dead_letters = dead_letters
        self._outbox = outbox
        self._state = state
        self._accruals = streams
        self._on_billed = on_billed  # telemetry: takes rows this run inserted, never waits, never raises
        self._default_output_tokens = default_output_tokens
        self._pseudonyms = pseudonyms
        self._adjuster = Adjuster(ledger.pairs, snapshot, refresh_config)
        self._streams: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._progress: dict[str, Position] | None = None

    async def run(self, deliveries: Sequence[Delivery]) -> IngestReport:
        """Process one batch. Raises whatever kept it from being durably done; run it again then."""
        by_stream: dict[str, list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            by_stream[delivery.position.stream].append(delivery)
        reports = [await self._run_stream(stream, batch) for stream, batch in by_stream.items()]
        return (
            IngestReport(*(sum(counts) for counts in zip(*reports, strict=True)))
            if reports
            else IngestReport(0, 0, 0, 0, 0)
        )

    async def _run_stream(self, stream: str, deliveries: Sequence[Delivery]) -> IngestReport:
        async with self._streams[stream]:  # settlement compares with one mark per stream: one batch at a time
            settled = await self._settled_until(stream)
            await notice_recreated_hub(self._outbox, settled, deliveries[0].position)
            snapshot = self._snapshot()
            decoded, adjusting, rejected = self._decode(snapshot, deliveries)
            results = list(await self._ledger.insert([item.row for item in decoded]))
            if adjusting:
                adjusted = await self._adjust(snapshot, adjusting, rejected)
                decoded, results = _in_hub_order(deliveries, [*zip(decoded, results, strict=True), *adjusted])
            entries: dict[str, list[Entry]] = defaultdict(list)
            accrued: list[StreamCall] = []
            new: list[tuple[LedgerRow, bool]] = []
            outcomes = {"new": 0, "redelivered": 0, "duplicate": 0, "conflict": 0}
            for item, result in zip(decoded, results, strict=True):
                outcomes[result.outcome] += 1
                if result.outcome == "conflict":
                    message = f"id: {item.row.source} {item.row.id} was seen before with other content"
                    if item.row.kind != "reversal":  # its true-up, of the same event, is refused as well
                        rejected.append((item.delivery, EventRejected(message, code="id_conflict", param="id")))
                    continue
                counts = result.outcome in ("new", "redelivered")
                position = item.delivery.position
                unsure = settled is None or not position.at_or_before(settled)
                fresh = result.outcome == "new"
                # The stored row says whose money it is: what a first delivery decided is not decided again by the
                # configuration of the second.
                tenant = result.row.tenant
                held = item.held if item.held is not None and item.held.tenant == tenant else None
                entries[tenant].append(Entry(position, result.row, counts, fresh, held, unsure, item.cut_short))
                if fresh:
                    new.append((result.row, held is not None))
                if result.row.kind == "accrual" and item.event is not None:
                    accrued.append(StreamCall.of(result.row, item.event))
            for record in billed(new, time.time_ns() // 1_000_000):  # at once: in a retry no row is new
                log.info("usage_billed", extra=record)
            self._on_billed([row for row, _ in new])
            for delivery, error in rejected:
                log.warning("dead_letter", extra={"code": error.code, "stream": stream})
                await self._dead_letters.put(error.code, error.message, delivery.body, delivery.position)
            unpriced = await self._alert_unpriced(item.row for item in decoded if item.row.kind != "reversal")
            for tenant, mine in entries.items():
                await self._settle(snapshot, tenant, mine)
            if accrued:
                await self._accruals.accrued(accrued)
            await self._record_progress(settled, deliveries[-1].position)
        return IngestReport(outcomes["new"], outcomes["redelivered"], outcomes["duplicate"], len(rejected), unpriced)

    def _decode(self, snapshot: Snapshot, deliveries: Sequence[Delivery]) -> _Batch:
        """The rows of the events that can be read, and the reasons for those that cannot."""
        now_utc = datetime.now(UTC)
        batch = _Batch([], [], [])
        for delivery in deliveries:
            try:
                event = decode_event(delivery.body, now_utc)
                if isinstance(event, TrueUpEvent | ReRateEvent):
                    batch.adjusting.append((delivery, event))
                else:
                    batch.decoded.append(self._row(snapshot, delivery, event))
            except EventRejected as error:
                batch.rejected.append((delivery, error))
        return batch

    def _row(self, snapshot: Snapshot, delivery: Delivery, event: OwnRowEvent) -> _Decoded:
        """The row of one event. Raises EventRejected."""
        if isinstance(event, GrantEvent):
            return _Decoded(grant_row(event, delivery.position, snapshot), None, delivery)
        if isinstance(event, CorrectionEvent):
            return _Decoded(correction_row(event, delivery.position, snapshot), None, delivery)
        if isinstance(event, RefusalEvent):
            return _Decoded(refusal_row(event, delivery.position, snapshot), None, delivery)
        attribute(event.data, snapshot)
        event.data.scopes = self._pseudonyms.scopes(event.data.scopes)
        held = read_reservation(event, self._signer)
        default = self._default_output_tokens
        row = usage_row(event, delivery.position, snapshot, held, default)
        return _Decoded(row, held, delivery, is_cut_short(event, row, snapshot, default), event)

    async def _adjust(
        self,
        snapshot: Snapshot,
        items: Sequence[tuple[Delivery, AdjustingEvent]],
        rejected: list[tuple[Delivery, EventRejected]],
    ) -> list[tuple[_Decoded, Inserted]]:
        """The rows that correct calls, as they are stored; what was refused is added to `rejected`."""
        found: list[tuple[_Decoded, Inserted]] = []
        for delivery, event, inserted, refused in await self._adjuster.run(items):
            if refused is not None:
                rejected.append((delivery, refused))
            if inserted is None:
                continue
            reversal, replacement = inserted
            cut_short = isinstance(event, TrueUpEvent) and is_cut_short(
                event, replacement.row, snapshot, self._default_output_tokens
            )
            found.append((_Decoded(reversal.row, None, delivery), reversal))
            found.append((_Decoded(replacement.row, None, delivery, cut_short), replacement))
        return found

    async def _settle(self, snapshot: Snapshot, tenant: str, entries: Sequence[Entry]) -> None:
        if tenant not in snapshot.config.tenants:  # of a stored row: it was billed, and its counters are away
            await self._state.mark_dirty(tenant, "its rows were delivered again while it was not configured")
            return
        try:
            applied = await self._settler.settle(snapshot.index, tenant, entries)
        except Exception as error:
            if not is_refusal(error) or is_passing(error):
                raise
            # The script refused this tenant's data and always will; retrying would block everyone on the partition.
            log.exception("settle_failed", extra={"tenant": tenant})
            await self._state.mark_dirty(tenant, str(error)[:500])
            return
        await add_crossed(self._outbox, snapshot.index, tenant, applied)

    async def _alert_unpriced(self, rows: Iterable[LedgerRow]) -> int:
        """One alert per tenant, model and day for usage without a price; returns how many rows had none."""
        unpriced: dict[tuple[str, str, str], LedgerRow] = {}
        count = 0
        for row in rows:
            if row.pricing_status == "unpriced":
                count += 1
                unpriced[row.tenant, row.provider, row.model] = row
        for (tenant, provider, model), row in unpriced.items():
            day = f"{row.time_utc:%Y-%m-%d}"
            log.error("unpriced_model", extra={"tenant": tenant, "provider": provider, "model": model})
            payload = {"tenant": tenant, "provider": provider, "model": model, "deployment": row.deployment, "day": day}
            await self._outbox.add_once(f"unpriced|{tenant}|{provider}|{model}|{day}", "unpriced_model", payload)
        return count

    async def _settled_until(self, stream: str) -> Position | None:
        """How far this stream is known to be settled. May be behind what other workers did, never ahead."""
        if self._progress is None:
            self._progress = await self._state.progress()
        return self._progress.get(stream)

    async def _record_progress(self, settled: Position | None, last: Position) -> None:
        """Remember how far we came. An owner that lags behind must not take back what another has done."""
        if settled is not None and last.at_or_before(settled):
            return
        await self._state.record_progress([last])
        if self._progress is not None:
            self._progress[last.stream] = last


def _in_hub_order(
    deliveries: Sequence[Delivery], items: Sequence[tuple[_Decoded, Inserted]]
) -> tuple[list[_Decoded], list[Inserted]]:
    """Settlement compares positions one after the other, so rows go there as their events came."""
    place = {id(delivery): index for index, delivery in enumerate(deliveries)}
    ordered = sorted(items, key=lambda item: place[id(item[0].delivery)])
    return [decoded for decoded, _ in ordered], [inserted for _, inserted in ordered]
