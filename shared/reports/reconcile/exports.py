"""Cost exports as Cost Management writes them: runs with a manifest.json and partitions beside it.

Layout and fields of the manifest (version 2024-04-01) are those of
learn.microsoft.com/azure/cost-management-billing/costs/tutorial-improved-exports#manifest-file. Each daily run holds
the month so far, in a folder of its own, so of every scope the newest run counts and no other.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec

from shared.reports.reconcile.invoice import COLUMNS, InvoiceRow, NotFocusError, reader

DATASET = "FocusCost"
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
_MANIFEST_NAMES = ("manifest.json", "_manifest.json")
_BATCH_ROWS = 10_000
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_EXPORT = "/providers/microsoft.costmanagement/"


class Files(Protocol):
    """Where exports lie."""

    def names(self, prefix: str) -> AsyncIterator[tuple[str, datetime]]: ...

    async def get(self, name: str) -> tuple[bytes, str] | None: ...

    async def chunks(self, name: str) -> AsyncIterator[bytes] | None: ...


class _Blob(msgspec.Struct, rename="camel"):
    blob_name: str
    byte_count: int | None = None
    data_row_count: int | None = None


class _ExportConfig(msgspec.Struct, rename="camel"):
    export_name: str = ""
    resource_id: str = ""
    data_version: str = ""
    type: str = ""


class _RunInfo(msgspec.Struct, rename="camel"):
    submitted_time: str = ""
    start_date: str = ""
    end_date: str = ""


class _Manifest(msgspec.Struct, rename="camel"):
    export_config: _ExportConfig
    run_info: _RunInfo
    blobs: list[_Blob]
    blob_count: int | None = None
    data_row_count: int | None = None


class Run(msgspec.Struct, frozen=True):
    """One complete or incomplete export of a scope. `last_day` is the last day that it says to hold."""

    manifest: str  # name of its blob
    export: str
    scope: str  # ARM id of what was exported, in lower case
    version: str
    submitted_utc: datetime
    first_day: date
    last_day: date
    parts: tuple[tuple[str, int | None, int | None], ...]  # name, bytes, rows
    rows: int | None


class Chosen(msgspec.Struct, frozen=True):
    """The runs to read, and in sentences what was left out or is wrong."""

    runs: tuple[Run, ...]
    notes: tuple[str, ...]


_decode = msgspec.json.Decoder(_Manifest).decode


async def find_runs(files: Files, folder: str, first_day: date, last_day: date) -> Chosen:
    """The newest run of each scope that holds days of the span. `folder`: where exports lie, empty for anywhere."""
    newest: dict[str, Run] = {}
    notes: list[str] = []
    async for name, _ in files.names(f"{folder.strip('/')}/" if folder.strip("/") else ""):
        if name.rsplit("/", 1)[-1] not in _MANIFEST_NAMES:
            continue
        found = await files.get(name)
        run = None if found is None else _run(name, found[0], notes)
        if run is None or run.last_day < first_day or run.first_day > last_day:
            continue
        known = newest.get(run.scope)
        if known is None or known.submitted_utc < run.submitted_utc:
            newest[run.scope] = run
    return Chosen(*_outermost(newest.values(), notes))


def _outermost(found: Any, notes: list[str]) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """Without exports of what another export holds too: a resource group's rows are in its subscription's export."""
    runs: list[Run] = []
    for run in sorted(found, key=lambda each: (len(each.scope), each.scope)):
        outer = next((each for each in runs if run.scope.startswith(f"{each.scope}/") or not each.scope), None)
        if outer is None:
            runs.append(run)
        else:
            notes.append(f"export {run.export} is left out: export {outer.export} holds its scope {run.scope} too")
    return tuple(runs), tuple(notes)


def _run(name: str, body: bytes, notes: list[str]) -> Run | None:
    if len(body) > MAX_MANIFEST_BYTES:
        notes.append(f"{name}: is larger than a manifest can be")
        return None
    try:
        manifest = _decode(body)
        info = manifest.run_info
        submitted, start, end = (_instant(text) for text in (info.submitted_time, info.start_date, info.end_date))
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        notes.append(f"{name}: is no manifest of an export: {str(error)[:200]}")
        return None
    config = manifest.export_config
    if config.type != DATASET:
        notes.append(f"{name}: is of dataset {config.type[:40]!r}, not {DATASET}")
        return None
    scope = config.resource_id.lower().rstrip("/")
    parts: dict[str, tuple[str, int | None, int | None]] = {}
    for blob in manifest.blobs:  # one listed twice is one
        part = blob.blob_name.strip().lstrip("/")
        parts[part] = (part, blob.byte_count, blob.data_row_count)
    if manifest.blob_count is not None and manifest.blob_count != len(parts):
        notes.append(f"{name}: lists {len(parts)} partitions and says it has {manifest.blob_count}")
    return Run(
        manifest=name,
        export=config.export_name or name,
        scope=scope[: scope.find(_EXPORT)] if _EXPORT in scope else scope,
        version=config.data_version,
        submitted_utc=submitted,
        first_day=start.date(),
        last_day=end.date(),
        parts=tuple(parts.values()),
        rows=manifest.data_row_count,
    )


def _instant(text: str) -> datetime:
    """Manifests write instants with and without a zone, and with seven decimals of a second."""
    instant = datetime.fromisoformat(text)
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


async def read_run(files: Files, run: Run, take: Callable[[InvoiceRow], None]) -> list[str]:
    """Hand over every row of a run; returns in sentences what is missing or unreadable, nothing when all is there.

    A partition goes to disk first and is read from there row by row: memory does not grow with the export.
    """
    problems: list[str] = []
    total = 0
    for name, size, rows in run.parts:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "part")
            written = await _download(files, name, run, path)
            if written is None:
                problems.append(f"{name}: is in the manifest and not in the container")
                continue
            if size is not None and written != size:
                problems.append(f"{name}: has {written} bytes, the manifest says {size}")
            try:
                read = await asyncio.to_thread(_read_part, path, take)
            except (NotFocusError, OSError, EOFError, ValueError, csv.Error) as error:
                problems.append(f"{name}: cannot be read to its end: {str(error)[:300]}")
                continue
            total += read
            if rows is not None and read != rows:
                problems.append(f"{name}: has {read} rows, the manifest says {rows}")
    if run.rows is not None and total != run.rows and not problems:
        problems.append(f"{run.manifest}: {total} rows were read, the manifest says {run.rows}")
    return problems


async def _download(files: Files, name: str, run: Run, path: Path) -> int | None:
    chunks = await files.chunks(name)
    if chunks is None:  # a container that was copied elsewhere: partitions lie beside their manifest
        beside = f"{run.manifest.rsplit('/', 1)[0]}/{name.rsplit('/', 1)[-1]}"
        chunks = await files.chunks(beside) if beside != name else None
    if chunks is None:
        return None
    written = 0
    with path.open("wb") as out:
        async for chunk in chunks:
            written += out.write(chunk)
    return written


def _read_part(path: Path, take: Callable[[InvoiceRow], None]) -> int:
    """Rows of one partition; its first bytes tell the format, whatever its name ends with."""
    with path.open("rb") as start:
        magic = start.read(4)
    if not magic:
        return 0
    count = 0
    for row in _parquet_rows(path) if magic == _PARQUET else _csv_rows(path, magic):
        take(row)
        count += 1
    return count


def _csv_rows(path: Path, magic: bytes) -> Iterator[InvoiceRow]:
    opener: Any = gzip.open if magic.startswith(_GZIP) else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as lines:
        rows = csv.reader(lines, strict=True)
        header = next(rows, None)
        if header is None:
            return
        read = reader(header)
        for number, cells in enumerate(rows, start=2):
            if not cells:
                continue
            if len(cells) != len(header):
                raise NotFocusError(f"row {number} has {len(cells)} columns, the header {len(header)}")
            yield _placed(read, cells, number)


def _parquet_rows(path: Path) -> Iterator[InvoiceRow]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name in COLUMNS]
        read = reader(columns)
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
            values = [batch.column(name).to_pylist() for name in columns]
            for cells in zip(*values, strict=True):
                number += 1
                yield _placed(read, cells, number)


def _placed(read: Callable[[Sequence[Any]], InvoiceRow], cells: Sequence[Any], number: int) -> InvoiceRow:
    try:
        return read(cells)
    except NotFocusError as error:
        raise NotFocusError(f"row {number}: {error}") from None


def whole_month(runs: Sequence[Run], end_exclusive: date) -> bool:
    """Whether every run says to hold the month to its last day."""
    return bool(runs) and all(run.last_day >= end_exclusive - timedelta(days=1) for run in runs)
