"""The hub's own surprises, on a real AMQP server and with the real SDK: two owners at once, a hub created anew."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
from azure.eventhub import EventData
from azure.eventhub.aio import EventHubConsumerClient, PartitionContext

from local.eventhub.embedded import EmbeddedHub
from shared.instants import epoch_ms
from shared.ledger.delivery import Delivery
from shared.ledger.ingest import IngestService
from shared.ledger.row import POSITION_SLACK_MS, Position
from shared.settings import Settings
from shared.usage.build import partition_key_of
from shared.usage.hub import UsagePublisher
from tests.support.engine import MICRO_USD, budget, config, usd
from tests.support.stack import Stack, open_stack, usage_bytes

EVENT_COST = (10 * 1 + 5 * 2) * MICRO_USD


@pytest.fixture
async def stack(redis_server, azurite) -> AsyncIterator[Stack]:
    """Tenant acme, ready, on empty stores."""
    async with open_stack(redis_server.url, azurite.connection_string, config(budget("team:*", usd(1_000)))) as stack:
        yield stack


@pytest.fixture
async def publisher(hub: EmbeddedHub, hub_name: str) -> AsyncIterator[UsagePublisher]:
    """The product's own producer."""
    publisher = UsagePublisher(Settings(eventhub_connection=hub.connection_string(), usage_hub=hub_name))
    yield publisher
    await publisher.close()


class Consumer:
    """A consumer of all partitions from the start, without an owner level: a second one does not end the first."""

    def __init__(self, hub: EmbeddedHub, hub_name: str, ingest: IngestService) -> None:
        self._ingest = ingest
        self._client = EventHubConsumerClient.from_connection_string(
            hub.connection_string(hub_name), "$Default", retry_total=0
        )
        self._task: asyncio.Task[None] | None = None
        self.seen = 0

    def start(self) -> None:
        """Receive in the background."""
        self._task = asyncio.create_task(
            self._client.receive_batch(self._on_batch, starting_position="-1", max_batch_size=40, max_wait_time=0.5)
        )

    async def stop(self) -> None:
        """Let go of the hub."""
        assert self._task is not None
        await self._client.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _on_batch(self, context: PartitionContext, events: list[EventData]) -> None:
        if not events:
            return
        stream = f"{context.fully_qualified_namespace}/{context.eventhub_name}/{context.partition_id}"
        await self._ingest.run([_delivery(stream, event) for event in events])
        self.seen += len(events)


def _delivery(stream: str, event: EventData) -> Delivery:
    enqueued, sequence = event.enqueued_time, event.sequence_number
    assert enqueued is not None
    assert sequence is not None
    body = b"".join(event.body)
    return Delivery(body, Position(stream, epoch_ms(enqueued), sequence))


async def publish(publisher: UsagePublisher, count: int) -> None:
    """Put that many new events onto the hub."""
    bodies = [usage_bytes(uuid.uuid4().hex, 10, 5) for _ in range(count)]
    await publisher.publish([(partition_key_of(body), body) for body in bodies])


async def until(condition: Callable[[], bool], seconds: float = 15) -> None:
    """Wait for it; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        await asyncio.sleep(0.02)


async def alerts(stack: Stack) -> list[str]:
    """Kinds of the notices in the outbox."""
    return [notice.kind for notice in await stack.outbox.waiting()]


async def test_two_owners_of_one_partition_count_everything_once(stack, hub, hub_name, publisher):
    """While a partition changes hands both owners run; adding both owners' batches would bill everybody twice.

    Two consumers, each in a worker of its own, both receive every event while more are published; the second joins
    late, at the beginning.
    """
    first = Consumer(hub, hub_name, stack.ingest)
    stack.wire()
    second = Consumer(hub, hub_name, stack.ingest)
    first.start()
    await publish(publisher, 200)
    second.start()
    await publish(publisher, 200)
    await until(lambda: first.seen == second.seen == 400)
    await first.stop()
    await publish(publisher, 100)
    await until(lambda: second.seen == 500)
    await second.stop()
    await stack.repair.run()
    assert await stack.ledger_total_nano_usd() == 500 * EVENT_COST
    assert await stack.spent_and_held() == (500 * EVENT_COST, 0)
    assert (await stack.repair.reconcile("acme")).drift_nano_usd == 0
    assert "hub_recreated" not in await alerts(stack)


@pytest.mark.parametrize(
    "pause_seconds", [0, POSITION_SLACK_MS / 1000 + 0.2], ids=["at-once", "beyond-the-position-slack"]
)
async def test_a_hub_created_anew_loses_nothing_and_alerts(stack, hub, hub_name, publisher, pause_seconds):
    """Sequences restart at 0 and look applied already: by sequence alone more than half of the spend went uncounted."""
    consumer = Consumer(hub, hub_name, stack.ingest)
    consumer.start()
    await publish(publisher, 300)
    await until(lambda: consumer.seen == 300)
    await consumer.stop()
    await publisher.close()

    hub.recreate_hub(hub_name)
    await asyncio.sleep(pause_seconds)
    again = Consumer(hub, hub_name, stack.ingest)
    again.start()
    for _ in range(4):  # past the old sequences too
        await publish(publisher, 100)
        await stack.repair.run()
    await until(lambda: again.seen == 400)
    await again.stop()
    await stack.repair.run()
    assert await stack.ledger_total_nano_usd() == 700 * EVENT_COST
    assert await stack.spent_and_held() == (700 * EVENT_COST, 0)
    assert (await stack.repair.reconcile("acme")).drift_nano_usd == 0
    assert "hub_recreated" in await alerts(stack)
