"""Statement files in Blob Storage."""

from __future__ import annotations

from typing import Any

from shared.ledger.tables import create_container


class BlobFiles:
    """Files in one container. `container` is an azure.storage.blob.aio.ContainerClient."""

    def __init__(self, container: Any) -> None:
        self._container = container

    async def put(self, name: str, body: bytes, media_type: str) -> None:
        """Write or replace a file in one request, so a reader sees the old or the new one whole.

        Creates the container at first use. Raises the SDK's errors.
        """
        from azure.core.exceptions import ResourceNotFoundError
        from azure.storage.blob import ContentSettings

        settings = ContentSettings(content_type=media_type)
        try:
            await self._container.upload_blob(name, body, overwrite=True, content_settings=settings)
        except ResourceNotFoundError:
            await create_container(self._container)
            await self._container.upload_blob(name, body, overwrite=True, content_settings=settings)
