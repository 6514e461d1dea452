"""Restore: the exported ledger goes back into empty tables, every part checked before a row of it is written.

Rollups and counters are rebuilt from it by the timers that always do that. Display names are not in the export.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.errors import TollkeeperError
from shared.ledger.codec import INT64, Entity
from shared.ledger.hours import HourIndex
from shared.ledger.insert import PartitionWriter
from shared.ledger.state import ProcessingState
from shared.ledger.tables import TRANSACTION_ROWS, Tables
from shared.record.archive import Archive
from shared.record.export import check_part
from shared.record.manifest import Manifest, RecordBroken, Sums, Written, blob_name, digest_of, parts_of
from shared.record.parquet import add, plain, read_rows

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

log = logging.getLogger("tollkeeper.restore")

REQUESTS_AT_ONCE = 16
_CHECKPOINT = {"PartitionKey": "restore", "RowKey": "checkpoint"}


class RestoreRefused(TollkeeperError):
    """The tables are not what a restore may write into."""

    code, http_status, kind = "restore_refused", 409, "invalid_request_error"


class RestoreProgress(NamedTuple):
    """How far a run is."""

    part: int
    parts: int
    rows: int  # restored by this run so far
    total_rows: int


class RestoreReport(NamedTuple):
    """What a run did."""

    parts: int
    rows: int  # written by this run
    present: int  # that were there already, and equal
    sums: Sums  # of the whole export
    tenants: tuple[str, ...]


class Restore:
    """Killed anywhere, it goes on where it was when it is run again."""

    def __init__(self, tables: Tables, hours: HourIndex, archive: Archive, state: ProcessingState) -> None:
        self._tables = tables
        self._hours = hours
        self._archive = archive
        self._state = state
        self._writer = PartitionWriter(tables.ledger, asyncio.Semaphore(REQUESTS_AT_ONCE))

    async def verify(self, progress: Callable[[RestoreProgress], None] | None = None) -> Sums:
        """Check every part against its manifest without writing anything. Raises RecordBroken."""
        total = Sums()
        parts = [part for part, _ in await self._chain() if part.blob]
        rows = sum(part.sums.rows for part in parts)
        for number, part in enumerate(parts, start=1):
            with tempfile.TemporaryDirectory(prefix="tollkeeper-restore-") as folder:
                await self._checked(part, Path(folder))
            if part.kind == "day":
                _add_sums(total, part.sums)
            if progress is not None:
                progress(RestoreProgress(number, len(parts), total.rows, rows))
        return total

    async def run(
        self, *, force: bool = False, progress: Callable[[RestoreProgress], None] | None = None
    ) -> RestoreReport:
        """Write the exported rows and frozen months into the tables.

        Refuses tables that hold rows, unless they are of a restore that was broken off, or with `force`: rows that are
        there must then be equal. Raises RestoreRefused, RecordBroken and storage errors.
        """
        chain = await self._chain()
        done = await self._begin(chain, force=force)
        parts = [part for part, _ in chain if part.kind == "day" and part.blob]
        total = Sums()
        for part in parts:
            _add_sums(total, part.sums)
        rows = present = 0
        tenants: set[str] = set()
        for number, part in enumerate(parts, start=1):
            if part.number <= done:
                continue
            with tempfile.TemporaryDirectory(prefix="tollkeeper-restore-") as folder:
                path = await self._checked(part, Path(folder))
                for batch in read_rows(path):
                    present += await self._insert(batch)
                    rows += len(batch)
                    tenants |= {entity["tenant"] for entity in batch}
                    if progress is not None:
                        progress(RestoreProgress(number, len(parts), rows, total.rows))
            await self._tables.state.upsert_entity(
                {**_CHECKPOINT, "done": part.number, "digest": chain[part.number - 1].digest}
            )
        await self._restore_periods(chain)
        for tenant in sorted(tenants):
            await self._state.mark_dirty(tenant, "the ledger was restored")
        report = RestoreReport(len(parts), rows - present, present, total, tuple(sorted(tenants)))
        log.info("ledger_restored", extra={"parts": report.parts, "rows": report.rows, "present": present})
        return report

    async def _chain(self) -> list[Written]:
        chain = await self._archive.chain()
        if not chain:
            raise RestoreRefused("the container holds no export")
        return chain

    async def _begin(self, chain: Sequence[Written], *, force: bool) -> int:
        """The number of the last manifest that is restored. Raises RestoreRefused."""
        checkpoint = await _first(self._tables.state, f"PartitionKey eq '{_CHECKPOINT['PartitionKey']}'")
        if checkpoint is None:
            if not force and await _first(self._tables.ledger, "PartitionKey ge ''") is not None:
                raise RestoreRefused("the ledger holds rows: restore into empty tables (another LEDGER_TABLE_PREFIX)")
            await self._tables.state.upsert_entity({**_CHECKPOINT, "done": 0, "digest": chain[0].digest})
            return 0
        done = int(checkpoint["done"])
        if len(chain) < done or chain[max(done - 1, 0)].digest != checkpoint["digest"]:
            raise RestoreRefused("the tables hold a restore of another export")
        return done

    async def _checked(self, part: Manifest, folder: Path) -> Path:
        """A part on disk, checked. Raises RecordBroken naming it."""
        path = folder / "part"
        await self._archive.fetch(part.blob, path)
        await asyncio.to_thread(check_part, part, path)
        if part.kind == "day":
            sums = await asyncio.to_thread(_sums_of, path)
            if sums != part.sums:
                raise RecordBroken(f"{part.blob}: its rows do not add up to what {blob_name(part.number)} says")
        return path

    async def _insert(self, batch: Sequence[Entity]) -> int:
        """Insert rows that are absent; returns how many were there. Raises RestoreRefused when one differs."""
        partitions: defaultdict[str, list[Entity]] = defaultdict(list)
        for entity in batch:
            partitions[entity["PartitionKey"]].append(entity)
        covered_until = await self._hours.mark({partition.partition("-")[0] for partition in partitions})
        chunks = [
            rows[start : start + TRANSACTION_ROWS]
            for rows in partitions.values()
            for start in range(0, len(rows), TRANSACTION_ROWS)
        ]
        async with asyncio.timeout(covered_until - time.monotonic()):
            existing = await asyncio.gather(*map(self._writer.insert, chunks))
        wanted = {(entity["PartitionKey"], entity["RowKey"]): entity for entity in batch}
        for each in existing:
            for found in each.values():
                key = found["PartitionKey"], found["RowKey"]
                if plain(found) != plain(wanted[key]):
                    raise RestoreRefused(f"row {key[0]} {key[1]} of the ledger is not as it was exported")
        return sum(map(len, existing))

    async def _restore_periods(self, chain: Sequence[Written]) -> None:
        for part in parts_of(chain, "table", "periods")[-1:]:
            body = await self._archive.read(part.blob)
            if digest_of(body) != part.sha256:
                raise RecordBroken(f"{part.blob}: was altered: it is not what {blob_name(part.number)} says")
            kept = {(row["PartitionKey"], row["RowKey"]) async for row in self._tables.periods.list_entities()}
            for row in json.loads(body):
                if (row["PartitionKey"], row["RowKey"]) not in kept:  # what is there may say more by now
                    entity = {name: (int(v[0]), INT64) if isinstance(v, list) else v for name, v in row.items()}
                    await self._tables.periods.upsert_entity(entity)


async def _first(table: TableClient, condition: str) -> Any:
    """The first row that a condition selects, None when there is none."""
    async for entity in table.query_entities(condition, results_per_page=1):
        return entity
    return None


def _sums_of(path: Path) -> Sums:
    sums = Sums()
    for batch in read_rows(path):
        add(sums, batch)
    return sums


def _add_sums(total: Sums, more: Sums) -> None:
    total.rows += more.rows
    total.cost_nano_usd += more.cost_nano_usd
    total.charge_nano_usd += more.charge_nano_usd
    total.unpriced += more.unpriced
