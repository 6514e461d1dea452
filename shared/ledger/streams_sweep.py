"""The sweep of streams: who waited long enough for the other half is counted, noticed and, a week later, forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from shared.ledger.inserted import RowRef
from shared.ledger.streams import Streams, new_matches
from shared.ledger.streams_store import BUCKET, Halves, Match, StreamCall, StreamTable
from shared.notify.outbox import Outbox

log = logging.getLogger("tollkeeper.streams")

KEPT = timedelta(days=7)  # a log record that comes later finds no call any more; no hub we use keeps messages longer
_AT_ONCE = 500


class SweepReport(NamedTuple):
    """What a sweep found. `unmeasured` and `aborted` by tenant; nobody knows whose the unreported are."""

    unmeasured: Counter[str]
    aborted: Counter[str]
    unreported: int
    published: int
    deleted: int


class StreamSweep:
    """Runs on a timer. Killed anywhere, the next run goes on; one that was counted is not counted again."""

    def __init__(
        self,
        table: StreamTable,
        streams: Streams,
        is_trued_up: Callable[[RowRef], Awaitable[bool]],
        outbox: Outbox,
        wait_minutes: int,
        on_unmeasured: Callable[[Sequence[RowRef]], Awaitable[None]] | None = None,
    ) -> None:
        """`on_unmeasured` is told of the calls that stay at their estimate, once unless a sweep is killed."""
        self._table = table
        self._streams = streams
        self._is_trued_up = is_trued_up
        self._outbox = outbox
        self._wait = timedelta(minutes=wait_minutes)
        self._on_unmeasured = on_unmeasured

    async def run(self, now_utc: datetime | None = None) -> SweepReport:
        """Look at everything whose wait is over; then delete what was looked at a week ago."""
        now_utc = now_utc or datetime.now(UTC)
        report = SweepReport(Counter(), Counter(), 0, 0, 0)
        # An entry holds what came during its five minutes, and is due when the last of it has waited.
        while due := await self._table.due("due", now_utc - self._wait - BUCKET, _AT_ONCE):
            report = await self._sweep(due, now_utc, report)
        while ended := await self._table.due("end", now_utc, _AT_ONCE):
            halves = await self._table.read(correlation_id for _, correlation_id in ended)
            old = [each for each in halves if each.newest_utc <= now_utc - KEPT]  # a later entry leads to the others
            await self._table.delete([key for each in old for key in each.keys])
            await self._table.delete([key for key, _ in ended])
            report = report._replace(deleted=report.deleted + len(old))
        if any((report.unmeasured, report.aborted, report.unreported, report.published)):
            log.info(
                "streams_swept",
                extra={
                    "unmeasured": report.unmeasured.total(),
                    "aborted": report.aborted.total(),
                    "unreported": report.unreported,
                    "published": report.published,
                },
            )
        return report

    async def _sweep(
        self, due: list[tuple[tuple[str, str], str]], now_utc: datetime, report: SweepReport
    ) -> SweepReport:
        unmeasured: Counter[str] = Counter()
        aborted: Counter[str] = Counter()
        counted: list[Halves] = []
        kept: list[str] = []
        forgotten: list[Halves] = []
        unreported = 0
        halves = await self._table.read(correlation_id for _, correlation_id in due)
        unpublished = [match for each in halves for match in _unpublished(each)]
        if unpublished:
            await self._streams.join({match.call.correlation_id for match in unpublished})
        waits = await asyncio.gather(*(self._unmeasured(each) for each in halves))
        for each, waiting in zip(halves, waits, strict=True):
            if each.calls:
                kept.append(each.correlation_id)
                if waiting:
                    for call in waiting:
                        (aborted if each.aborted or call.aborted else unmeasured)[call.tenant] += 1
                    counted.append(each)
            elif each.logged and each.streamed:
                kept.append(each.correlation_id)
                if not each.swept:
                    unreported += 1
                    counted.append(each)
            else:  # an answer that was not streamed, whose usage the gateway reported by itself, or a stranger's abort
                forgotten.append(each)
        await self._notice(unmeasured, aborted, unreported, now_utc)
        if self._on_unmeasured is not None and (calls := [call.ref for waiting in waits for call in waiting]):
            await self._on_unmeasured(calls)
        await self._table.mark_swept(counted)
        await self._table.keep_until(kept, now_utc + KEPT)
        await self._table.delete([key for each in forgotten for key in each.keys])
        await self._table.delete([key for key, _ in due])
        return SweepReport(
            report.unmeasured + unmeasured,
            report.aborted + aborted,
            report.unreported + unreported,
            report.published + len(unpublished),
            report.deleted,
        )

    async def _unmeasured(self, halves: Halves) -> list[StreamCall]:
        """The calls that no log record measured, unless they were counted before. The ledger has the last word: a
        trigger that starts from the hub's beginning brings calls again whose true-up was made and forgotten here.
        """
        if halves.swept:
            return []
        matched = {match.call.ref for match in (*halves.matches.values(), *new_matches(halves))}
        rest = [call for call in halves.calls if call.ref not in matched]
        return [call for call in rest if not await self._is_trued_up(call.ref)]

    async def _notice(
        self, unmeasured: Counter[str], aborted: Counter[str], unreported: int, now_utc: datetime
    ) -> None:
        """One notice per tenant and day, one per day for those that nobody reported; every sweep is logged."""
        day = f"{now_utc:%Y-%m-%d}"
        for tenant in sorted({*unmeasured, *aborted}):
            counts = {"tenant": tenant, "unmeasured": unmeasured[tenant], "aborted": aborted[tenant]}
            log.warning("streams_unmeasured", extra=counts)
            key = f"streams_unmeasured|{tenant}|{day}"
            await self._outbox.add_once(key, "streams_unmeasured", {**counts, "day": day})
        if unreported:
            log.error("streams_unreported", extra={"unreported": unreported})
            payload = {"unreported": unreported, "day": day}
            await self._outbox.add_once(f"streams_unreported|{day}", "streams_unreported", payload)


def _unpublished(halves: Halves) -> list[Match]:
    """True-ups that could be on the hub and are not: whoever was to publish them died and did not come again."""
    return [match for match in halves.matches.values() if not match.published] + new_matches(halves)
