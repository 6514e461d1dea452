"""Reads what was published: which months there are, their manifests, and single files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from shared.errors import NotFound
from shared.months import is_month, month_span
from shared.reports.manifest import MANIFEST, Manifest, PublishedFile, decode_manifest, month_folder


class Files(Protocol):
    """Where statements are kept."""

    async def get(self, name: str) -> tuple[bytes, str] | None: ...
    async def chunks(self, name: str) -> AsyncIterator[bytes] | None: ...
    async def folders(self, prefix: str) -> list[str]: ...


class Download(NamedTuple):
    """A file to hand out."""

    file: PublishedFile
    chunks: AsyncIterator[bytes]


class PublishedStatements:
    """The published statements of every tenant."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def manifest(self, tenant: str, period: str) -> Manifest | None:
        """The manifest of a month; None when nothing was published. Raises InvalidRequest for what is no month."""
        month_span(period)
        found = await self._files.get(month_folder(tenant, period) + MANIFEST)
        return None if found is None else decode_manifest(found[0])

    async def all(self, tenant: str) -> list[Manifest]:
        """The manifests of a tenant, newest month first."""
        months = [folder for folder in await self._files.folders(f"{tenant}/") if is_month(folder)]
        manifests = [await self.manifest(tenant, month) for month in sorted(months, reverse=True)]
        return [manifest for manifest in manifests if manifest is not None]

    async def open(self, tenant: str, period: str, name: str, team: str | None = None) -> Download:
        """A file of a month by its name, of the tenant or of a team. Raises NotFound, InvalidRequest for no month."""
        manifest = await self.manifest(tenant, period)
        file = None if manifest is None else manifest.file(name, team)
        if manifest is None or file is None:
            of = f"team {team[:63]!r}" if team is not None else f"tenant {tenant!r}"
            raise NotFound(f"file: {of} has no published {name[:80]!r} of {period}", param="file")
        chunks = await self._files.chunks(f"{month_folder(tenant, period)}{manifest.digest}/{file.path}")
        if chunks is None:  # published anew between the two reads, long after: the old folder is gone
            raise NotFound(f"file: {name[:80]!r} of {period} was just replaced; ask again", param="file")
        return Download(file, chunks)
