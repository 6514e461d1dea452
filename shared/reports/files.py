"""Statement files in Blob Storage."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from shared.ledger.tables import create_container


class BlobFiles:
    """Files in one container, which is made at first use. `container` is an azure.storage.blob.aio.ContainerClient.

    Every write is one request, so a reader sees the old or the new file whole. All methods raise the SDK's errors.
    """

    def __init__(self, container: Any) -> None:
        self._container = container

    async def put(self, name: str, body: bytes, media_type: str) -> None:
        """Write or replace a file."""
        await self._upload(name, body, media_type, overwrite=True)

    async def put_file(self, name: str, path: Path, media_type: str) -> None:
        """Write or replace a file from disk. Large ones go in blocks that appear together at the end."""
        with path.open("rb") as body:
            await self._upload(name, body, media_type, overwrite=True)

    async def put_new(self, name: str, body: bytes, media_type: str) -> bool:
        """Write a file that must not be there yet; False when it is, whoever wrote it."""
        from azure.core.exceptions import ResourceExistsError

        try:
            await self._upload(name, body, media_type, overwrite=False)
        except ResourceExistsError:
            return False
        return True

    async def replace(self, name: str, body: bytes, media_type: str, version: str | None) -> bool:
        """Write a file on the version that `get` told (None: there was none); False when it changed meanwhile."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError

        if version is None:
            return await self.put_new(name, body, media_type)
        condition = {"etag": version, "match_condition": MatchConditions.IfNotModified}
        try:
            await self._upload(name, body, media_type, overwrite=True, **condition)
        except ResourceModifiedError:
            return False
        return True

    async def get(self, name: str) -> tuple[bytes, str] | None:
        """A file's bytes and version; None when it is not there."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            blob = await self._container.download_blob(name)
            return await blob.readall(), blob.properties.etag
        except ResourceNotFoundError:
            return None

    async def chunks(self, name: str) -> AsyncIterator[bytes] | None:
        """A file's bytes piece by piece; None when it is not there."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            blob = await self._container.download_blob(name)
        except ResourceNotFoundError:
            return None
        chunks: AsyncIterator[bytes] = blob.chunks()
        return chunks

    async def names(self, prefix: str) -> AsyncIterator[tuple[str, datetime]]:
        """The names below a prefix, each with the time it was last written."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            async for blob in self._container.list_blobs(name_starts_with=prefix):
                yield blob.name, blob.last_modified
        except ResourceNotFoundError:
            return

    async def folders(self, prefix: str) -> list[str]:
        """The folders right below a prefix that ends with a slash, without it."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            items = [item async for item in self._container.walk_blobs(name_starts_with=prefix, delimiter="/")]
        except ResourceNotFoundError:
            return []
        return sorted(item.name[len(prefix) : -1] for item in items if item.name.endswith("/"))

    async def sweep(self, prefix: str, keep: str, older_than: timedelta) -> int:
        """Delete what lies in folders below a prefix but not below `keep`, and was written long enough before the
        newest of it; returns how many. A publication or a download that is under way is newer than that."""
        from azure.core.exceptions import ResourceNotFoundError

        found = [item async for item in self.names(prefix)]
        newest = max((written for _, written in found), default=None)
        gone = 0
        for name, written in found:
            in_folder = "/" in name.removeprefix(prefix)
            if newest is None or not in_folder or name.startswith(keep) or newest - written < older_than:
                continue
            try:
                await self._container.delete_blob(name)
            except ResourceNotFoundError:
                continue
            gone += 1
        return gone

    async def _upload(self, name: str, body: Any, media_type: str, **options: Any) -> None:
        from azure.core.exceptions import ResourceNotFoundError
        from azure.storage.blob import ContentSettings

        settings = ContentSettings(content_type=media_type)
        try:
            await self._container.upload_blob(name, body, content_settings=settings, **options)
        except ResourceNotFoundError:
            await create_container(self._container)
            if hasattr(body, "seek"):
                body.seek(0)
            await self._container.upload_blob(name, body, content_settings=settings, **options)
