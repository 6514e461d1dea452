"""Statement files on a real blob service."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

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


async def test_writes_that_depend_on_what_was_there(azurite: Azurite) -> None:
    """The first writer of a new file wins, and a file is replaced only on the version that was read."""
    name = f"statements-{uuid.uuid4().hex[:8]}"
    async with ContainerClient.from_connection_string(azurite.connection_string, name) as container:
        files = BlobFiles(container)
        assert await files.get("a/manifest.json") is None
        took = await asyncio.gather(*(files.put_new("a/basis.json", bytes([n]), "application/json") for n in range(4)))
        assert sorted(took) == [False, False, False, True]
        assert (await files.get("a/basis.json") or (b"", ""))[0] == bytes([took.index(True)])
        assert await files.replace("a/manifest.json", b"1", "application/json", None)
        assert not await files.replace("a/manifest.json", b"2", "application/json", None)
        body, version = await files.get("a/manifest.json") or (b"", "")
        assert body == b"1"
        assert await files.replace("a/manifest.json", b"3", "application/json", version)
        assert not await files.replace("a/manifest.json", b"4", "application/json", version)
        assert (await files.get("a/manifest.json") or (b"", ""))[0] == b"3"


async def test_old_folders_are_swept_and_nothing_else(azurite: Azurite) -> None:
    """Files of folders that the manifest no longer names go; the manifest, the basis and other months stay."""
    name = f"statements-{uuid.uuid4().hex[:8]}"
    async with ContainerClient.from_connection_string(azurite.connection_string, name) as container:
        files = BlobFiles(container)
        kept = ["t/2026-11/manifest.json", "t/2026-11/basis.json", "t/2026-11/new/a.csv", "t/2026-12/old/a.csv"]
        for each in [*kept, "t/2026-11/old/a.csv", "t/2026-11/old/teams/x/a.csv"]:
            await files.put(each, b"x", "text/csv")
        assert await files.sweep("t/2026-11/", "t/2026-11/new/", timedelta(hours=24)) == 0  # all are too young
        assert await files.sweep("t/2026-11/", "t/2026-11/new/", timedelta(0)) == 2
        assert sorted([blob.name async for blob in container.list_blobs()]) == sorted(kept)
        assert await files.folders("t/") == ["2026-11", "2026-12"]
