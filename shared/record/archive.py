"""The container of the export. It is only added to: no write replaces, changes or deletes what is there.

So a time-based immutability policy may lie on it, and under one not even the app's own identity can unwrite the record.
"""

from __future__ import annotations

import asyncio
from os import SEEK_END
from pathlib import Path
from typing import Any

from shared.ledger.tables import create_container
from shared.record.manifest import FOLDER, RecordBroken, Written, check_chain

READS_AT_ONCE = 16


class Archive:
    """Files in one container. `container` is an azure.storage.blob.aio.ContainerClient."""

    def __init__(self, container: Any) -> None:
        self._container = container

    async def chain(self) -> list[Written]:
        """All manifests, first to last; empty when nothing was exported. Raises RecordBroken."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            names = [blob.name async for blob in self._container.list_blobs(name_starts_with=FOLDER)]
        except ResourceNotFoundError:
            return []  # no container yet
        limit = asyncio.Semaphore(READS_AT_ONCE)

        async def read(name: str) -> bytes:
            async with limit:
                return await self.read(name)

        return check_chain(dict(zip(names, await asyncio.gather(*map(read, names)), strict=True)))

    async def read(self, name: str) -> bytes:
        """A small file. Raises RecordBroken when it is not there."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            body: bytes = await (await self._container.download_blob(name)).readall()
        except ResourceNotFoundError:
            raise RecordBroken(f"{name}: is missing") from None
        return body

    async def fetch(self, name: str, path: Path) -> None:
        """A large file, to disk. Raises RecordBroken when it is not there."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            download = await self._container.download_blob(name)
        except ResourceNotFoundError:
            raise RecordBroken(f"{name}: is missing") from None
        with path.open("wb") as file:
            await download.readinto(file)

    async def add(self, name: str, body: bytes | Path) -> bool:
        """Write a file that is not there yet; False when it is, which leaves it as it is."""
        from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError

        try:
            await self._upload(name, body)
        except ResourceNotFoundError:
            await create_container(self._container)
            return await self.add(name, body)
        except ResourceExistsError:
            return False
        return True

    async def _upload(self, name: str, body: bytes | Path) -> None:
        if isinstance(body, bytes):
            await self._container.upload_blob(name, body, overwrite=False)
            return
        with body.open("rb") as file:
            size = file.seek(0, SEEK_END)
            file.seek(0)
            await self._container.upload_blob(name, file, length=size, overwrite=False)
