"""Event Hubs triggers: the real consumer, checkpoints in Blob Storage, batches decoded by azure-functions."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from azure.core.exceptions import ResourceExistsError
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubConsumerClient, PartitionContext
from azure.eventhub.extensions.checkpointstoreblobaio import BlobCheckpointStore
from azure.functions.eventhub import EventHubTriggerConverter
from azure.functions.meta import Datum
from azure.storage.blob.aio import ContainerClient

from local.functions_host.functions import AppError, Function, enum_value, resolve_settings
from local.functions_host.host_json import HostSettings
from local.functions_host.retries import Attempt

logger = logging.getLogger("tollkeeper.local.functions")

CHECKPOINT_CONTAINER = "azure-webjobs-eventhub"
STORAGE_SETTING = "AzureWebJobsStorage"

# The Functions host balances every 10 s and lets ownership expire after a minute. A laptop's host is restarted often,
# and after a crash its partitions stay claimed until they expire, so both are shorter here.
_LOAD_BALANCING_SECONDS = 1.0
_OWNERSHIP_EXPIRES_SECONDS = 5.0
# As the Functions host: the newest owner of a partition closes the link of the one before.
_OWNER_LEVEL = 0
_RESTART_SECONDS = 2.0
_DRAIN_SECONDS = 10.0


class EventHubTrigger:
    """Feeds one function from one hub until it is stopped."""

    def __init__(self, function: Function, settings: HostSettings, env: Mapping[str, str] = os.environ) -> None:
        """Raises AppError when a setting the trigger names is missing."""
        trigger = function.trigger
        self._function = function
        self._settings = settings
        self._hub = resolve_settings(str(trigger["eventHubName"]), env)
        self._consumer_group = resolve_settings(str(trigger.get("consumerGroup") or "$Default"), env)
        self._is_batch = enum_value(trigger.get("cardinality", "one")).lower() == "many"
        self._connection = _setting(str(trigger["connection"]), env)
        self._storage = _setting(STORAGE_SETTING, env)
        self._calls: set[asyncio.Task[bool]] = set()
        self._batch_counts: Counter[str] = Counter()  # by partition, for the checkpoint frequency
        self._is_stopping = False

    async def run(self) -> None:
        """Consume until cancelled; then let the calls that are running end. Failures of the hub are tried again."""
        await self._create_container()
        while True:
            try:
                await self._consume()
            except Exception:  # the hub or the storage is away: the trigger must outlive that
                logger.exception("the trigger of %s lost its hub; it starts again", self._function.name)
            await asyncio.sleep(_RESTART_SECONDS)

    async def _create_container(self) -> None:
        async with ContainerClient.from_connection_string(self._storage, CHECKPOINT_CONTAINER) as container:
            try:
                await container.create_container()
            except ResourceExistsError:
                logger.debug("container %s exists", CHECKPOINT_CONTAINER)

    async def _consume(self) -> None:
        store = BlobCheckpointStore.from_connection_string(self._storage, CHECKPOINT_CONTAINER)
        client = EventHubConsumerClient.from_connection_string(
            self._connection,
            self._consumer_group,
            eventhub_name=self._hub,
            checkpoint_store=store,
            load_balancing_interval=_LOAD_BALANCING_SECONDS,
            load_balancing_strategy="greedy",
            partition_ownership_expiration_interval=_OWNERSHIP_EXPIRES_SECONDS,
        )
        self._is_stopping = False
        async with store, client:
            try:
                await client.receive_batch(
                    on_event_batch=self._on_batch,
                    on_error=self._on_error,
                    max_batch_size=self._settings.max_event_batch_size,
                    prefetch=self._settings.prefetch_count,
                    starting_position=self._settings.initial_position,
                    starting_position_inclusive=not isinstance(self._settings.initial_position, str),
                    owner_level=_OWNER_LEVEL,
                )
            finally:
                # While the store is still open, because a call that ends well writes its checkpoint.
                self._is_stopping = True
                if self._calls:
                    await asyncio.wait(self._calls, timeout=_DRAIN_SECONDS)

    async def _on_error(self, context: PartitionContext | None, error: Exception) -> None:
        where = f"partition {context.partition_id}" if context else "balancing"
        if "is invalid. The last" in str(error):
            where += f" (hub created again? delete its blobs in the container {CHECKPOINT_CONTAINER} to read on)"
        logger.warning("hub %s, %s: %s: %s", self._hub, where, type(error).__name__, str(error).splitlines()[0])

    async def _on_batch(self, context: PartitionContext, events: list[EventData]) -> None:
        batches = [events] if self._is_batch else [[event] for event in events]
        for batch in batches if events else []:
            await self._deliver(context, batch)

    async def _deliver(self, context: PartitionContext, batch: list[EventData]) -> None:
        """Call the function with one batch, as often as its retry policy says, until cancelled with the partition."""
        policy, retry_count = self._function.retry_policy, 0
        while True:
            if self._is_stopping:
                await asyncio.Event().wait()  # nothing new begins; closing the consumer cancels this
            is_last = not policy.allows(retry_count)
            # Losing the partition cancels this loop but not the call: the app must not be torn off mid-write by
            # something that on Azure would not happen either. What it did will be delivered again to the new owner.
            call = asyncio.create_task(self._attempt(context, batch, Attempt(retry_count, policy), is_last=is_last))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            if await asyncio.shield(call) or is_last:
                return
            await asyncio.sleep(policy.delay_seconds(retry_count))
            retry_count += 1

    async def _attempt(
        self, context: PartitionContext, batch: list[EventData], attempt: Attempt, *, is_last: bool
    ) -> bool:
        """One call, and the checkpoint when the batch is done with. True when the function did not raise."""
        is_ok = True
        try:
            await self._function.call(trigger_value(batch, context, is_batch=self._is_batch), attempt)
        except Exception:
            logger.exception("function %s failed, attempt %d", self._function.name, attempt.retry_count + 1)
            is_ok = False
        # As on Azure, also when the last attempt failed: without a retry policy a failure loses the batch.
        if is_ok or is_last:
            self._batch_counts[context.partition_id] += 1
            if self._batch_counts[context.partition_id] % self._settings.batch_checkpoint_frequency == 0:
                await context.update_checkpoint(batch[-1])
        return is_ok


def trigger_value(events: Sequence[EventData], context: PartitionContext, *, is_batch: bool) -> Any:
    """What the function receives, built by azure-functions from what the host would send to the Python worker."""
    system_properties = [
        {
            "SequenceNumber": event.sequence_number,
            "Offset": event.offset,
            "PartitionKey": _text(event.partition_key),
            "EnqueuedTimeUtc": event.enqueued_time.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if event.enqueued_time else None,
            **{_text(name): _text(value) for name, value in (event.system_properties or {}).items()},
        }
        for event in events
    ]
    properties = [{_text(name): _text(value) for name, value in (event.properties or {}).items()} for event in events]
    # Senders of other protocols may use AMQP values as bodies; Azure's producers and this project send data sections.
    bodies = [b"".join(cast("Iterable[bytes]", event.body)) for event in events]
    metadata = {
        "PartitionContext": _json(
            {
                "FullyQualifiedNamespace": context.fully_qualified_namespace,
                "EventHubName": context.eventhub_name,
                "ConsumerGroup": context.consumer_group,
                "PartitionId": context.partition_id,
            }
        )
    }
    if is_batch:
        columns = ("PartitionKey", "Offset", "SequenceNumber", "EnqueuedTimeUtc")
        metadata |= {f"{name}Array": _json([entry[name] for entry in system_properties]) for name in columns}
        metadata |= {"PropertiesArray": _json(properties), "SystemPropertiesArray": _json(system_properties)}
        data = Datum(type="collection_bytes", value=SimpleNamespace(bytes=bodies))
    else:
        entry = system_properties[0]
        metadata |= {name: _json(entry[name]) for name in ("PartitionKey", "SequenceNumber", "EnqueuedTimeUtc")}
        metadata |= {"Offset": Datum(type="string", value=entry["Offset"])}
        metadata |= {"Properties": _json(properties[0]), "SystemProperties": _json(entry)}
        data = Datum(type="bytes", value=bodies[0])
    return EventHubTriggerConverter.decode(data, trigger_metadata=metadata)


def _setting(name: str, env: Mapping[str, str]) -> str:
    if not env.get(name):
        raise AppError(f"the setting {name} (a connection string) is not in the environment")
    return env[name]


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _json(value: Any) -> Datum:
    return Datum(type="json", value=json.dumps(value, default=str))
