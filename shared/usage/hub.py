"""Publishing to a hub, and asking it how far its partitions have come."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.credential import open_credential
from shared.errors import PayloadTooLarge, TollkeeperError
from shared.instants import epoch_ms
from shared.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.eventhub import EventData, EventDataBatch
    from azure.eventhub.aio import EventHubProducerClient

_BACKOFF_SECONDS = 0.2  # doubled on each of the SDK's retries; its 0.8 keeps an HTTP caller waiting 14 s in an outage
log = logging.getLogger("tollkeeper.hub")


class HubUnavailable(TollkeeperError):
    """The hub did not take the events after the SDK's own retries; sending the same bytes again is safe."""

    code, http_status, kind = "hub_unavailable", 503, "server_error"


class PartitionState(NamedTuple):
    """How far one partition has come. When `empty`, the other numbers say nothing."""

    partition: str
    last_sequence: int  # -1: nothing was ever enqueued
    last_enqueued_ms: int
    empty: bool


class UsagePublisher:
    """A producer that is opened at first use and kept open: opening a link costs half a second."""

    def __init__(self, settings: Settings, *, llm_logs: bool = False) -> None:
        """Of the usage hub, or of the LLM log hub, which has a namespace of its own."""
        self._settings = settings
        self._hub, self._connection, self._namespace = (
            (settings.llm_logs_hub, settings.llm_logs_connection, settings.llm_logs_namespace)
            if llm_logs
            else (settings.usage_hub, settings.eventhub_connection, settings.eventhub_namespace)
        )
        self._partitions: list[str] = []  # as last listed
        self._client: EventHubProducerClient | None = None
        self._credential: AsyncTokenCredential | None = None

    async def publish(self, bodies: Sequence[tuple[str, bytes]]) -> None:
        """Put `(partition key, event)` pairs onto the hub, in order per key. Safe to call concurrently.

        Raises PayloadTooLarge before anything is sent when one event cannot fit a message, and HubUnavailable when the
        hub does not answer; then some may have been sent, and sending all again is right: the ledger drops duplicates.
        """
        from azure.core.exceptions import AzureError
        from azure.eventhub.exceptions import EventHubError

        try:
            for batch in await self._batches(bodies):
                await self._open().send_batch(batch)
        except (EventHubError, AzureError) as error:
            raise self._unavailable(error) from error

    @staticmethod
    async def load() -> None:
        """Load the SDK beside the event loop: the import would hold up whatever else this process answers."""
        await asyncio.to_thread(importlib.import_module, "azure.eventhub.aio")

    async def partition_state(self) -> list[PartitionState]:
        """How far each partition has come, in partition order. Raises HubUnavailable."""
        from azure.core.exceptions import AzureError
        from azure.eventhub.exceptions import EventHubError

        try:
            found = await self._partition_properties()
        except (EventHubError, AzureError) as error:
            raise self._unavailable(error) from error
        return [
            PartitionState(
                partition=state["id"],
                last_sequence=state["last_enqueued_sequence_number"],
                last_enqueued_ms=epoch_ms(state["last_enqueued_time_utc"]),
                empty=bool(state["is_empty"]),
            )
            for state in found
        ]

    async def _partition_properties(self) -> list[dict[str, Any]]:
        """Every management request opens its own connection (half a second), so known partitions are asked about
        while the list is read again: a hub can grow, and a partition overlooked would let holds expire unsettled.
        """
        client = self._open()
        known, self._partitions = self._partitions, []  # a hub created anew may have fewer: a failure forgets them
        listed, *states = await asyncio.gather(
            client.get_partition_ids(), *(client.get_partition_properties(partition) for partition in known)
        )
        by_partition = {state["id"]: state for state in states}
        missing = [partition for partition in listed if partition not in by_partition]
        found = await asyncio.gather(*(client.get_partition_properties(partition) for partition in missing))
        by_partition.update((state["id"], state) for state in found)
        self._partitions = listed
        return [by_partition[partition] for partition in listed]

    async def close(self) -> None:
        """Close the connection; a later call opens it again."""
        client, self._client = self._client, None
        credential, self._credential = self._credential, None
        if client is not None:
            await client.close()
        if credential is not None:
            await credential.close()

    async def _batches(self, bodies: Sequence[tuple[str, bytes]]) -> list[EventDataBatch]:
        """The events packed by partition key, all before the first is sent, so that one too large refuses all."""
        from azure.eventhub import EventData

        client = self._open()
        done: list[EventDataBatch] = []
        filling: dict[str, EventDataBatch] = {}
        for key, body in bodies:
            event = EventData(body)
            batch = filling.get(key)
            if batch is not None and _fits(batch, event):
                continue
            if batch is not None:
                done.append(batch)
            batch = filling[key] = await client.create_batch(partition_key=key)
            if not _fits(batch, event):
                raise PayloadTooLarge(
                    f"an event of {len(body)} bytes does not fit a hub message of {batch.max_size_in_bytes} bytes"
                )
        return [*done, *filling.values()]

    def _unavailable(self, error: Exception) -> HubUnavailable:
        # The SDK's text may name addresses; the caller gets none of it.
        log.warning("hub_unavailable", extra={"hub": self._hub, "error": str(error).partition("\n")[0]})
        return HubUnavailable(f"the hub {self._hub!r} did not answer", retry_after_seconds=1)

    def _open(self) -> EventHubProducerClient:
        """The client. No await stands between looking and storing, so concurrent callers share one."""
        if self._client is None:
            from azure.eventhub.aio import EventHubProducerClient

            if self._connection:
                self._client = EventHubProducerClient.from_connection_string(
                    self._connection, eventhub_name=self._hub, retry_backoff_factor=_BACKOFF_SECONDS
                )
            else:
                self._credential = open_credential(self._settings)
                self._client = EventHubProducerClient(
                    self._namespace or "", self._hub, self._credential, retry_backoff_factor=_BACKOFF_SECONDS
                )
        return self._client


def _fits(batch: EventDataBatch, event: EventData) -> bool:
    try:
        batch.add(event)
    except ValueError:  # the SDK's way to say that the batch is full
        return False
    return True
