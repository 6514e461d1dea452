"""Writes a bill in every form for the tenant and for each team, and shows them all at once.

Files go to a folder named after their content; the month's manifest, written last and on the version that was read
first, points to it. So a reader never sees files of two bills, a crash leaves nothing but a folder that a later run
sweeps, and publishing the same bill again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import file_digest
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from shared.reports.bill import Bill
from shared.reports.charge import Charge
from shared.reports.manifest import (
    MANIFEST,
    Manifest,
    PublishedFile,
    content_digest,
    decode_manifest,
    make_manifest,
    month_folder,
    team_slug,
)
from shared.reports.statement import Statement

if TYPE_CHECKING:
    from shared.reports.formats import Format

log = logging.getLogger("tollkeeper.reports")

SWEEP_AGE = timedelta(hours=24)
_UPLOADS_AT_ONCE = 8


class Files(Protocol):
    """Where statements are kept; a file appears whole or not at all."""

    async def put_file(self, name: str, path: Path, media_type: str) -> None: ...
    async def replace(self, name: str, body: bytes, media_type: str, version: str | None) -> bool: ...
    async def get(self, name: str) -> tuple[bytes, str] | None: ...
    async def sweep(self, prefix: str, keep: str, older_than: timedelta) -> int: ...


class _Written(NamedTuple):
    file: PublishedFile
    disk: Path


class Publisher:
    """Publishes bills. `formats` are the forms of every statement, by name."""

    def __init__(self, files: Files, formats: Mapping[str, Format]) -> None:
        self._files = files
        self._formats = formats

    async def publish(self, bill: Bill) -> Manifest:
        """Publish a bill and return the manifest that is in force then.

        A final statement stays: neither a draft nor another final one replaces it. When another worker published a
        draft meanwhile, a final statement replaces it; a draft leaves it, as the next run comes soon.
        """
        folder = month_folder(bill.statement.tenant, bill.statement.period)
        async with rendered(bill, self._formats) as (manifest, written):
            body = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
            uploaded = False
            while True:
                before = await self._files.get(folder + MANIFEST)
                if before is not None and (known := decode_manifest(before[0])).status == "final":
                    return known
                if not uploaded:
                    await self._upload(folder, manifest.digest, written)
                    uploaded = True
                version = None if before is None else before[1]
                if await self._files.replace(folder + MANIFEST, body, "application/json", version):
                    break
                log.warning("statement_published_by_another", extra={"tenant": manifest.tenant})
                if manifest.status != "final":
                    after = await self._files.get(folder + MANIFEST)
                    return manifest if after is None else decode_manifest(after[0])
        await self._files.sweep(folder, f"{folder}{manifest.digest}/", SWEEP_AGE)
        return manifest

    async def _upload(self, folder: str, digest: str, written: list[_Written]) -> None:
        room = asyncio.Semaphore(_UPLOADS_AT_ONCE)

        async def upload(each: _Written) -> None:
            async with room:
                await self._files.put_file(f"{folder}{digest}/{each.file.path}", each.disk, each.file.media_type)

        async with asyncio.TaskGroup() as tasks:
            for each in written:
                tasks.create_task(upload(each))


@asynccontextmanager
async def rendered(bill: Bill, formats: Mapping[str, Format]) -> AsyncIterator[tuple[Manifest, list[_Written]]]:
    """The files of a bill on disk, for as long as the context lasts, and the manifest that names them."""
    with tempfile.TemporaryDirectory(prefix="tollkeeper-files-") as directory:
        written = await asyncio.to_thread(_write_all, bill, formats, Path(directory))
        digest = content_digest({each.file.path: each.file.sha256 for each in written})
        charges = max((each.file.rows for each in written if each.file.team is None), default=0)
        yield make_manifest(bill.statement, [each.file for each in written], digest, charges), written


def _write_all(bill: Bill, formats: Mapping[str, Format], directory: Path) -> list[_Written]:
    statement = bill.statement
    whole: tuple[str | None, Statement] = (None, statement)
    written = []
    for number, (team, part) in enumerate(chain([whole], statement.by_team())):
        for form in formats.values():
            disk = directory / f"{number}-{form.name}"
            charges = _Counted(bill.charges(None if team is None else [team]))
            sha256, size = _write_one(form, part, charges, disk)
            file = PublishedFile(
                name=form.file_name,
                path=form.file_name if team is None else f"teams/{team_slug(team)}/{form.file_name}",
                format=form.name,
                media_type=form.media_type,
                team=team,
                rows=charges.count or len(part.lines),
                bytes=size,
                sha256=sha256,
            )
            written.append(_Written(file, disk))
    return written


def _write_one(form: Format, statement: Statement, charges: Iterator[Charge], disk: Path) -> tuple[str, int]:
    with disk.open("w+b") as out:
        form.write(statement, charges, out)
        out.seek(0)
        return file_digest(out, "sha256").hexdigest(), out.tell()


class _Counted(Iterator[Charge]):
    """Charges, and how many of them were taken."""

    def __init__(self, charges: Iterator[Charge]) -> None:
        self._charges = charges
        self.count = 0

    def __next__(self) -> Charge:
        charge = next(self._charges)
        self.count += 1
        return charge
