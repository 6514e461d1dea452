"""Statement files on a real blob service."""

from __future__ import annotations

import uuid

from azure.storage.blob.aio import ContainerClient

from local.azurite import Azurite
from shared.reports.files import BlobFiles


async def test_file_is_replaced_whole_and_its_container_made_when_missing(azurite: Azurite) -> None:
    """The first file creates the container; writing again replaces bytes and keeps one file of the right type."""
    name = f"statements-{uuid.uuid4().hex[:8]}"
    async with ContainerClient.from_connection_string(azurite.connection_string, name) as container:
        files = BlobFiles(container)
        await files.put("contoso/2026-11/statement.csv", b"a longer first version\n", "text/csv")
        await files.put("contoso/2026-11/statement.csv", b"second\n", "text/csv")
        names = [blob.name async for blob in container.list_blobs()]
        stored = await container.download_blob("contoso/2026-11/statement.csv")
        assert names == ["contoso/2026-11/statement.csv"]
        assert await stored.readall() == b"second\n"
        assert stored.properties.content_settings.content_type == "text/csv"
