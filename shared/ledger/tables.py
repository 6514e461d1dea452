"""The ledger's tables: opens them once per process, creates what is missing, closes them at the end."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.credential import open_credential
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.data.tables.aio import TableClient, TableServiceClient
    from azure.storage.blob.aio import BlobServiceClient, ContainerClient

TABLES = ("ledger", "hours", "rollups", "deadletters", "outbox", "periods", "state", "streams", "names")
TRANSACTION_ROWS = 100  # Table Storage's limit; one more and Azurite answers with a malformed reply instead of a 400

# A lost reply must surface while the caller's time budget lasts; the defaults would retry for minutes.
_CLIENT_OPTIONS: dict[str, Any] = {
    "retry_total": 3,
    "retry_backoff_factor": 0.2,
    "connection_timeout": 5,
    "read_timeout": 20,
}


@dataclass
class Tables:
    """The clients of all ledger tables and of the blob container for what is too large for a table."""

    service: TableServiceClient
    ledger: TableClient
    hours: TableClient
    rollups: TableClient
    deadletters: TableClient
    outbox: TableClient
    periods: TableClient
    state: TableClient
    streams: TableClient
    names: TableClient
    blob_service: BlobServiceClient
    bodies: ContainerClient  # bodies of dead letters
    credential: AsyncTokenCredential | None = None

    async def close(self) -> None:
        """Close every connection."""
        await self.service.close()
        await self.blob_service.close()
        if self.credential is not None:
            await self.credential.close()


async def open_tables(settings: Settings) -> Tables:
    """Open the ledger's tables and blob container, creating the missing ones.

    Raises the SDK's errors when storage cannot be reached, and ValueError when no address is configured.
    """
    tables = connect_tables(settings)
    try:
        await create_missing(tables, settings)
    except BaseException:
        await tables.close()
        raise
    return tables


async def create_missing(tables: Tables, settings: Settings) -> None:
    """Create the tables and the container that do not exist yet."""
    await asyncio.gather(
        *(tables.service.create_table_if_not_exists(_name(settings, table)) for table in TABLES),
        create_container(tables.bodies),
    )


async def create_container(container: ContainerClient) -> None:
    """Create a blob container unless it is there."""
    from azure.core.exceptions import ResourceExistsError

    try:
        await container.create_container()
    except ResourceExistsError:
        return


async def delete_rows(table: TableClient, keys: Iterable[tuple[str, str]]) -> None:
    """Delete rows given by (PartitionKey, RowKey); those already gone are fine."""
    from azure.data.tables import TableTransactionError

    partitions: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    for partition, row in keys:
        partitions[partition].append({"PartitionKey": partition, "RowKey": row})

    async def delete(rows: list[dict[str, str]]) -> None:
        for start in range(0, len(rows), TRANSACTION_ROWS):
            chunk = rows[start : start + TRANSACTION_ROWS]
            try:
                await table.submit_transaction([("delete", row) for row in chunk])
            except TableTransactionError as error:
                if error.status_code != 404:
                    raise
                # Somebody else is deleting the same rows; one by one a missing row is no error.
                await asyncio.gather(*(table.delete_entity(row) for row in chunk))

    await asyncio.gather(*(delete(rows) for rows in partitions.values()))


def _name(settings: Settings, table: str) -> str:
    return f"{settings.table_prefix}{table}"


def connect_tables(settings: Settings) -> Tables:
    """Clients of the ledger's storage, without any call to it. Raises ValueError when no address is configured."""
    from azure.data.tables.aio import TableServiceClient
    from azure.storage.blob.aio import BlobServiceClient

    credential: AsyncTokenCredential | None = None
    if settings.storage_connection:
        service = TableServiceClient.from_connection_string(settings.storage_connection, **_CLIENT_OPTIONS)
        blobs = BlobServiceClient.from_connection_string(settings.storage_connection)
    elif settings.tables_endpoint and settings.blobs_endpoint:
        credential = open_credential(settings)
        service = TableServiceClient(settings.tables_endpoint, credential=credential, **_CLIENT_OPTIONS)
        blobs = BlobServiceClient(settings.blobs_endpoint, credential=credential)
    else:
        raise ValueError("LEDGER_STORAGE, or LEDGER_TABLES_ENDPOINT and LEDGER_BLOBS_ENDPOINT, must be set")
    return Tables(
        service=service,
        blob_service=blobs,
        bodies=blobs.get_container_client(f"{settings.table_prefix.lower()}-dead-letters"),
        credential=credential,
        **{table: service.get_table_client(_name(settings, table)) for table in TABLES},
    )
