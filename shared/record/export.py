"""The nightly export: every settled day of the ledger goes into the archive, late rows of it into further parts."""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.errors import TollkeeperError
from shared.ledger.hours import HourIndex
from shared.ledger.keys import partitions_of
from shared.record.archive import Archive
from shared.record.manifest import (
    Manifest,
    RecordBroken,
    Sums,
    Written,
    blob_name,
    digest_of,
    encode,
    exported_hours,
    parts_of,
)
from shared.record.parquet import ROWS_AT_ONCE, PartWriter, read_keys

if TYPE_CHECKING:
    from azure.data.tables.aio import TableClient

log = logging.getLogger("tollkeeper.export")

SETTLE = timedelta(hours=1)  # after a day's end, above the wait of a rollup
_ATTEMPTS = 5
_Progress = Callable[[str, int], None]


class ExportOvertaken(TollkeeperError):
    """Another exporter was faster again and again. Running later is right."""

    code, http_status = "export_overtaken", 503


class _Overtaken(Exception):
    """Somebody else wrote the manifest that was ours to write."""


class ExportReport(NamedTuple):
    """What a run added, and the digest of the newest manifest."""

    parts: int
    rows: int
    waiting_days: int  # not settled yet: the next run takes them
    head: str


class LedgerExport:
    """Runs on a timer; several at once are harmless."""

    def __init__(self, ledger: TableClient, hours: HourIndex, periods: TableClient, archive: Archive) -> None:
        self._ledger = ledger
        self._hours = hours
        self._periods = periods
        self._archive = archive

    async def run(self, now_utc: datetime | None = None, progress: _Progress | None = None) -> ExportReport:
        """Export what is settled and not exported yet. Raises storage errors and RecordBroken; run it again then.

        `progress(day, rows)` is told of each part that was written.
        """
        now_utc = now_utc or datetime.now(UTC)
        parts = rows = 0

        def count(name: str, written: int) -> None:
            nonlocal parts, rows
            parts, rows = parts + 1, rows + written
            if progress is not None:
                progress(name, written)

        for _ in range(_ATTEMPTS):
            try:
                waiting, chain = await self._run(now_utc, count)
            except _Overtaken:
                continue
            report = ExportReport(parts, rows, waiting, chain[-1].digest if chain else "")
            log.info("ledger_exported", extra=report._asdict())
            return report
        raise ExportOvertaken(f"another exporter wrote the next manifest, {_ATTEMPTS} times")

    async def _run(self, now_utc: datetime, count: _Progress) -> tuple[int, list[Written]]:
        chain = await self._archive.chain()
        waiting = 0
        for day, hours in (await self._days(now_utc)).items():
            if any(generation is None for generation in hours.values()):
                waiting += 1
                continue
            known = exported_hours(chain, day)
            changed = {hour: gen for hour, gen in hours.items() if gen is not None and known.get(hour) != gen}
            if changed:
                chain.append(await self._export_day(chain, day, changed))
                count(day, chain[-1].manifest.sums.rows)
        written = await self._export_periods(chain)
        if written is not None:
            chain.append(written)
            count("periods", written.manifest.sums.rows)
        return waiting, chain

    async def _days(self, now_utc: datetime) -> dict[str, dict[str, str | None]]:
        """The days that are over, with the generation of each hour's rollup; None while rows of an hour may come."""
        end = (now_utc - SETTLE).astimezone(UTC).strftime("%Y%m%d00")
        days: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
        async for hour in self._hours.scan(end=end):
            day = f"{hour.key[:4]}-{hour.key[4:6]}-{hour.key[6:8]}"
            days[day][hour.key] = None if hour.dirty else hour.generation
        return days

    async def _export_day(self, chain: Sequence[Written], day: str, hours: Mapping[str, str]) -> Written:
        """Write the rows of these hours that no part of the day has. The index was read before the rows: what comes
        later changes its hour's generation, and so gets a part of its own."""
        earlier = parts_of(chain, "day", day)
        with tempfile.TemporaryDirectory(prefix="tollkeeper-export-") as folder:
            path = Path(folder) / "part.parquet"
            writer = await asyncio.to_thread(PartWriter, path)
            files = [await self._fetch(part, Path(folder)) for part in earlier if part.blob]
            known = _Known(heapq.merge(*map(read_keys, files)))
            batch: list[Mapping[str, Any]] = []
            async for entity in self._rows(sorted(hours)):
                if not known.has((entity["PartitionKey"], entity["RowKey"])):
                    batch.append(entity)
                if len(batch) == ROWS_AT_ONCE:
                    await asyncio.to_thread(writer.write, batch)
                    batch = []
            await asyncio.to_thread(writer.write, batch)
            await asyncio.to_thread(writer.close)
            number = len(earlier) + 1
            if not writer.sums.rows:
                return await self._seal(chain, "day", day, number, "", 0, "", writer.sums, hours)
            digest = await asyncio.to_thread(_digest, path)
            # The digest in the name: what a run that died had written in part does not stand in the way of other bytes.
            name = f"days/{day}/{number:04d}-{digest[:16]}.parquet"
            if not await self._archive.add(name, path):  # by a run that died before it wrote the manifest
                await self._archive.fetch(name, path)
                if await asyncio.to_thread(_digest, path) != digest:
                    raise RecordBroken(f"{name}: was altered: its name says another digest")
            return await self._seal(chain, "day", day, number, name, path.stat().st_size, digest, writer.sums, hours)

    async def _rows(self, hours: Sequence[str]) -> AsyncIterator[Mapping[str, Any]]:
        """In the order of their keys."""
        for hour in hours:
            for partition in partitions_of(hour):
                async for entity in self._ledger.query_entities(f"PartitionKey eq '{partition}'"):
                    yield entity

    async def _fetch(self, part: Manifest, folder: Path) -> Path:
        """A part on disk. Raises RecordBroken when it is not what its manifest says."""
        path = folder / f"{part.part:04d}.parquet"
        await self._archive.fetch(part.blob, path)
        check_part(part, path)
        return path

    async def _export_periods(self, chain: Sequence[Written]) -> Written | None:
        """The table of frozen months, when it is not as it was exported last."""
        rows = [dict(sorted(dict(entity).items())) async for entity in self._periods.list_entities()]
        if not rows:
            return None
        body = json.dumps(rows, default=list, ensure_ascii=False, indent=0).encode()
        digest = sha256(body).hexdigest()
        earlier = parts_of(chain, "table", "periods")
        if earlier and earlier[-1].sha256 == digest:
            return None
        name = f"tables/periods/{len(earlier) + 1:04d}-{digest[:16]}.json"
        await self._archive.add(name, body)
        sums = Sums(rows=len(rows))
        return await self._seal(chain, "table", "periods", len(earlier) + 1, name, len(body), digest, sums, {})

    async def _seal(
        self,
        chain: Sequence[Written],
        kind: Any,
        name: str,
        part: int,
        blob: str,
        size: int,
        digest: str,
        sums: Sums,
        hours: Mapping[str, str],
    ) -> Written:
        """Write the next manifest. Raises _Overtaken when another exporter has."""
        manifest = Manifest(
            number=len(chain) + 1,
            previous=chain[-1].digest if chain else "",
            written_at_utc=datetime.now(UTC),
            kind=kind,
            name=name,
            part=part,
            blob=blob,
            bytes=size,
            sha256=digest,
            sums=sums,
            hours=dict(hours),
        )
        body = encode(manifest)
        # Refused with 'it exists' after a reply was lost, our own manifest stands there; the chain read anew has it.
        if not await self._archive.add(blob_name(manifest.number), body):
            raise _Overtaken
        return Written(manifest, digest_of(body))


def check_part(part: Manifest, path: Path) -> None:
    """RecordBroken naming the part unless the file is byte for byte what the manifest says."""
    if path.stat().st_size != part.bytes or _digest(path) != part.sha256:
        raise RecordBroken(f"{part.blob}: was altered: it is not what {blob_name(part.number)} says")


class _Known:
    """Keys in order, asked for in order."""

    def __init__(self, keys: Iterator[tuple[str, str]]) -> None:
        self._keys = keys
        self._next = next(keys, None)

    def has(self, key: tuple[str, str]) -> bool:
        while self._next is not None and self._next < key:
            self._next = next(self._keys, None)
        return self._next == key


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
